"""Colour differences against published pairs, colourfulness by hand."""

import numpy as np
import pytest
from skimage import color

from sr3_jax.metrics import colour

pytestmark = pytest.mark.fast
# Sharma, Wu & Dalal 2005, table 1: pairs 1, 4, 7, 10, 14, 17, 20, 25, 29, 34
PAIRS = [
    ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
    ((50, -1.3802, -84.2814), (50, 0, -82.7485), 1.0000),
    ((50, 0, 0), (50, -1, 2), 2.3669),
    ((50, 2.49, -0.001), (50, -2.49, 0.0010), 7.1792),
    ((50, -0.001, 2.49), (50, 0.0010, -2.49), 4.8045),
    ((50, 2.5, 0), (73, 25, -18), 27.1492),
    ((50, 2.5, 0), (58, 24, 15), 19.4535),
    ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ((22.7233, 20.0904, -46.6940), (23.0331, 14.9730, -42.5619), 2.0373),
    ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
]


@pytest.mark.parametrize(("one", "other", "wanted"), PAIRS)
def test_ciede2000_is_that_of_the_published_pairs(one, other, wanted, monkeypatch):
    """The pairs are colours of CIELAB, most of which no image can show."""
    given = {1: one, 2: other}
    monkeypatch.setattr(
        color, "rgb2lab", lambda image: np.array(given[image[0, 0, 0]], float) + np.zeros((2, 2, 3))
    )
    images = (np.full((1, 2, 2, 3), number, np.uint8) for number in given)
    assert colour.ciede2000(*images) == pytest.approx([wanted], abs=5e-5)


def test_ciede2000_is_a_mean_over_the_pixels_of_each_image():
    rng = np.random.default_rng(0)
    ours, theirs = rng.integers(0, 256, (2, 3, 8, 8, 3), np.uint8)
    found = colour.ciede2000(ours, theirs)
    assert found.shape == (3,)
    one = colour.ciede2000(ours[1:2, 3:4, 5:6], theirs[1:2, 3:4, 5:6])
    assert one != pytest.approx(found[1])
    single = [colour.ciede2000(ours[1:2, i : i + 1], theirs[1:2, i : i + 1])[0] for i in range(8)]
    assert found[1] == pytest.approx(np.mean(single))
    assert (colour.ciede2000(ours, ours) == 0).all()


def test_colourfulness_of_known_pictures():
    grey = np.full((8, 8, 3), 90, np.uint8)
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    # Half red, half green: red - green is ±255, the other opponent 127.5 everywhere
    half = np.zeros((8, 8, 3), np.uint8)
    half[:, :4, 0] = half[:, 4:, 1] = 255
    wanted = [0, 0.3 * np.hypot(255, 127.5), 255 + 0.3 * 127.5]
    np.testing.assert_allclose(colour.colourfulness(np.stack([grey, red, half])), wanted)
