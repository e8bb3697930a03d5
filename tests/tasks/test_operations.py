"""The operations of tasks: what Pillow and SciPy compute in float, rounded as a file would be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from PIL import Image
from skimage import data as photographs

import sr3_jax.config
from sr3_jax.data.faces import OrlFaces
from sr3_jax.data.pipeline import load_evaluation
from sr3_jax.tasks import operations

LEVEL = 2 / 255  # one 8-bit level in the units of [-1, 1]
PHOTOS = {
    "astronaut": photographs.astronaut()[:192, 100:244],
    "coffee": photographs.coffee()[100:196, 200:440],
}
blur = jax.jit(operations.gaussian_blur)


def as_floats(pixels):
    return operations.to_float(jnp.asarray(pixels))


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
    ours = operations.resize(images, height, width)
    assert ours.shape == (1, height, width, 3)
    np.testing.assert_allclose(ours, pillow_resize(images, height, width), atol=1e-3 * LEVEL)


def test_resize_can_change_the_aspect_by_any_ratio():
    images = as_floats(PHOTOS["coffee"][None])  # at ratios like 96:61 float32 costs a little more
    np.testing.assert_allclose(
        operations.resize(images, 61, 400), pillow_resize(images, 61, 400), atol=2e-3 * LEVEL
    )


@pytest.fixture(scope="module")
def faces():
    """The 100 test faces as (100, 64, 64, 1) uint8."""
    config = sr3_jax.config.base()
    config.data.hr_size, config.data.lr_size, config.data.resample, config.model.image_channels = (
        64,
        16,
        "bicubic",
        1,
    )
    return jnp.asarray(load_evaluation(OrlFaces(range(31, 41)), config).images)


def mean_psnr(images, references):
    errors = np.square(np.asarray(images, np.float64) - np.asarray(references, np.float64)).mean(
        (1, 2, 3)
    )
    return np.mean(10 * np.log10(255**2 / errors))


def test_bicubic_of_the_orl_faces_has_its_known_psnr_and_consistency(faces):
    lr = operations.quantize(operations.resize(operations.to_float(faces), 16, 16))
    enlarged = operations.to_uint8(operations.resize(lr, 64, 64))
    again = operations.resize(operations.to_float(enlarged), 16, 16)
    assert mean_psnr(enlarged, faces) == pytest.approx(24.61, abs=0.01)
    assert mean_psnr((again + 1) * 127.5, (lr + 1) * 127.5) == pytest.approx(36.2, abs=0.1)


def test_going_to_float_and_back_is_the_identity_for_every_level():
    levels = jnp.arange(256, dtype=jnp.uint8).reshape(1, 16, 16, 1)
    floats = operations.to_float(levels)
    assert (floats.min(), floats.max()) == (-1, 1)
    np.testing.assert_array_equal(operations.to_uint8(floats), levels)
    np.testing.assert_array_equal(operations.quantize(floats), floats)


def test_floats_are_rounded_to_the_nearest_level_and_clipped():
    levels = np.linspace(0, 255, 10_000).reshape(1, 100, 100, 1)
    rounded = np.asarray(
        operations.to_uint8(jnp.asarray(levels / 127.5 - 1, jnp.float32)), np.float64
    )
    assert np.abs(rounded - levels).max() <= 0.5 + 1e-4
    assert abs((rounded - levels).mean()) < 1e-3  # truncation would darken by half a level
    outside = jnp.array([-9.0, -1.01, 1.01, 9.0]).reshape(1, 2, 2, 1)
    np.testing.assert_array_equal(operations.to_uint8(outside).ravel(), [0, 0, 255, 255])


@pytest.mark.parametrize("sigma", [1.0, 1.3, 2.0])
def test_blur_is_that_of_scipy(sigma):
    images = as_floats(
        np.stack(
            [
                PHOTOS["coffee"][:40, :60],
                PHOTOS["astronaut"][:40, :60],
                PHOTOS["coffee"][40:80, 100:160],
            ]
        )
    )
    ours = blur(images, jnp.full(3, sigma))
    for image, expected in zip(ours, np.asarray(images, np.float64), strict=True):
        theirs = scipy.ndimage.gaussian_filter(
            expected, (sigma, sigma, 0), mode="nearest", truncate=8
        )
        np.testing.assert_allclose(image, theirs, atol=1e-4)


def test_a_blur_of_zero_changes_nothing_and_each_image_has_its_own():
    images = as_floats(np.stack([PHOTOS["coffee"][40:80, 100:160]] * 3))
    blurred = blur(images, jnp.array([0.0, 1.0, 0.0]))
    np.testing.assert_array_equal(blurred[0], images[0])
    np.testing.assert_array_equal(blurred[2], images[2])
    np.testing.assert_allclose(blurred[1], blur(images, jnp.ones(3))[0], atol=1e-6)
    assert jnp.abs(blurred[1] - images[1]).max() > 0.1


def test_under_jit_nothing_changes(faces):
    hr = operations.to_float(faces)
    resize = jax.jit(operations.resize, static_argnums=(1, 2))
    compiled, eager = (
        operations.quantize(resize(hr, 16, 16)),
        operations.quantize(operations.resize(hr, 16, 16)),
    )
    levels = [np.asarray(operations.to_uint8(lr), int) for lr in (compiled, eager)]
    assert np.abs(levels[0] - levels[1]).max() <= 1
    assert (levels[0] == levels[1]).mean() > 0.999  # but for ties
    conditions = [resize(eager, 64, 64), operations.resize(eager, 64, 64)]
    np.testing.assert_allclose(*conditions, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(4, 6), (31, 50), (3, 3)])
def test_resizing_on_the_host_is_the_same(height, width):
    image = np.random.default_rng(0).uniform(-1, 1, (12, 20, 3)).astype(np.float32)
    wanted = operations.resize(jnp.asarray(image[None]), height, width)[0]
    np.testing.assert_allclose(operations.resize_canvas(image, height, width), wanted, atol=2e-5)
