"""Edits: of any size, and what is known stays."""

import numpy as np
import pytest
from PIL import Image, ImageCms

from sr3_jax import Editor, Upscaler
from sr3_jax.errors import UserError
from sr3_jax.images import pixels
from sr3_jax.inference import editor, holes
from sr3_jax.inference.sampling import Sampling
from sr3_jax.tasks.editing import LUMA
from tests.tiny import random_checkpoint, tiny_checkpoint, tiny_config

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (45, 70, 3), np.uint8)


def load(kind):
    config = tiny_config(channels=3)
    config.task.kind, config.data.lr_size = kind, config.data.hr_size
    config.model.predict_residual = kind == "colourise"
    return Editor(random_checkpoint(config, kind))


@pytest.fixture(scope="module")
def colourise():
    return load("colourise")


@pytest.fixture(scope="module")
def inpaint():
    return load("inpaint")


def hole_of(*boxes, size=(45, 70)):
    hole = np.zeros(size, np.uint8)
    for top, bottom, left, right in boxes:
        hole[top:bottom, left:right] = 255
    return hole


@pytest.mark.parametrize("size", [(16, 16), (45, 70), (9, 200), (250, 210)])
def test_colour_is_made_for_any_size_and_the_luma_stays(colourise, size):
    grey = RNG.integers(0, 256, size, np.uint8)
    made = colourise(grey)
    assert made.shape == (*size, 3)
    assert made.dtype == np.uint8
    assert np.abs(made @ LUMA - grey).max() <= 1.5  # each channel is rounded
    assert np.ptp(made.astype(int), axis=-1).max() > 5  # it has colours
    np.testing.assert_array_equal(made, colourise(grey))
    assert (made != colourise(grey, seed=1)).any()


def test_a_colour_image_is_coloured_anew_and_kinds_of_images_stay(colourise):
    grey = Image.fromarray(PHOTO).convert("L")
    found = colourise(grey)
    assert (found.mode, found.size) == ("RGB", (70, 45))
    assert np.abs(np.asarray(colourise(PHOTO)) @ LUMA - PHOTO @ LUMA).max() <= 1.5
    clear = np.concatenate([PHOTO, np.full((45, 70, 1), 90, np.uint8)], -1)
    assert (colourise(clear)[..., 3] == 90).all()
    deep = RNG.integers(0, 65536, (16, 16), np.uint16)
    assert np.abs(colourise(deep) @ LUMA - deep).max() <= 2


@pytest.mark.parametrize(
    "boxes",
    [[(10, 20, 30, 44)], [(0, 9, 0, 9), (30, 45, 60, 70)], [(5, 40, 3, 66)]],
    ids=["one", "two in corners", "large"],
)
def test_holes_are_filled_and_all_other_pixels_stay(inpaint, boxes):
    hole = hole_of(*boxes)
    made = inpaint(PHOTO, mask=hole)
    np.testing.assert_array_equal(made[hole == 0], PHOTO[hole == 0])
    assert (made[hole > 0] != PHOTO[hole > 0]).mean() > 0.5
    hidden = np.where(hole[..., None] > 0, 255 - PHOTO, PHOTO)
    np.testing.assert_array_equal(inpaint(hidden, mask=hole), made)  # what is hidden stays hidden
    np.testing.assert_array_equal(inpaint(PHOTO, mask=Image.fromarray(hole)), made)


def test_a_mask_may_be_of_any_kind_and_clear_white_is_no_hole(inpaint):
    hole = hole_of((10, 20, 30, 44))
    made = inpaint(PHOTO, mask=hole)
    painted = np.full((45, 70, 4), 255, np.uint8)
    painted[..., 3] = hole
    deep = Image.fromarray(hole.astype(np.uint16) * 257)
    for mask in (hole > 0, hole / 255, painted, Image.fromarray(painted), deep):
        np.testing.assert_array_equal(inpaint(PHOTO, mask=mask), made)


def test_a_hole_far_away_changes_nothing_here(inpaint):
    wide = RNG.integers(0, 256, (60, 400, 3), np.uint8)
    one, two = (
        hole_of((20, 30, 20, 30), size=(60, 400)),
        hole_of((20, 30, 350, 370), size=(60, 400)),
    )
    both = inpaint(wide, mask=one | two)
    np.testing.assert_array_equal(both[:, :200], inpaint(wide, mask=one)[:, :200])


@pytest.fixture
def seen(inpaint, monkeypatch):
    """What the network is shown; what it makes is grey."""
    found = []

    def canvas(inputs, *_):
        found.append(inputs)
        return np.zeros((*inputs.shape[:2], 3), np.float32)

    monkeypatch.setattr(inpaint.engine, "canvas", canvas)
    return found


def test_what_the_network_sees_of_a_thick_hole_is_reduced(inpaint, seen):
    photo = RNG.integers(0, 256, (400, 500, 3), np.uint8)
    hole = hole_of((100, 292, 150, 342), size=(400, 500))
    made = inpaint(photo, mask=hole)
    assert (made[205:215, 250:260] == 128).all()
    np.testing.assert_array_equal(made[hole == 0], photo[hole == 0])
    (found,) = seen
    assert found.dtype == np.float32
    mask = found[..., 3] > 0
    assert mask.any(1).sum() in range(holes.LARGEST_HOLE, holes.LARGEST_HOLE + 3)
    assert max(found.shape) <= 3 * holes.LARGEST_HOLE + 2
    assert not found[mask][:, :3].any()


def test_a_long_thin_hole_is_seen_as_it_is_with_as_much_around_as_it_needs(inpaint, seen):
    size = (700, 700)
    hole = hole_of((50, 650, 300, 306), size=size)
    inpaint(RNG.integers(0, 256, (*size, 3), np.uint8), mask=hole)
    (found,) = seen
    assert found.shape == (600 + 2 * holes.CONTEXT, 6 + 2 * holes.CONTEXT, 4)
    assert (found[..., 3] > 0).sum() == 600 * 6


def test_a_line_across_a_large_photograph_is_seen_and_not_all_of_it_at_once(inpaint, seen):
    size = (2000, 3000)
    hole = np.zeros(size, np.uint8)
    columns = np.arange(3000)
    hole[columns * 2 // 3, columns] = 255
    inpaint(RNG.integers(0, 256, (*size, 3), np.uint8), mask=hole)
    (found,) = seen
    height, width = found.shape[:2]
    assert height * width <= 1.01 * holes.LARGEST_PLACE**2
    assert (found[..., 3] > 0).any(0).all()  # without a gap


@pytest.mark.parametrize("margin", [(8, 0, 0, 0), (3, 4, 5, 6), (0, 60, 0, 0)])
def test_margins_are_added_and_the_inside_stays(inpaint, margin):
    made = inpaint(PHOTO, margin=margin)
    top, right, bottom, left = margin
    assert made.shape == (45 + top + bottom, 70 + left + right, 3)
    np.testing.assert_array_equal(made[top : top + 45, left : left + 70], PHOTO)
    assert len(np.unique(made.reshape(-1, 3), axis=0)) > 2000  # not one colour


def test_known_pixels_stay_whatever_the_network_sees_of_them():
    """Here it knows no colours, and some of the pixels are clear."""
    config = tiny_config()
    config.task.kind, config.data.lr_size = "inpaint", config.data.hr_size
    config.model.predict_residual = False
    grey = Editor(random_checkpoint(config, "inpaint"))
    clear = np.where(np.arange(70)[None, :, None] < 9, 0, 255) * np.ones((45, 1, 1))
    image, hole = np.concatenate([PHOTO, clear.astype(np.uint8)], -1), hole_of((10, 20, 30, 44))
    made = grey(image, mask=hole)
    np.testing.assert_array_equal(made[hole == 0], image[hole == 0])
    assert np.ptp(made[hole > 0][:, :3].astype(int), axis=-1).max() == 0


def test_what_is_filled_is_to_be_seen_and_what_was_hidden_is_not(inpaint):
    hole = hole_of((10, 20, 30, 44))
    clear = np.concatenate([PHOTO, 255 - hole[..., None]], -1)  # the hole was erased before
    clear[20:24, 30:44, 3] = 0  # and a little more
    made = inpaint(clear, mask=hole)
    assert (made[hole > 0][:, 3] == 255).all()
    np.testing.assert_array_equal(made[hole == 0], clear[hole == 0])
    hidden = np.where(clear[..., 3:] == 0, 255 - clear[..., :3], clear[..., :3])
    hidden = np.concatenate([hidden, clear[..., 3:]], -1)
    np.testing.assert_array_equal(inpaint(hidden, mask=hole)[hole > 0], made[hole > 0])


def test_what_is_too_large_is_priced_without_making_it(inpaint):
    cost = inpaint.edit(None, (50_000, 50_000, 50_000, 50_000)).cost(45, 70)
    assert (cost.height, cost.width) == (100_045, 100_070)
    assert cost.bytes > 10**12


def test_a_profile_of_grey_does_not_stay_with_colours(colourise):
    grey = Image.fromarray(PHOTO).convert("L")
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[16:20] = b"GRAY"
    grey.info["icc_profile"] = bytes(profile)
    assert "icc_profile" not in colourise(grey).info


def test_grey_stays_grey(inpaint):
    made = inpaint(PHOTO[..., 0], mask=hole_of((10, 20, 30, 44)))
    assert made.shape == (45, 70)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "inpaint needs a mask, white where the image is to be filled, or a margin"),
        ({"mask": hole_of(size=(45, 69))}, "the mask is 69×45, and the image 70×45"),
        ({"mask": hole_of()}, "the mask has no hole"),
        ({"mask": hole_of() + np.uint8(255)}, "the mask is all hole"),
        ({"margin": (1, 2)}, "must be four numbers of pixels, above, right, below, left"),
        ({"margin": (0, 0, 0, 0)}, "must be four numbers"),
        ({"mask": "a.png"}, "the mask is a str"),
    ],
)
def test_what_cannot_be_filled_is_one_sentence(inpaint, options, sentence):
    with pytest.raises(UserError, match=sentence):
        inpaint(PHOTO, **options)


def test_networks_for_something_else_are_refused_by_name(colourise):
    with pytest.raises(UserError, match="a network for colourise, and enlarges nothing: use sr3 e"):
        Upscaler(colourise.checkpoint)
    with pytest.raises(UserError, match="tiny is a network for super-resolution; to edit takes"):
        Editor(tiny_checkpoint())
    with pytest.raises(UserError, match="mask and margin are for a network of inpaint"):
        colourise(PHOTO, margin=(1, 1, 1, 1))


def restorer(**task):
    config = tiny_config(channels=3)
    config.task.kind, config.data.lr_size = "blind", config.data.hr_size
    config.task.update({"tell_blur": True, "tell_noise": True, "tell_jpeg": True} | task)
    config.task.update({"blur": 2.0, "noise": 20.0, "jpeg": 60.0})
    return random_checkpoint(config, "restore", 0.2)  # strong enough to listen


@pytest.fixture(scope="module")
def restore():
    return Editor(restorer())


@pytest.mark.parametrize("size", [(16, 16), (45, 70)])
def test_flaws_are_removed_at_the_image_s_own_size(restore, size):
    photo = RNG.integers(0, 256, (*size, 3), np.uint8)
    made = restore(photo)
    assert made.shape == photo.shape
    assert (made != photo).mean() > 0.5
    assert (made != restore(photo, noise=20.0)).any()  # it listens to what it is told
    assert restore(photo[..., 0]).shape == size


@pytest.mark.parametrize(
    ("task", "told"),
    [
        ("restore", {}),
        ("deblur", {"noise": 0.0, "jpeg": 0.0}),
        ("denoise", {"blur": 0.0, "jpeg": 0.0}),
        ("restore_jpeg", {"blur": 0.0, "noise": 0.0}),
    ],
)
def test_to_remove_one_flaw_is_to_say_that_the_others_are_absent(task, told):
    assert editor.told(restorer(), task, {}) == told
    deaf = restorer(tell_blur=False, tell_noise=False, tell_jpeg=False)
    assert editor.told(deaf, task, {}) == {}
    for name in told:
        with pytest.raises(UserError, match=f"--{name}=3 does not go with --task={task}"):
            editor.told(restorer(), task, {name: 3.0})


def test_a_network_that_has_not_learned_a_flaw_does_not_pretend_to_remove_it():
    config = tiny_config(channels=3)
    config.task.kind, config.data.lr_size = "blind", config.data.hr_size
    config.task.noise = 20.0
    config.task.blur = config.task.jpeg = 0.0
    denoise = random_checkpoint(config, "denoise")
    assert editor.told(denoise, "denoise", {}) == {}  # it knows of no other flaw
    for task in ("deblur", "restore_jpeg"):
        with pytest.raises(UserError, match=r"denoise has not learned to take off .* alone, as"):
            editor.told(denoise, task, {})
    assert editor.told(denoise, "restore", {}) == {}


def test_a_network_for_another_task_is_refused_by_both_names(colourise):
    sentence = "colourise is a network for colourise, and --task=deblur takes one for restore"
    with pytest.raises(UserError, match=sentence):
        editor.told(colourise.checkpoint, "deblur", {})


def test_what_an_edit_costs_is_what_is_then_computed(colourise, inpaint, restore):
    hole = hole_of((10, 20, 30, 44), (30, 45, 0, 9)) > 0
    edits = [
        colourise.edit(),
        restore.edit(),
        inpaint.edit(hole),
        inpaint.edit(None, (3, 4, 5, 6)),
    ]
    for edit in edits:
        done = []
        picture = pixels.from_image(PHOTO)
        made = edit.picture(picture, "a", Sampling(steps=2), done.append)
        cost = edit.cost(45, 70, Sampling(steps=2))
        assert (cost.height, cost.width) == made.colour.shape[:2]
        assert sum(done) == cost.tiles * cost.evaluations
        assert cost.bytes >= 4 * 6 * cost.height * cost.width


def test_an_edit_leaves_the_size_alone(restore, inpaint):
    for some, mask in ((restore, None), (inpaint, hole_of((1, 9, 1, 9)))):
        with pytest.raises(UserError, match="an edit leaves an image's size as it is"):
            some(PHOTO, mask=mask, scale=2)
