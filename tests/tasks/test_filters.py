"""Blurs and resizes with parameters for each image: what SciPy and Pillow compute in float."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image as PillowImage
from scipy import ndimage, special
from skimage import data

from sr3_jax.tasks import operations
from sr3_jax.tasks.filters import (
    METHODS,
    Shape,
    blur_kernels,
    convolve,
    resample,
    sinc_kernels,
    spread_of,
)

pytestmark = pytest.mark.fast
PICTURE = (data.astronaut()[:96, 200:296] / 127.5 - 1).astype(np.float32)
PILLOW = {
    "area": PillowImage.Resampling.BOX,
    "bilinear": PillowImage.Resampling.BILINEAR,
    "bicubic": PillowImage.Resampling.BICUBIC,
    "lanczos": PillowImage.Resampling.LANCZOS,
}


def shape(sigma=2.0, ratio=1.0, angle=0.0, beta=1.0, plateau=0.0):
    return Shape(*(jnp.asarray([value]) for value in (sigma, ratio, angle, beta, plateau)))


def test_an_isotropic_gaussian_blurs_as_the_separable_one():
    images = jnp.asarray(PICTURE[None])
    ours = convolve(images, blur_kernels(shape(sigma=1.3), 21))
    np.testing.assert_allclose(
        ours, operations.gaussian_blur(images, jnp.asarray([1.3])), atol=2e-4
    )


@pytest.mark.parametrize("angle", [0.0, 0.4, np.pi / 2, 2.5])
def test_a_kernel_has_the_covariance_of_its_sigma_ratio_and_angle(angle):
    kernel = np.asarray(blur_kernels(shape(3.0, 0.5, angle), 41))[0]
    x = np.arange(41) - 20.0
    covariance = np.array(
        [
            [(kernel * x**2).sum(), (kernel * x * x[:, None]).sum()],
            [(kernel * x * x[:, None]).sum(), (kernel * x[:, None] ** 2).sum()],
        ]
    )
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    np.testing.assert_allclose(covariance, turn @ np.diag([9.0, 2.25]) @ turn.T, atol=0.02)
    assert kernel.sum() == pytest.approx(1, abs=1e-6)


def test_the_spread_of_a_kernel_is_its_standard_deviation_in_pixels():
    spread = [
        spread_of(blur_kernels(shape(**fields), 29))[0]
        for fields in ({"sigma": 2.0}, {"sigma": 2.0, "ratio": 0.5, "angle": 0.7}, {"sigma": 8.0})
    ]
    np.testing.assert_allclose(spread[:2], [2.0, np.sqrt((4 + 1) / 2)], rtol=2e-3)
    # cut off at 14 pixels: that of the truncated normal distribution
    values = np.arange(-14, 15)
    weights = np.exp(-0.5 * (values / 8) ** 2)
    wanted = np.sqrt((weights * values**2).sum() / weights.sum())
    np.testing.assert_allclose(spread[2], wanted, rtol=1e-4)


def test_the_exponent_makes_a_kernel_flatter_and_plateau_is_its_formula():
    row = lambda kernel: np.asarray(kernel)[0, 10] / np.asarray(kernel)[0, 10, 10]  # noqa: E731
    x = np.arange(21) - 10.0
    for beta in (0.5, 1.0, 4.0):
        np.testing.assert_allclose(
            row(blur_kernels(shape(beta=beta), 21)),
            np.exp(-0.5 * np.abs(x / 2) ** (2 * beta)),
            atol=1e-5,
        )
        np.testing.assert_allclose(
            row(blur_kernels(shape(beta=beta, plateau=1.0), 21)),
            1 / (1 + np.abs(x / 2) ** (2 * beta)),
            atol=1e-5,
        )


def test_a_sigma_of_zero_changes_nothing():
    images = jnp.asarray(PICTURE[None])
    np.testing.assert_allclose(
        convolve(images, blur_kernels(shape(sigma=0.0, beta=0.5), 21)), images, atol=1e-5
    )


@pytest.mark.parametrize("cutoff", [0.8, np.pi / 2, np.pi])
def test_the_low_pass_kernels_are_those_of_the_bessel_function(cutoff):
    offsets = np.arange(21) - 10
    distance = np.hypot(offsets, offsets[:, None])
    distance[10, 10] = 1
    wanted = cutoff * special.j1(cutoff * distance) / (2 * np.pi * distance)
    wanted[10, 10] = cutoff**2 / (4 * np.pi)
    ours = np.asarray(sinc_kernels(jnp.asarray([cutoff]), 21))[0]
    np.testing.assert_allclose(ours, wanted / wanted.sum(), atol=1e-5)


def test_each_image_is_convolved_with_its_own_kernel_as_scipy_does():
    rng = np.random.default_rng(0)
    kernels = rng.random((3, 7, 7)).astype(np.float32)
    images = np.stack([PICTURE, PICTURE[::-1], PICTURE[:, ::-1]])
    ours = np.asarray(jax.jit(convolve)(jnp.asarray(images), jnp.asarray(kernels)))
    for image, kernel, found in zip(images, kernels, ours, strict=True):
        wanted = np.stack(
            [ndimage.convolve(image[..., i], kernel, mode="nearest") for i in range(3)], axis=-1
        )
        np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_each_image_is_resized_by_its_own_factor_and_method_as_pillow_does():
    sizes = np.array([[40, 33], [96, 96], [57, 90], [24, 24]])
    images = jnp.asarray(np.stack([PICTURE] * 4))
    before = jnp.full((4, 2), 96.0)
    for turn in range(4):
        methods = (np.arange(4) + turn) % 4
        ours = jax.jit(resample, static_argnums=4)(
            images, before, jnp.asarray(sizes, jnp.float32), jnp.asarray(methods), (100, 96)
        )
        for found, (height, width), method in zip(np.asarray(ours), sizes, methods, strict=True):
            wanted = np.stack(
                [
                    PillowImage.fromarray(PICTURE[..., i]).resize(
                        (int(width), int(height)), PILLOW[METHODS[method]]
                    )
                    for i in range(3)
                ],
                axis=-1,
            )
            np.testing.assert_allclose(found[:height, :width], wanted, atol=3e-3)
            # what is left is filled by the edge
            np.testing.assert_array_equal(
                found[height:, :width][:1], found[height - 1 :, :width][:1]
            )


def test_pixels_outside_of_the_part_that_is_resized_are_not_looked_at():
    image = np.where(np.arange(96)[:, None, None] < 50, PICTURE, np.float32(7))
    ours = resample(
        jnp.asarray(image[None]),
        jnp.asarray([[50.0, 96.0]]),
        jnp.asarray([[75.0, 60.0]]),
        jnp.asarray([3]),
        (96, 96),
    )
    assert np.abs(ours).max() < 1.5
