"""The metrics equal scikit-image's and Pillow's on real images, one value per image."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from skimage import data as photographs
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from sr3_jax.config import base
from sr3_jax.data.faces import OrlFaces
from sr3_jax.evaluation import held_out
from sr3_jax.metrics import distortion
from sr3_jax.tasks import operations

pytestmark = pytest.mark.fast

RNG = np.random.default_rng(0)


def noisy(images, level):
    return np.clip(images + RNG.normal(0, level, images.shape), 0, 255).round().astype(np.uint8)


COLOUR = np.stack([photographs.astronaut()[:96, 150:300], photographs.coffee()[100:196, 200:350]])
GREY = np.stack(
    [photographs.camera()[100:164, 200:264], OrlFaces(range(31, 41))[7].pixels[20:84, 14:78, 0]]
)[..., None]
FLAT = np.full((1, 32, 32, 1), 200, np.uint8)
PAIRS = {
    "colour, a little noise": (noisy(COLOUR, 3), COLOUR),
    "colour, much noise": (noisy(COLOUR, 60), COLOUR),
    "grey": (noisy(GREY, 10), GREY),
    "another image": (COLOUR[::-1].copy(), COLOUR),
    "inverted": (255 - GREY, GREY),
    "flat and bright": (noisy(FLAT, 1), FLAT),
    "the smallest size": (noisy(GREY, 10)[:, :11, :13], GREY[:, :11, :13]),
}


@pytest.mark.parametrize(("images", "references"), PAIRS.values(), ids=PAIRS)
def test_psnr_and_ssim_equal_scikit_images(images, references):
    options = {
        "gaussian_weights": True,
        "sigma": 1.5,
        "use_sample_covariance": False,
        "channel_axis": -1,
        "data_range": 255,
    }
    pairs = list(zip(images, references, strict=True))
    psnr = [peak_signal_noise_ratio(reference, image, data_range=255) for image, reference in pairs]
    ssim = [structural_similarity(reference, image, **options) for image, reference in pairs]
    np.testing.assert_allclose(distortion.psnr(images, references), psnr, rtol=1e-12)
    np.testing.assert_allclose(distortion.ssim(images, references), ssim, atol=1e-5)


def test_equal_images_score_120_db_and_an_ssim_of_one():
    np.testing.assert_array_equal(distortion.psnr(COLOUR, COLOUR), 120)
    np.testing.assert_allclose(distortion.ssim(COLOUR, COLOUR), 1, atol=1e-6)


def test_one_level_off_everywhere_is_48_db():
    np.testing.assert_allclose(distortion.psnr(FLAT, FLAT + 1), 20 * np.log10(255), rtol=1e-12)


def test_ssim_of_images_smaller_than_its_window_is_refused_by_their_size():
    with pytest.raises(ValueError, match="at least 11×11, not 13×10"):
        distortion.ssim(GREY[:, :10, :13], GREY[:, :10, :13])


def test_consistency_is_the_error_of_pillows_float_bicubic_reduction_against_the_lr_image():
    lr = np.ascontiguousarray(RNG.integers(0, 256, (2, 16, 16, 1), np.uint8))

    def reduce(image):
        return np.asarray(
            Image.fromarray(image[..., 0].astype(np.float32)).resize(
                (16, 16), Image.Resampling.BICUBIC
            )
        )

    errors = [
        np.square((reduce(image) - small[..., 0]) / 255).mean()
        for image, small in zip(GREY, lr, strict=True)
    ]
    np.testing.assert_allclose(distortion.consistency_mse(GREY, lr), errors, rtol=1e-4)


def test_scores_hold_every_column_in_its_unit():
    lr = np.stack([image[::8, ::8] for image in GREY])
    scores = distortion.scores(noisy(GREY, 5), GREY, lr)
    assert set(scores) == {"psnr", "ssim", "consistency_mse_1e5", "consistency_db"}
    assert {values.shape for values in scores.values()} == {(2,)}
    np.testing.assert_allclose(
        scores["consistency_db"], -10 * np.log10(scores["consistency_mse_1e5"] / 1e5)
    )


def test_values_belong_to_their_own_image_whatever_stands_beside_it():
    images, references = PAIRS["colour, much noise"]
    lr = np.ascontiguousarray(references[:, ::6, ::6])
    together = distortion.scores(images, references, lr)
    for i in range(2):
        alone = distortion.scores(images[i : i + 1], references[i : i + 1], lr[i : i + 1])
        for name, values in together.items():
            np.testing.assert_allclose(alone[name], values[i : i + 1], rtol=1e-5)


def test_on_orl_the_truth_is_consistent_with_its_lr_image_to_8_bits_and_bicubic_is_less_so():
    config = base()
    config.data.hr_size, config.data.lr_size, config.model.image_channels = 64, 16, 1
    split = held_out.load(config, 20)
    truth = distortion.consistency_mse(split.hr, split.lr)
    # The variance of rounding to 8 bits, and some room for a sample of 256 pixels
    assert truth.max() < 1.5 / 12 / 255**2
    bicubic = distortion.consistency_mse(split.bicubic, split.lr)
    assert bicubic.min() > 2 * truth.max()
    assert (
        0
        < distortion.psnr(split.bicubic, split.hr).min()
        < distortion.psnr(split.bicubic, split.hr).mean()
        < 30
    )
    upsampled = np.asarray(
        operations.to_uint8(operations.resize(operations.to_float(jnp.asarray(split.lr)), 64, 64))
    )
    np.testing.assert_array_equal(split.bicubic, upsampled)


def test_on_y_they_equal_scikit_images_too():
    images, references = PAIRS["colour, a little noise"]
    ours, theirs = distortion.luma(images), distortion.luma(references)
    np.testing.assert_allclose(ours[..., 0], rgb2ycbcr(images)[..., 0], atol=1e-9)
    options = {
        "gaussian_weights": True,
        "sigma": 1.5,
        "use_sample_covariance": False,
        "data_range": 255,
    }
    for i in range(len(images)):
        a, b = ours[i, ..., 0], theirs[i, ..., 0]
        assert distortion.psnr(ours, theirs)[i] == pytest.approx(
            peak_signal_noise_ratio(b, a, data_range=255), rel=1e-9
        )
        assert distortion.ssim(ours, theirs)[i] == pytest.approx(
            structural_similarity(b, a, **options), abs=1e-5
        )
