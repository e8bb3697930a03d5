"""Colour for grey images, and what is missing: what is shown, what is learned, what is kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from sr3_jax.config import validate
from sr3_jax.diffusion import losses
from sr3_jax.errors import ConfigError
from sr3_jax.method import Method
from sr3_jax.tasks import build_task, masks
from sr3_jax.tasks.editing import LUMA
from sr3_jax.tasks.operations import to_float
from tests.tiny import tiny_config

pytestmark = pytest.mark.fast

RNG = np.random.default_rng(0)
KEY = jax.random.key(3)
RGB = jnp.asarray(RNG.uniform(-1, 1, (5, 16, 16, 3)), jnp.float32)


def config_of(kind, lr_size=16, **fields):
    config = tiny_config(channels=3)
    config.task.kind, config.data.lr_size = kind, lr_size
    for name, value in fields.items():
        room, _, field = name.rpartition("__")
        (config[room] if room else config)[field] = value
    validate(config)
    return config


def test_the_grey_image_is_pillows():
    levels = RNG.integers(0, 256, (16, 16, 3), np.uint8)
    given = build_task(config_of("colourise")).corrupt(to_float(jnp.asarray(levels)[None]))
    found = np.rint((np.asarray(given.image[0, ..., 0]) + 1) * 127.5)
    assert np.abs(found - np.asarray(Image.fromarray(levels).convert("L"))).max() <= 1


def test_colour_never_changes_the_luma_and_keeps_its_hue():
    task = build_task(config_of("colourise"))
    given = np.asarray(task.corrupt(RGB).image)
    output = RNG.uniform(-1.5, 1.5, RGB.shape).astype(np.float32)
    for grey, made in zip(given, output, strict=True):
        result = task.compose(grey, made)
        assert np.abs(result).max() <= 1 + 1e-5
        np.testing.assert_allclose(result @ LUMA[:, None], grey, atol=1e-5)
        chroma, asked = result - grey, made - made @ LUMA[:, None]
        share = (chroma * asked).sum(-1) / (asked * asked).sum(-1)
        np.testing.assert_allclose(chroma, share[..., None] * asked, atol=1e-5)
        assert (share >= 0).all()
        assert (share <= 1 + 1e-5).all()
        assert (share > 0.999).any()  # a colour that exists stays as it is


def test_a_hole_hides_the_image_and_only_a_hole_is_changed():
    task = build_task(config_of("inpaint"))
    given = task.corrupt(RGB, KEY, train=True).image
    assert given.shape == (5, 16, 16, 4)
    hole = np.asarray(given[..., 3:]) > 0
    assert 0 < hole.mean() < 0.9
    assert not np.asarray(given[..., :3])[np.broadcast_to(hole, RGB.shape)].any()
    np.testing.assert_array_equal(task.weights(given), hole)
    output = np.zeros_like(RGB[0]) + 0.5
    result = task.compose(np.asarray(given[0]), output)
    np.testing.assert_array_equal(result, np.where(hole[0], 0.5, np.asarray(RGB[0])))
    other = task.corrupt(jnp.where(hole, -RGB, RGB), KEY, train=True).image
    np.testing.assert_array_equal(given, other)  # what is hidden has no influence


def test_the_network_is_shown_a_guess_in_the_hole_and_the_image_around_it():
    task = build_task(config_of("inpaint"))
    given = task.corrupt(RGB, KEY, train=True).image
    shown = np.asarray(task.condition(given))
    hole = np.asarray(given[..., 3:]) > 0
    np.testing.assert_array_equal(shown[..., 3:], given[..., 3:])
    known = np.broadcast_to(~hole, RGB.shape)
    np.testing.assert_array_equal(shown[..., :3][known], np.asarray(given)[..., :3][known])
    assert (shown[..., :3] != np.asarray(given)[..., :3])[hole[..., 0]].mean() > 0.9
    canvas = task.condition_canvas(np.asarray(given[0]))
    assert canvas.dtype == np.float32
    np.testing.assert_allclose(canvas, shown[0], atol=1e-5)


def test_held_out_images_have_their_hole_in_the_middle():
    hole = build_task(config_of("inpaint")).corrupt(RGB).image[..., 3] > 0
    expected = np.zeros((16, 16), bool)
    expected[4:12, 4:12] = True
    np.testing.assert_array_equal(hole, np.broadcast_to(expected, hole.shape))


@pytest.mark.parametrize("kind", masks.KINDS)
def test_holes_are_of_their_kind_and_neither_empty_nor_everything(kind):
    hole = np.asarray(masks.KINDS[kind](KEY, 300, 32, 48))[..., 0]
    assert set(np.unique(hole)) == {0, 1}
    share = hole.mean(axis=(1, 2))
    assert 0.02 < share.mean() < 0.5
    assert share.max() < 0.85
    if kind == "free_form":
        assert np.mean(share > 0.01) > 0.95  # a stroke may leave the image
        assert len(np.unique(hole.reshape(300, -1), axis=0)) == 300
        return
    inside = hole if kind == "box" else 1 - hole
    for mask in inside.astype(bool):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert mask.sum() == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)  # a rectangle
    if kind == "box":
        assert 7 <= inside.any(2).sum(1).min() <= inside.any(2).sum(1).max() <= 16
    else:
        sides = (
            hole[:, 0].all(1) & hole[:, -1].all(1) & hole[:, :, 0].all(1) & hole[:, :, -1].all(1)
        )
        assert 0.4 < sides.mean() < 0.6  # all around, or one side


def test_a_kind_of_hole_that_is_not_wanted_is_not_made():
    task = build_task(config_of("inpaint", task__holes=(0.0, 0.0, 1.0)))
    hole = np.asarray(task.corrupt(RGB, KEY).image[..., 3]) > 0
    edge = hole[:, 0].all(1) | hole[:, -1].all(1) | hole[:, :, 0].all(1) | hole[:, :, -1].all(1)
    assert edge.all()


@pytest.mark.parametrize("kind", ["colourise", "inpaint"])
@pytest.mark.parametrize("objective", ["sr3", "regression"])
def test_networks_are_trained_on_it_and_make_images_of_the_same_size(kind, objective):
    method = Method(config_of(kind, objective=objective))
    params = method.init(KEY)
    images = jnp.asarray(RNG.integers(0, 256, (2, 16, 16, 3), np.uint8))
    loss, gradient = jax.value_and_grad(lambda p: method.loss(p, images, KEY).mean())(params)
    assert np.isfinite(loss)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    given = method.task.corrupt(RGB[:2])
    made = method.super_resolve(params, given, jax.random.split(KEY, 2))
    assert made.shape == (2, 16, 16, 3)


def test_what_is_known_is_held_whatever_the_network_says_of_it():
    for residual in (True, False):
        method = Method(config_of("inpaint", model__predict_residual=residual))
        given = method.task.corrupt(RGB, KEY, train=True).image
        condition = method.task.condition(given)
        params = jax.tree.map(lambda x: x + 0.3, method.init(jax.random.key(0)))
        y_0 = method.denoiser(params)(condition, RGB, jnp.full(5, 0.5))
        made = np.asarray(method.decode(y_0, condition))
        hole = np.asarray(given[..., 3]) > 0
        np.testing.assert_allclose(made[~hole], np.asarray(RGB)[~hole], atol=1e-6)
        assert np.abs(made[hole] - np.asarray(condition[..., :3])[hole]).max() > 0.01


def test_what_is_known_has_no_part_in_the_loss():
    """A regression that is wrong outside the hole alone has no loss."""
    task = build_task(config_of("inpaint"))
    given = task.corrupt(RGB, KEY).image
    weights = task.weights(given)
    wrong = RGB + 5 * (1 - weights)
    assert not losses.distance(wrong, RGB, "l2", weights).any()
    wrong = RGB + 5 * weights
    np.testing.assert_allclose(losses.distance(wrong, RGB, "l2", weights), 25, rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "fields", "sentence"),
    [
        ("colourise", {"lr_size": 8}, "input and result are of the same size"),
        ("colourise", {"model__image_channels": 1}, "needs model.image_channels = 3"),
        ("inpaint", {"task__noise": 3.0}, "task.noise is of LR images, and inpaint has none"),
        ("inpaint", {"task__holes": (0.0, 0.0, 0.0)}, "must be 3 numbers of 0 or more, not all 0"),
        ("super_resolution", {}, "or equal to it with something to take away: task.blur"),
    ],
)
def test_what_does_not_fit_is_one_sentence(kind, fields, sentence):
    with pytest.raises(ConfigError, match=sentence):
        config_of(kind, **fields)


def test_restoring_is_blind_super_resolution_of_scale_1():
    strengths = {"task__blur": 2.0, "task__noise": 20.0, "task__jpeg": 60.0}
    fields = strengths | {"task__tell_blur": True}
    method = Method(config_of("blind", **fields))
    given = method.task.corrupt(RGB, KEY, train=True)
    assert given.image.shape == RGB.shape
    assert set(given.signals) == {"blur", "noise", "jpeg"}
    assert not np.array_equal(given.image, RGB)
