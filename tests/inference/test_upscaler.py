"""A picture depends on its pixels, its id, the seed and the sample number, and on nothing else."""

import dataclasses
import doctest
import itertools
import re
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps
from skimage import data as photographs

from sr3_jax.data.source import image_id
from sr3_jax.errors import UserError
from sr3_jax.images import pixels
from sr3_jax.inference import upscaler
from sr3_jax.inference.engine import Engine
from sr3_jax.inference.upscaler import Upscaler, luma
from sr3_jax.method import sampling_steps
from sr3_jax.tasks.task import Given
from tests.tiny import random_checkpoint, tiny_checkpoint, tiny_config

RNG = np.random.default_rng(0)
LR = RNG.integers(0, 256, (6, 8, 8, 1), np.uint8)
IDS = [5, 0, 3, 2**31 - 1, 8, 13]
PHOTOGRAPH = np.asarray(
    Image.fromarray(photographs.astronaut()[0:200, 120:320]).resize((8, 8), Image.Resampling.BOX)
)


def test_an_image_is_the_same_alone_in_any_batch_in_any_place_and_beside_any_padding(grey):
    together = grey.batch(LR, IDS)  # a full batch of four, and two with two of padding
    assert together.shape == (6, 16, 16, 1)
    assert together.dtype == np.float32
    for i in (1, 5):
        np.testing.assert_allclose(
            grey.batch(LR[i : i + 1], IDS[i : i + 1])[0], together[i], atol=1e-5
        )
    order = np.array([4, 2, 5, 0, 3, 1])
    np.testing.assert_allclose(
        grey.batch(LR[order], [IDS[i] for i in order]), together[order], atol=1e-5
    )


def test_the_devices_share_a_batch_say_nothing_to_each_other_and_need_no_more_memory_for_more_steps(
    grey,
):
    engine = grey.engine
    assert engine.mesh.size == engine.batch_size == 4
    given, ids = Given(LR[:4].astype(np.float32)), np.array(IDS[:4], np.int32)
    arguments = (engine.params, given, ids, 0, 0, None, None)
    few, many = (
        engine._compile(sampling_steps(grey.checkpoint.config, n)).lower(*arguments).compile()
        for n in (2, 50)
    )
    text = few.as_text()
    assert "f32[1,8,8,1]" in text  # one image on each device
    assert not re.search(
        r"all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter", text
    )
    temporary = [program.memory_analysis().temp_size_in_bytes for program in (few, many)]
    assert temporary[1] < temporary[0] + 10_000


@pytest.mark.parametrize(
    ("batch_size", "rounded", "devices"), [(1, 1, 1), (3, 3, 3), (9, 16, 8), (16, 16, 8)]
)
def test_a_batch_is_rounded_up_to_the_devices_and_gives_the_same_pictures(
    grey, batch_size, rounded, devices
):
    other = Upscaler(grey.checkpoint, batch_size=batch_size)
    assert (other.engine.batch_size, other.engine.mesh.size) == (rounded, devices)
    if batch_size in (3, 9):
        np.testing.assert_allclose(other.batch(LR, IDS), grey.batch(LR, IDS), atol=1e-5)


def test_a_few_images_are_not_filled_up_to_a_whole_batch(grey):
    # Rounded up to three for each of the eight devices
    other = Engine(grey.checkpoint, batch_size=20)
    assert [other.padded(count) for count in (1, 8, 9, 16, 17, 24, 500)] == [
        8,
        8,
        16,
        16,
        24,
        24,
        24,
    ]
    by_default = Engine(grey.checkpoint)
    # On a CPU
    assert (by_default.batch_size, by_default.tiles_at_a_time) == (16, jax.local_device_count())
    assert other.tiles_at_a_time == 24


def test_nothing_to_do_gives_nothing(grey):
    assert grey.batch(LR[:0], []).shape == (0, 16, 16, 1)


def test_the_same_arguments_give_the_same_bits(grey):
    np.testing.assert_array_equal(
        grey.batch(LR, IDS, seed=3, sample=1), grey.batch(LR, IDS, seed=3, sample=1)
    )


def test_seed_sample_id_and_pixels_each_change_the_picture_and_stay_in_range(grey):
    one = {"lr": LR[:1], "ids": [5]}
    before = grey.batch(**one)
    assert np.abs(before).max() <= 1
    for change in ({"seed": 1}, {"sample": 1}, {"ids": [6]}, {"lr": LR[1:2]}, {"steps": 3}):
        assert np.abs(grey.batch(**(one | change)) - before).max() > 1e-2, change
    np.testing.assert_array_equal(grey.batch(**one, steps=2), before)  # sample.steps is two


def test_progress_counts_the_images_without_the_padding(grey):
    counts = []
    grey.batch(LR, IDS, on_batch=counts.append)
    assert counts == [4, 2]


def test_regression_knows_no_chance(regression):
    np.testing.assert_array_equal(
        regression.batch(LR[:1], [1], seed=0), regression.batch(LR[:1], [2], seed=9, sample=4)
    )


@pytest.mark.parametrize("steps", [0, -1])
def test_steps_below_one_are_refused(grey, steps):
    with pytest.raises(UserError, match=f"steps = {steps} must be at least 1"):
        grey.batch(LR, IDS, steps=steps)


def test_an_image_is_a_batch_of_one_under_the_id_of_its_name(grey):
    first = grey(LR[0], name="a.png")
    assert (first.shape, first.dtype) == ((16, 16, 1), np.uint8)
    np.testing.assert_array_equal(grey(LR[0], name="a.png"), first)
    batch = grey.batch(LR[:1], [image_id("a.png")])[0]
    np.testing.assert_allclose(first, (batch + 1) * 127.5, atol=0.51)
    for change in (
        {"name": "b.png"},
        {"seed": 1},
        {"sample": 1},
        {"steps": 3},
        {"sampler": "ddim"},
    ):
        assert (grey(LR[0], **({"name": "a.png"} | change)) != first).any(), change


def test_each_image_of_a_batch_is_what_it_would_be_by_itself(grey):
    together = grey(LR[:3], seed=2)
    assert together.shape == (3, 16, 16, 1)
    for i in range(3):
        np.testing.assert_array_equal(together[i], grey(LR[i], seed=2))


KINDS = {
    "uint8": lambda values: values,
    "grey without an axis": lambda values: values[..., 0],
    "uint16": lambda values: values.astype(np.uint16) * 257,
    "float32": lambda values: (values / 255).astype(np.float32),
    "float64": lambda values: values / 255,
    "a batch": lambda values: values[None],
    "JAX": lambda values: jnp.asarray(values),
    "JAX float": lambda values: jnp.asarray(values, jnp.float32) / 255,
    "Pillow": lambda values: Image.fromarray(values[..., 0]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_it_returns_the_kind_that_it_is_given(regression, kind):
    given, wanted = KINDS[kind](LR[0]), regression(LR[0]).astype(float)
    result = regression(given)
    assert type(result) is type(given) or isinstance(given, jax.Array | Image.Image)
    assert isinstance(result, jax.Array) == isinstance(given, jax.Array)
    if isinstance(given, Image.Image):
        assert (result.mode, result.size) == ("L", (16, 16))
        result = np.asarray(result)[..., None]
    else:
        assert result.dtype == given.dtype
        assert result.ndim == given.ndim
    full = {
        "f": 1,
        "u": np.iinfo(np.asarray(result).dtype).max if np.asarray(result).dtype.kind == "u" else 1,
    }
    scaled = (
        np.asarray(result, float).reshape(16, 16, 1) * 255 / full[np.asarray(result).dtype.kind]
    )
    np.testing.assert_allclose(scaled, wanted, atol=0.51)


REFUSED = {
    "text": ("a photo", "is a str; it can be a Pillow image"),
    "no axes": (np.zeros(3, np.uint8), r"has the shape \(3,\)"),
    "five channels": (np.zeros((8, 8, 5), np.uint8), r"has the shape \(8, 8, 5\).*4 \(RGBA\)"),
    "nothing": (np.zeros((0, 8, 1), np.uint8), "nothing to enlarge"),
    "an empty batch": (np.zeros((0, 8, 8, 1), np.uint8), "no images"),
    "integers": (np.zeros((8, 8), np.int32), "values of type int32"),
    "NaN": (np.full((8, 8), np.nan), "not finite"),
    "levels as floats": (
        np.full((8, 8), 200.0),
        r"values from 200 to 200; floats must lie in \[0, 1\]",
    ),
    "negative": (np.full((8, 8), -0.5), "floats must lie in"),
}


@pytest.mark.parametrize(("image", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_image_is_one_sentence(regression, image, message):
    with pytest.raises(UserError, match=message):
        regression(image)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"steps": 0}, "steps = 0"), ({"scale": 0.5}, "scale = 0.5"), ({"scale": 99}, "64")],
)
def test_options_out_of_range_are_one_sentence(grey, options, message):
    with pytest.raises(UserError, match=message):
        grey(LR[0], **options)


def test_a_one_channel_network_keeps_grey_in_colour_channels_grey(regression):
    in_colour = regression(LR[0].repeat(3, axis=-1))
    np.testing.assert_allclose(in_colour.astype(int), regression(LR[0]).repeat(3, axis=-1), atol=1)


def test_a_one_channel_network_upscales_luma_and_keeps_the_chroma_of_bicubic(regression):
    out = regression(PHOTOGRAPH).astype(float)
    inside = ((out > 0) & (out < 255)).all(axis=-1)  # not clipped
    assert inside.mean() > 0.5
    brightness = (
        np.asarray(PHOTOGRAPH, np.float32) / 255 @ np.array([0.299, 0.587, 0.114], np.float32)
    )
    weights = np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(
        (out @ weights)[inside], 255 * regression(brightness)[inside], atol=1.5
    )
    for band in (0, 2):
        chroma = (PHOTOGRAPH[..., band] - PHOTOGRAPH @ weights).astype(np.float32)
        wanted = np.asarray(Image.fromarray(chroma).resize((16, 16), Image.Resampling.BICUBIC))
        np.testing.assert_allclose(
            (out[..., band] - out @ weights)[inside], wanted[inside], atol=1.5
        )


def test_a_colour_network_takes_colour_and_grey_and_gives_grey_for_grey(colour):
    assert colour(PHOTOGRAPH).shape == (16, 16, 3)
    grey, in_colour = colour(LR[0]), colour(LR[0].repeat(3, axis=-1))
    assert grey.shape == (16, 16, 1)
    np.testing.assert_allclose(grey, luma(in_colour.astype(np.float32)), atol=1)


def test_alpha_is_enlarged_beside_the_colour(colour):
    alpha = np.zeros((8, 8, 1), np.uint8)
    alpha[:, 4:] = 255
    out = colour(np.concatenate([PHOTOGRAPH, alpha], axis=-1))
    assert out[:, :5, 3].max() < 10 < 245 < out[:, -5:, 3].min()
    opaque = np.concatenate([PHOTOGRAPH, np.full_like(alpha, 255)], axis=-1)
    np.testing.assert_array_equal(colour(opaque)[..., :3], colour(PHOTOGRAPH))


def test_what_stands_under_clear_pixels_is_not_drawn_into_the_picture(colour):
    alpha = np.zeros((8, 8, 1), np.uint8)
    alpha[:, 4:] = 255
    results = []
    for hidden in (0, 255, 77):
        given = np.where(alpha == 0, np.uint8(hidden), PHOTOGRAPH)
        picture = pixels.from_array(np.concatenate([given, alpha], axis=-1))
        filled = pixels.filled(picture)
        np.testing.assert_array_equal(filled.colour[:, 4:], picture.colour[:, 4:])
        # each clear pixel has the colour of the one nearest to it that is not clear
        np.testing.assert_array_equal(filled.colour[:, :4], picture.colour[:, [4] * 4])
        results.append(colour(np.concatenate([given, alpha], axis=-1)))
    for one in results[1:]:
        np.testing.assert_array_equal(one, results[0])


def test_grey_in_three_channels_stays_grey(colour):
    grey = PHOTOGRAPH[..., :1]
    three = grey.repeat(3, axis=-1)
    out = colour(three).astype(int)
    assert out.shape == (16, 16, 3)
    assert np.ptp(out, axis=-1).max() == 0
    np.testing.assert_array_equal(out[..., :1], colour(grey))
    three[0, 0, 0] ^= 64  # one coloured pixel makes it a colour picture
    assert np.ptp(colour(three).astype(int), axis=-1).max() > 0


def test_a_pillow_image_comes_back_upright_with_its_profile(colour, tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    given = Image.fromarray(PHOTOGRAPH[:6])
    given.save(tmp_path / "a.jpg", exif=exif, icc_profile=profile, dpi=(300, 300))
    large = colour(Image.open(tmp_path / "a.jpg"))
    assert large.size == (12, 16)
    large.save(tmp_path / "b.jpg")
    large.save(tmp_path / "b.png")
    for name in ("b.jpg", "b.png"):
        with Image.open(tmp_path / name) as file:
            assert ImageOps.exif_transpose(file).size == (12, 16)
            assert file.info["icc_profile"] == profile
    kept = Image.Exif()
    kept.load(large.info["exif"])
    assert dict(kept) == {0x010F: "Maker"}


def test_the_result_down_sampled_is_the_input_if_asked_for(grey):
    from sr3_jax.metrics.distortion import consistency_mse

    lr = np.rint(luma(PHOTOGRAPH.astype(np.float32))).astype(np.uint8)[None]

    def decibels(**options):
        return -10 * np.log10(consistency_mse(grey(lr, **options), lr)[0])

    assert decibels(match_input=True) > 50 > decibels()


def test_another_scale_takes_passes_and_a_resize(regression):
    twice = regression(LR[0])
    assert regression(LR[0], scale=3).shape == (24, 24, 1)
    assert regression(LR[0], scale=1.5).shape == (12, 12, 1)
    assert regression.passes(None) == regression.passes(2) == regression.passes(1.5) == 1
    assert (regression.passes(3), regression.passes(4), regression.passes(5)) == (2, 2, 3)
    down = np.asarray(
        Image.fromarray(twice[..., 0].astype(np.float32)).resize((12, 12), Image.Resampling.BICUBIC)
    )
    np.testing.assert_allclose(regression(LR[0], scale=1.5)[..., 0], down.clip(0, 255), atol=1.5)
    assert regression.scale_notes(2) == regression.scale_notes(None) == []
    assert [note.split()[0] for note in regression.scale_notes(3)] == ["enlarged", "made"]


def test_several_threads_get_what_one_would(grey):
    wanted = [grey(LR[i], seed=i) for i in range(4)]
    fresh = Upscaler(grey.checkpoint, batch_size=4)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: fresh(LR[i], seed=i), range(4)))
    np.testing.assert_array_equal(found, wanted)


def test_programs_are_kept(grey):
    fresh = Upscaler(grey.checkpoint, batch_size=1)

    def programs():
        return [kept for kept in fresh.engine._programs.values() if hasattr(kept, "_cache_size")]

    for image in (LR[0], LR[1], PHOTOGRAPH):
        fresh(image)
    assert len(programs()) == 1
    for size in (17, 30, 41):
        fresh(np.zeros((size, size + 1), np.uint8))
    assert len(programs()) == 3  # and the tiles' and their noise
    assert all(program._cache_size() == 1 for program in programs())


def test_the_example_in_the_docstring_runs():
    found = doctest.testmod(upscaler, extraglobs={"np": np})
    assert (found.failed, found.attempted) == (0, 3)


@pytest.fixture(scope="module")
def told() -> Upscaler:
    return Upscaler(tiny_checkpoint(channels=3, noise=10.0, blur=2.0), batch_size=1)


@pytest.mark.parametrize("flaw", [{"noise": 10.0}, {"blur": 2.0}], ids=["noise", "blur"])
@pytest.mark.parametrize("shape", [(8, 8, 3), (9, 20, 3)], ids=["its own size", "tiles"])
def test_a_network_that_knows_a_flaw_is_told_of_it(told, shape, flaw):
    image = RNG.integers(0, 256, shape, np.uint8)
    clean, flawed = told(image).astype(int), told(image, **flaw).astype(int)
    np.testing.assert_array_equal(told(image, **dict.fromkeys(flaw, 0.0)), clean)
    assert np.abs(flawed - clean).max() > 0
    # at random weights the two kinds of run are one another's check
    if shape[:2] == (8, 8):
        batch = told.batch(image[None], [image_id("")], **flaw)[0]
        np.testing.assert_allclose((batch + 1) * 127.5, flawed, atol=0.51)


def test_noise_and_blur_are_told_apart(told):
    image = RNG.integers(0, 256, (9, 20, 3), np.uint8)
    both, noise, blur = (
        told(image, **flaw) for flaw in ({"noise": 2.0, "blur": 2.0}, {"noise": 2.0}, {"blur": 2.0})
    )
    assert (noise != blur).any()
    assert (both != noise).any()
    assert (both != blur).any()


@pytest.mark.parametrize("flaw", [{"noise": 5.0}, {"blur": 1.0}], ids=["noise", "blur"])
def test_with_a_flaw_the_result_is_matched_with_the_input_only_when_asked(told, flaw):
    image = RNG.integers(0, 256, (8, 8, 3), np.uint8)
    config = told.checkpoint.config.copy_and_resolve_references()
    config.sample.match_input = True
    matching = Upscaler(dataclasses.replace(told.checkpoint, config=config), batch_size=1)
    np.testing.assert_array_equal(matching(image, **flaw), told(image, **flaw))
    np.testing.assert_array_equal(
        matching(image, match_input=True, **flaw), told(image, match_input=True, **flaw)
    )
    assert (matching(image) != told(image)).any()


@pytest.mark.parametrize(("flaw", "most"), [("noise", 10), ("blur", 2)])
@pytest.mark.parametrize("value", [-1.0, 10.1, float("nan")])
def test_a_flaw_that_the_network_was_not_trained_with_is_refused(told, colour, flaw, most, value):
    with pytest.raises(
        UserError, match=rf"{flaw} = \S+ must lie between 0 and {most}, which tiny was trained with"
    ):
        told(LR[0], **{flaw: value})
    with pytest.raises(
        UserError, match=rf"tiny was not trained with task\.{flaw}.* it cannot be told of {flaw}"
    ):
        colour.batch(np.repeat(LR[:1], 3, axis=-1), [0], **{flaw: value})


def test_a_blind_network_is_told_what_the_user_knows_and_can_do_without():
    config = tiny_config(channels=3, noise=10.0)
    config.task.update({"kind": "blind", "jpeg": 50.0})
    network = Upscaler(random_checkpoint(config, size=0.3))
    picture = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    made = [network(picture, **told) for told in ({}, {"noise": 0}, {"noise": 5}, {"jpeg": 30})]
    for one, other in itertools.combinations(made, 2):
        assert (one != other).any()
    np.testing.assert_array_equal(network(picture, noise=None), made[0])
    large = np.random.default_rng(0).integers(0, 256, (13, 21, 3), np.uint8)
    assert (network(large) != network(large, noise=0)).any()
    with pytest.raises(UserError, match=r"jpeg = 60 must lie between 0 and 50"):
        network(picture, jpeg=60)


def test_a_sample_does_not_depend_on_the_settings_of_the_process(grey):
    usual = grey(LR[0], seed=3)
    for name, value in (
        ("jax_enable_x64", True),
        ("jax_default_prng_impl", "rbg"),
        ("jax_threefry_partitionable", False),
    ):
        before = getattr(jax.config, name)
        jax.config.update(name, value)
        try:
            other = Upscaler(grey.checkpoint, batch_size=4)
            np.testing.assert_array_equal(other(LR[0], seed=3), usual)
        finally:
            jax.config.update(name, before)


def test_a_scale_costs_as_many_passes_as_it_needs_and_the_networks_own_one(regression):
    """Of a network that doubles."""
    wanted = {None: 1, 1: 1, 1.5: 1, 2: 1, 2.5: 2, 4: 2, 5: 3, 8: 3}
    assert {scale: regression.passes(scale) for scale in wanted} == wanted
