"""HR → LR → conditioning: what Pillow and SciPy compute in float, rounded as a file would be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from PIL import Image
from skimage import data as photographs

import sr3_jax.config
from sr3_jax.data import degradations
from sr3_jax.data.pipeline import load_evaluation
from sr3_jax.data.sources import OrlFaces

LEVEL = 2 / 255  # one 8-bit level in the units of [-1, 1]
PHOTOS = {"astronaut": photographs.astronaut()[:192, 100:244], "coffee": photographs.coffee()[100:196, 200:440]}
blur = jax.jit(degradations.gaussian_blur)


def as_floats(pixels):
    return degradations.to_float(jnp.asarray(pixels))


def pillow_resize(images, height, width):
    """Pillow in float mode, channel by channel: the reference."""

    def one(plane):
        resized = Image.fromarray(plane).resize((width, height), Image.Resampling.BICUBIC)
        assert resized.mode == "F"
        return np.asarray(resized)

    planes = np.moveaxis(np.asarray(images), -1, 1)
    return np.moveaxis(np.array([[one(plane) for plane in image] for image in planes]), 1, -1)


@pytest.mark.parametrize("name", PHOTOS)
@pytest.mark.parametrize("factor", [1 / 4, 1 / 8, 1 / 1.5, 4, 1])
def test_resize_is_that_of_pillow_in_float(name, factor):
    photo = PHOTOS[name] if factor <= 1 else PHOTOS[name][:64, 40:88]
    images = as_floats(photo[None])
    height, width = (round(size * factor) for size in photo.shape[:2])
    ours = degradations.resize(images, height, width)
    assert ours.shape == (1, height, width, 3)
    np.testing.assert_allclose(ours, pillow_resize(images, height, width), atol=1e-3 * LEVEL)


def test_resize_can_change_the_aspect_by_any_ratio():
    images = as_floats(PHOTOS["coffee"][None])  # at ratios like 96:61 float32 costs a little more
    np.testing.assert_allclose(degradations.resize(images, 61, 400), pillow_resize(images, 61, 400), atol=2e-3 * LEVEL)


@pytest.fixture(scope="module")
def faces():
    """The 100 test faces as (100, 64, 64, 1) uint8."""
    config = sr3_jax.config.base()
    config.data.hr_size, config.data.lr_size, config.data.resample, config.model.image_channels = 64, 16, "bicubic", 1
    return jnp.asarray(load_evaluation(OrlFaces(range(31, 41)), config).images)


def mean_psnr(images, references):
    errors = np.square(np.asarray(images, np.float64) - np.asarray(references, np.float64)).mean((1, 2, 3))
    return np.mean(10 * np.log10(255**2 / errors))


def test_bicubic_of_the_orl_faces_has_its_known_psnr_and_consistency(faces):
    lr = degradations.degrade(degradations.to_float(faces), 16)
    enlarged = degradations.to_uint8(degradations.upsample(lr, 64))
    again = degradations.resize(degradations.to_float(enlarged), 16, 16)
    assert mean_psnr(enlarged, faces) == pytest.approx(24.61, abs=0.01)
    assert mean_psnr((again + 1) * 127.5, (lr + 1) * 127.5) == pytest.approx(36.2, abs=0.1)


def test_going_to_float_and_back_is_the_identity_for_every_level():
    levels = jnp.arange(256, dtype=jnp.uint8).reshape(1, 16, 16, 1)
    floats = degradations.to_float(levels)
    assert (floats.min(), floats.max()) == (-1, 1)
    np.testing.assert_array_equal(degradations.to_uint8(floats), levels)
    np.testing.assert_array_equal(degradations.quantize(floats), floats)


def test_floats_are_rounded_to_the_nearest_level_and_clipped():
    levels = np.linspace(0, 255, 10_000).reshape(1, 100, 100, 1)
    rounded = np.asarray(degradations.to_uint8(jnp.asarray(levels / 127.5 - 1, jnp.float32)), np.float64)
    assert np.abs(rounded - levels).max() <= 0.5 + 1e-4
    assert abs((rounded - levels).mean()) < 1e-3  # truncation would darken by half a level
    outside = jnp.array([-9.0, -1.01, 1.01, 9.0]).reshape(1, 2, 2, 1)
    np.testing.assert_array_equal(degradations.to_uint8(outside).ravel(), [0, 0, 255, 255])


def test_the_lr_image_has_8_bits_unless_asked_otherwise(faces):
    hr = degradations.to_float(faces)
    exact, rounded = degradations.degrade(hr, 16, quantize_lr=False), degradations.degrade(hr, 16)
    levels = (np.asarray(rounded, np.float64) + 1) * 127.5
    np.testing.assert_allclose(levels, levels.round(), atol=1e-4)
    np.testing.assert_allclose(rounded, exact, atol=0.501 * LEVEL)
    assert (exact != rounded).mean() > 0.9
    checkers = jnp.where(jnp.indices((64, 64)).sum(0)[None, ..., None] // 8 % 2, 1.0, -1.0)
    assert jnp.abs(degradations.degrade(checkers, 48, quantize_lr=False)).max() <= 1  # bicubic overshoots
    assert jnp.abs(degradations.resize(checkers, 48, 48)).max() > 1.01


@pytest.mark.parametrize("sigma", [1.0, 1.3, 2.0])
def test_blur_is_that_of_scipy(sigma):
    images = as_floats(np.stack([PHOTOS["coffee"][:40, :60], PHOTOS["astronaut"][:40, :60], PHOTOS["coffee"][40:80, 100:160]]))
    ours = blur(images, jnp.full(3, sigma))
    for image, expected in zip(ours, np.asarray(images, np.float64), strict=True):
        theirs = scipy.ndimage.gaussian_filter(expected, (sigma, sigma, 0), mode="nearest", truncate=8)
        np.testing.assert_allclose(image, theirs, atol=1e-4)


def test_a_blur_of_zero_changes_nothing_and_each_image_has_its_own():
    images = as_floats(np.stack([PHOTOS["coffee"][40:80, 100:160]] * 3))
    blurred = blur(images, jnp.array([0.0, 1.0, 0.0]))
    np.testing.assert_array_equal(blurred[0], images[0])
    np.testing.assert_array_equal(blurred[2], images[2])
    np.testing.assert_allclose(blurred[1], blur(images, jnp.ones(3))[0], atol=1e-6)
    assert jnp.abs(blurred[1] - images[1]).max() > 0.1


def test_blur_is_an_augmentation_of_about_half_the_images_of_the_strength_that_is_told(faces):
    lr = degradations.degrade(degradations.to_float(jnp.tile(faces, (4, 1, 1, 1))), 16)
    augment = jax.jit(degradations.augment_blur, static_argnums=2)
    blurred, sigma = augment(lr, jax.random.key(0), 2.0)
    untouched = (blurred == lr).all((1, 2, 3))
    assert 0.4 < untouched.mean() < 0.6
    assert untouched[sigma == 0].all()
    assert sigma[untouched].max() < 0.3  # so little is lost in rounding
    np.testing.assert_allclose(blurred, degradations.gaussian_blur(lr, sigma), atol=1e-6)
    assert 1.8 < sigma.max() <= 2
    again, _ = augment(lr, jax.random.key(1), 2.0)
    assert 0.3 < ((again == lr).all((1, 2, 3)) != untouched).mean() < 0.7
    strength = jnp.abs(blurred - lr).mean((1, 2, 3))[~untouched]
    assert strength.min() < 0.1 * strength.max()  # sigma starts at 0
    same, none = degradations.augment_blur(lr, jax.random.key(0), 0.0)
    np.testing.assert_array_equal(same, lr)
    assert not none.any()


def test_noise_is_an_augmentation_of_about_half_the_images_of_the_strength_that_is_told(faces):
    lr = degradations.degrade(degradations.to_float(jnp.tile(faces, (4, 1, 1, 1))), 16)
    noisy, sigma = jax.jit(degradations.augment_noise, static_argnums=2)(lr, jax.random.key(0), 20.0)
    assert 0.4 < (sigma == 0).mean() < 0.6
    np.testing.assert_array_equal(noisy[sigma == 0], lr[sigma == 0])
    told = sigma[sigma > 0]
    assert 8 < told.mean() < 12
    assert told.min() < 1
    assert 19 < told.max() <= 20
    deviation = (noisy - lr).std((1, 2, 3))[sigma > 0] * 127.5
    np.testing.assert_allclose(deviation, told, rtol=0.25)  # of 256 pixels
    assert abs((deviation / told).mean() - 1) < 0.02


def test_under_jit_nothing_changes(faces):
    hr = degradations.to_float(faces)
    compiled = jax.jit(degradations.degrade, static_argnums=1)(hr, 16)
    eager = degradations.degrade(hr, 16)
    levels = [np.asarray(degradations.to_uint8(lr), int) for lr in (compiled, eager)]
    assert np.abs(levels[0] - levels[1]).max() <= 1
    assert (levels[0] == levels[1]).mean() > 0.999  # but for ties
    conditions = [jax.jit(degradations.upsample, static_argnums=1)(eager, 64), degradations.upsample(eager, 64)]
    np.testing.assert_allclose(*conditions, atol=1e-5)
