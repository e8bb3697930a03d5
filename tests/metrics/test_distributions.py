"""FID, KID, precision and recall, Inception score.

They equal torch-fidelity's on random features, and need bounded memory.
"""

from pathlib import Path

import numpy as np
import pytest

from sr3_jax.errors import UserError
from sr3_jax.metrics import distributions
from sr3_jax.metrics.distributions import Reference, Statistics
from tests.metrics.peers.weights import features

pytestmark = pytest.mark.fast
GOLDENS = dict(np.load(Path(__file__).parent / "peers" / "goldens.npz"))
A, B = features(600, 48, 1), features(500, 48, 2, 0.3)


def statistics(values: np.ndarray, batch: int = 64, **options) -> Statistics:
    found = Statistics(values.shape[1], **options)
    for start in range(0, len(values), batch):
        found.add(values[start : start + batch])
    return found


def test_fid_equals_torch_fidelitys():
    assert distributions.fid(statistics(A), Reference.of("b", statistics(B))) == pytest.approx(
        GOLDENS["fid"], rel=1e-6
    )


def test_kid_equals_torch_fidelitys():
    assert distributions.kid(A, B, size=200) == pytest.approx(tuple(GOLDENS["kid"]), rel=1e-6)


def test_precision_and_recall_equal_torch_fidelitys():
    assert distributions.precision_recall(A, B) == pytest.approx(
        tuple(GOLDENS["precision_recall"]), rel=1e-6
    )


def test_the_inception_score_equals_torch_fidelitys():
    assert distributions.inception_score(A) == pytest.approx(
        tuple(GOLDENS["inception_score"]), rel=1e-6
    )


def test_fid_of_gaussians_is_what_the_formula_says_and_zero_of_a_set_with_itself():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20_000, 3)) * [1, 2, 3]
    y = rng.normal(size=(20_000, 3)) * [2, 2, 1] + [1, 0, 0]
    assert distributions.fid(statistics(x), Reference.of("y", statistics(y))) == pytest.approx(
        1 + 1 + 0 + 4, rel=0.05
    )
    assert distributions.fid(statistics(x), Reference.of("x", statistics(x))) == pytest.approx(
        0, abs=1e-9
    )


def test_streamed_statistics_are_those_of_all_at_once_whatever_the_batches_and_far_from_zero():
    values = (A + 1000).astype(np.float32)
    for batch in (1, 7, 600):
        found = statistics(values, batch)
        np.testing.assert_allclose(found.mu, values.astype(np.float64).mean(0), rtol=1e-12)
        np.testing.assert_allclose(
            found.sigma, np.cov(values.astype(np.float64), rowvar=False), rtol=1e-7, atol=1e-9
        )
        np.testing.assert_array_equal(found.sample, values)


def test_a_long_stream_keeps_a_bounded_fair_sample():
    values = np.arange(5000, dtype=np.float32)[:, None]
    found = statistics(values, kept=500)
    assert found.sample.shape == (500, 1)
    assert len(np.unique(found.sample)) == 500
    assert abs(found.sample.mean() - 2499.5) < 4 * 1443 / np.sqrt(500)
    assert found.mu == pytest.approx(2499.5)


def test_statistics_files_are_the_common_npz_and_come_back(tmp_path):
    before = Reference.of("b", statistics(B))
    before.save(tmp_path / "b.npz")
    after = Reference.load(tmp_path / "b.npz")
    assert (after.name, after.n) == ("b.npz", 500)
    assert distributions.fid(statistics(A), after) == distributions.fid(statistics(A), before)
    np.savez(tmp_path / "published.npz", mu=before.mu, sigma=before.sigma)
    assert Reference.load(tmp_path / "published.npz").n is None


def test_what_cannot_be_computed_is_one_sentence(tmp_path):
    few = statistics(A[:1])
    with pytest.raises(UserError, match="at least 2 images, not 1"):
        distributions.fid(few, Reference.of("b", statistics(B)))
    with pytest.raises(UserError, match="b is of 48 features, the network here of 3"):
        distributions.fid(statistics(A[:, :3]), Reference.of("b", statistics(B)))
    for values in (A[:1], A[:3]):
        with pytest.raises(UserError):
            distributions.precision_recall(values, B)
    with pytest.raises(UserError, match="at least 2 images"):
        distributions.kid(A[:1], B)
    with pytest.raises(UserError, match="not 9"):
        distributions.inception_score(A[:9])
    (tmp_path / "bad.npz").write_bytes(b"no")
    np.savez(tmp_path / "other.npz", mean=np.zeros(3))
    np.savez(tmp_path / "mixed.npz", mu=np.zeros(3), sigma=np.zeros((2, 2)))
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "other.npz").read_bytes()[:-30])
    for name in ("bad", "other", "mixed", "missing", "empty", "cut"):
        with pytest.raises(UserError, match=f"{name}.npz"):
            Reference.load(tmp_path / f"{name}.npz")
    with pytest.raises(ValueError, match="not finite"):
        statistics(np.full((3, 2), np.nan))
