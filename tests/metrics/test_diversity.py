"""What diversity and calibration say of samples whose distribution is known."""

import numpy as np
import pytest
import skimage.data

from sr3_jax.metrics import diversity
from sr3_jax.metrics.lpips import lpips

S, N, SIDE = 8, 3, 64


def drawn(spread: float, truth_spread: float = 12.0, seed: int = 0):
    """Samples about a mean, and a truth about the same mean."""
    rng = np.random.default_rng(seed)
    mean = rng.uniform(90, 160, (N, SIDE, SIDE, 3))
    samples = mean + rng.normal(0, spread, (S, N, SIDE, SIDE, 3))
    truth = mean + rng.normal(0, truth_spread, mean.shape)
    return samples.round().astype(np.uint8), truth.round().astype(np.uint8)


def ratio(samples, truth):
    return diversity.spread_to_error(diversity.spread_and_error(samples, truth))


@pytest.mark.fast
def test_one_image_whose_mean_happens_to_be_exact_does_not_decide_the_ratio():
    samples, truth = drawn(12.0)
    samples[:, 0] = truth[0] + np.resize([1, -1], (S, 1, 1, 1))
    parts = diversity.spread_and_error(samples, truth)
    assert parts[0, 1] == 0
    assert diversity.spread_to_error(parts) == pytest.approx(1, abs=0.05)


@pytest.mark.fast
def test_samples_of_the_posterior_have_the_promised_calibration():
    samples, truth = drawn(12.0)
    assert ratio(samples, truth) == pytest.approx(1, abs=0.03)
    np.testing.assert_allclose(diversity.coverage(samples, truth), (S - 1) / (S + 1), atol=0.02)
    # The mean of 8 samples' own deviations
    np.testing.assert_allclose(diversity.deviation(samples), 12 * 0.965, rtol=0.02)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("spread", "less"), [(4.0, True), (30.0, False)], ids=["overconfident", "too wild"]
)
def test_samples_that_are_too_alike_or_too_different_show(spread, less):
    samples, truth = drawn(spread)
    assert (ratio(samples, truth) < 1) == less
    assert (diversity.coverage(samples, truth) < (S - 1) / (S + 1)).all() == less


@pytest.mark.fast
def test_equal_samples_have_no_spread_and_cover_what_they_equal_by_half():
    _, truth = drawn(1.0)
    samples = np.repeat(truth[None], S, axis=0)
    assert not diversity.deviation(samples).any()
    assert ratio(samples, truth) == 0
    np.testing.assert_array_equal(diversity.coverage(samples, truth), 0.5)


def test_pairwise_lpips_is_the_mean_over_all_pairs_and_0_for_equal_ones():
    rng = np.random.default_rng(0)
    photo = skimage.data.astronaut()[40:72, 200:232]
    samples = np.stack(
        [np.stack([np.clip(photo + rng.normal(0, 9, photo.shape), 0, 255)] * 2) for _ in range(3)]
    )
    samples = samples.astype(np.uint8)
    samples[:, 1] = samples[0, 1]
    pairs = [lpips(samples[i], samples[j])[0] for i, j in ((0, 1), (0, 2), (1, 2))]
    assert diversity.pairwise_lpips(samples) == pytest.approx([np.mean(pairs), 0], abs=1e-6)
