"""A picture depends on its pixels, its id, the seed and the sample number, and on nothing else."""

import re

import numpy as np
import pytest
from PIL import Image
from skimage import data as photographs

from sr3_jax.errors import UserError
from sr3_jax.inference.upscaler import Upscaler

RNG = np.random.default_rng(0)
LR = RNG.integers(0, 256, (6, 8, 8, 1), np.uint8)
IDS = [5, 0, 3, 2**31 - 1, 8, 13]
PHOTOGRAPH = np.asarray(Image.fromarray(photographs.astronaut()[0:200, 120:320]).resize((8, 8), Image.Resampling.BOX))


def test_an_image_is_the_same_alone_in_any_batch_in_any_place_and_beside_any_padding(grey):
    together = grey.batch(LR, IDS)  # a full batch of four, and two with two of padding
    assert together.shape == (6, 16, 16, 1)
    assert together.dtype == np.float32
    for i in (1, 5):
        np.testing.assert_allclose(grey.batch(LR[i : i + 1], IDS[i : i + 1])[0], together[i], atol=1e-5)
    order = np.array([4, 2, 5, 0, 3, 1])
    np.testing.assert_allclose(grey.batch(LR[order], [IDS[i] for i in order]), together[order], atol=1e-5)


def test_the_devices_share_a_batch_say_nothing_to_each_other_and_need_no_more_memory_for_more_steps(grey):
    assert grey.mesh.size == grey.batch_size == 4
    arguments = (grey.params, LR[:4], np.array(IDS[:4], np.int32), 0, 0)
    few, many = (grey._compile(steps).lower(*arguments).compile() for steps in (2, 50))
    text = few.as_text()
    assert "u8[1,8,8,1]" in text  # one image on each device
    assert not re.search(r"all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter", text)
    temporary = [program.memory_analysis().temp_size_in_bytes for program in (few, many)]
    assert temporary[1] < temporary[0] + 10_000


@pytest.mark.parametrize(("batch_size", "rounded", "devices"), [(1, 1, 1), (3, 3, 3), (9, 16, 8), (16, 16, 8)])
def test_a_batch_is_rounded_up_to_the_devices_and_gives_the_same_pictures(grey, batch_size, rounded, devices):
    other = Upscaler(grey.checkpoint, batch_size=batch_size)
    assert (other.batch_size, other.mesh.size) == (rounded, devices)
    if batch_size in (3, 9):
        np.testing.assert_allclose(other.batch(LR, IDS), grey.batch(LR, IDS), atol=1e-5)


def test_nothing_to_do_gives_nothing(grey):
    assert grey.batch(LR[:0], []).shape == (0, 16, 16, 1)


def test_the_same_arguments_give_the_same_bits(grey):
    np.testing.assert_array_equal(grey.batch(LR, IDS, seed=3, sample=1), grey.batch(LR, IDS, seed=3, sample=1))


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
    np.testing.assert_array_equal(regression.batch(LR[:1], [1], seed=0), regression.batch(LR[:1], [2], seed=9, sample=4))


@pytest.mark.parametrize("steps", [0, -1])
def test_steps_below_one_are_refused(grey, steps):
    with pytest.raises(UserError, match=f"steps = {steps} must be at least 1"):
        grey.batch(LR, IDS, steps=steps)


def test_an_image_is_a_batch_of_one_under_the_id_of_its_name(grey):
    first = grey.image(LR[0], "a.png")
    assert (first.shape, first.dtype) == ((16, 16, 1), np.uint8)
    np.testing.assert_array_equal(grey.image(LR[0], "a.png"), first)
    for change in ({"name": "b.png"}, {"seed": 1}, {"sample": 1}):
        assert (grey.image(LR[0], **({"name": "a.png"} | change)) != first).any(), change


@pytest.mark.parametrize(("width", "height"), [(8, 9), (16, 16), (1, 1)])
def test_another_size_is_refused_naming_the_image_its_size_and_the_supported_one(grey, width, height):
    with pytest.raises(UserError, match=rf"face\.png is {width}×{height}; tiny takes images of 8×8 only"):
        grey.image(np.zeros((height, width, 1), np.uint8), "face.png")


def test_a_one_channel_network_keeps_grey_in_colour_channels_grey(regression):
    in_colour = regression.image(LR[0].repeat(3, axis=-1), "a")
    np.testing.assert_array_equal(in_colour, regression.image(LR[0], "a").repeat(3, axis=-1))


def test_a_one_channel_network_upscales_luma_and_keeps_the_chroma_of_bicubic(regression):
    out = regression.image(PHOTOGRAPH, "a").astype(float)
    inside = ((out > 0) & (out < 255)).all(axis=-1)  # not clipped
    assert inside.mean() > 0.5
    luma = np.asarray(Image.fromarray(PHOTOGRAPH).convert("L"))[..., None]
    weights = np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose((out @ weights)[inside], regression.image(luma, "a")[..., 0][inside].astype(float), atol=1.5)
    for band in (0, 2):
        chroma = (PHOTOGRAPH[..., band] - PHOTOGRAPH @ weights).astype(np.float32)
        wanted = np.asarray(Image.fromarray(chroma).resize((16, 16), Image.Resampling.BICUBIC))
        np.testing.assert_allclose((out[..., band] - out @ weights)[inside], wanted[inside], atol=1.5)


def test_a_colour_network_takes_colour_and_grey(colour):
    assert colour.image(PHOTOGRAPH, "a").shape == (16, 16, 3)
    grey = colour.image(LR[0], "a")
    np.testing.assert_array_equal(grey, colour.image(LR[0].repeat(3, axis=-1), "a"))
