"""JPEG as an operation: what Pillow's encoder and decoder (libjpeg) make of the same pixels."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from skimage import data

from sr3_jax.tasks.jpeg import CHROMA, LUMA, jpeg, quantisation

pytestmark = pytest.mark.fast
compress = jax.jit(jpeg)
PICTURE = data.astronaut()
QUALITIES = [1, 10, 30, 49, 50, 75, 85, 95, 100]


def as_floats(pixels):
    return jnp.asarray(pixels / 127.5 - 1, jnp.float32)


def as_levels(images):
    return np.round((np.asarray(images) + 1) * 127.5).astype(int)


def ours(pixels, quality, subsample):
    b = len(pixels)
    strengths = jnp.broadcast_to(jnp.asarray(quality, jnp.float32), b)
    return as_levels(compress(as_floats(pixels), strengths, jnp.broadcast_to(subsample, b)))


def pillow(pixels, quality, subsample):
    file = io.BytesIO()
    image = Image.fromarray(pixels.squeeze())
    image.save(file, "JPEG", quality=quality, subsampling="4:2:0" if subsample else "4:4:4")
    return np.asarray(Image.open(file)).astype(int).reshape(pixels.shape), Image.open(file)


@pytest.mark.parametrize("subsample", [False, True], ids=["4:4:4", "4:2:0"])
@pytest.mark.parametrize("size", [(64, 64), (24, 24), (37, 51), (8, 120)], ids=str)
def test_it_is_what_libjpeg_makes_to_two_levels_on_99_percent_of_the_values(size, subsample):
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 512 - 120, (12, 2))
    crops = np.stack([PICTURE[y : y + size[0], x : x + size[1]] for y, x in corners])
    close, total = 0, 0
    for quality in QUALITIES:
        wanted = np.stack([pillow(crop, quality, subsample)[0] for crop in crops])
        difference = np.abs(ours(crops, quality, subsample) - wanted)
        close, total = close + (difference <= 2).sum(), total + difference.size
        assert (difference <= 2).mean() > 0.97, quality
    assert close / total >= 0.99


def test_grey_is_what_libjpeg_makes_of_grey():
    crop = PICTURE[100:150, 200:260].mean(axis=-1).astype(np.uint8)[..., None]
    for quality in QUALITIES:
        difference = np.abs(ours(crop[None], quality, True)[0] - pillow(crop, quality, False)[0])
        assert (difference <= 2).mean() >= 0.99


@pytest.mark.parametrize("quality", QUALITIES)
def test_the_tables_are_those_that_pillow_writes(quality):
    written = pillow(PICTURE[:16, :16], quality, subsample=False)[1].quantization
    for number, table in enumerate((LUMA, CHROMA)):
        ours_ = np.asarray(quantisation(jnp.asarray([float(quality)]), table))[0]
        np.testing.assert_array_equal(ours_.ravel(), written[number])


def test_each_image_has_its_own_quality_and_chroma():
    crops = np.stack([PICTURE[:48, :48]] * 4)
    together = ours(crops, [10, 10, 90, 90], jnp.asarray([False, True, False, True]))
    for i, (quality, subsample) in enumerate([(10, False), (10, True), (90, False), (90, True)]):
        alone = ours(crops[:1], quality, subsample)
        np.testing.assert_array_equal(together[i], alone[0])


def test_the_error_grows_as_the_quality_falls():
    crop = PICTURE[None, 100:164, 200:264]
    errors = [
        np.square(ours(crop, quality, False) - crop.astype(int)).mean()
        for quality in (100, 95, 85, 75, 50, 30, 10, 1)
    ]
    assert errors == sorted(errors)
    assert errors[0] < 1
