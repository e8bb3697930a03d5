"""A smooth guess of what is in a hole."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from sr3_jax.tasks.filling import filled

pytestmark = pytest.mark.fast
RNG = np.random.default_rng(0)


def case(height, width, share=0.5):
    known = (RNG.random((2, height, width, 1)) > share).astype(np.float32)
    return RNG.normal(size=(2, height, width, 3)).astype(np.float32), known


@pytest.mark.parametrize("size", [(16, 16), (7, 30), (1, 5), (33, 2), (1, 1)])
def test_what_is_known_stays_and_what_is_not_has_no_influence(size):
    image, known = case(*size)
    made = filled(image, known, np)
    assert made.dtype == np.float32
    np.testing.assert_array_equal(made * known, image * known)
    np.testing.assert_array_equal(filled(image + 9 * (1 - known), known, np), made)
    np.testing.assert_allclose(filled(jnp.asarray(image), jnp.asarray(known), jnp), made, atol=1e-5)


def test_a_guess_lies_between_the_known_values():
    image, known = case(24, 40, share=0.95)
    made = filled(image, known, np)
    for one, mask, result in zip(image, known[..., 0] > 0, made, strict=True):
        assert (result <= one[mask].max(0) + 1e-5).all()
        assert (result >= one[mask].min(0) - 1e-5).all()


def test_what_is_flat_or_even_goes_on():
    rows, columns = np.meshgrid(np.arange(32.0), np.arange(48.0), indexing="ij")
    ramp = np.stack([rows / 32, columns / 48, 0 * rows + 0.3], -1).astype(np.float32)[None]
    known = np.ones((1, 32, 48, 1), np.float32)
    known[:, 10:20, 12:30] = 0
    np.testing.assert_allclose(filled(ramp * known, known, np), ramp, atol=0.02)


def test_it_is_nearly_the_membrane_over_the_hole():
    """As relaxation finds it, that is run until nothing changes."""
    image = ndimage.gaussian_filter(RNG.normal(size=(1, 32, 32, 1)), (0, 2, 2, 0)).astype("f4")
    image /= image.std()
    known = np.ones_like(image)
    known[:, 8:24, 10:20] = 0
    exact = image * known
    for _ in range(3000):
        around = np.pad(exact, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
        mean = (around[:, :-2, 1:-1] + around[:, 2:, 1:-1] + around[:, 1:-1, :-2]) / 4
        exact = known * image + (1 - known) * (mean + around[:, 1:-1, 2:] / 4)
    hole = known == 0
    error = np.sqrt(np.square(filled(image, known, np) - exact)[hole].mean())
    assert error < 0.15 * np.sqrt(np.square(exact - exact[hole].mean())[hole].mean())


def test_where_nothing_is_known_there_is_a_middle_grey():
    image = RNG.normal(size=(1, 9, 6, 3)).astype(np.float32)
    assert not filled(image, np.zeros((1, 9, 6, 1), np.float32), np).any()
