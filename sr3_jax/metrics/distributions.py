"""How alike two sets of images are, by features of a network: FID, KID, precision and recall; and the Inception score.

FID: Heusel et al. 2017. KID: Bińkowski et al. 2018, polynomial kernel (x·y / d + 1)³, unbiased,
over subsets. Precision and recall: Kynkäänniemi et al. 2019, third neighbour. Inception score:
Salimans et al. 2016, ten splits of the shuffled images. All as torch-fidelity computes them.

Images stream through: the mean and covariance are sums, and of the features themselves a random
sample of bounded size is kept, for KID, precision and recall. Statistics files are the common .npz
of `mu` and `sigma`.
"""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from sr3_jax.errors import UserError
from sr3_jax.runtime.atomic import replacing

KEPT = 10_000  # feature vectors: 80 MB of Inception's
SUBSETS, SUBSET = 100, 1000  # of KID
SPLITS = 10  # of the Inception score
NEIGHBOUR = 3

Vectors = Float[np.ndarray, "_n d"]


class Statistics:
    """What is remembered of a stream of feature vectors; memory does not grow beyond `kept` of them."""

    def __init__(self, dimensions: int, kept: int = KEPT, seed: int = 0):
        self.n = 0
        self._rows: list[np.ndarray] = []
        self._kept, self._rng = kept, np.random.default_rng(seed)
        # About the mean, so that large sums keep their digits
        self._origin: np.ndarray | None = None
        self._sum = np.zeros(dimensions)
        self._products = np.zeros((dimensions, dimensions))

    def add(self, features: Vectors) -> None:
        """More images' features."""
        values = np.asarray(features, np.float64)
        if not np.isfinite(values).all():
            raise ValueError("features that are not finite")
        if len(values):
            if self._origin is None:
                self._origin = values.mean(0)
            centred = values - self._origin
            self._sum += centred.sum(0)
            self._products += centred.T @ centred
        # Each of all so far is kept with the same probability
        for row in np.asarray(features, np.float32):
            self.n += 1
            if len(self._rows) < self._kept:
                self._rows.append(row)
            elif (place := int(self._rng.integers(self.n))) < self._kept:
                self._rows[place] = row

    @property
    def sample(self) -> Vectors:
        """Feature vectors of at most `kept` of the images, drawn at random; of all, in order, if there are no more."""
        return np.stack(self._rows) if self._rows else np.empty((0, len(self._sum)), np.float32)

    @property
    def mu(self) -> Float[np.ndarray, " d"]:
        origin = self._origin if self._origin is not None else 0.0
        return origin + self._sum / max(1, self.n)

    @property
    def sigma(self) -> Float[np.ndarray, "d d"]:
        """The covariance, with n - 1."""
        if self.n < 2:
            raise UserError(f"a covariance needs at least 2 images, not {self.n}")
        return (self._products - np.outer(self._sum, self._sum) / self.n) / (self.n - 1)


class Reference:
    """Mean and covariance of a reference set, from images or from a statistics file."""

    def __init__(
        self, name: str, mu: np.ndarray, sigma: np.ndarray, sample: np.ndarray | None, n: int | None
    ):
        self.name, self.mu, self.sigma, self.sample, self.n = name, mu, sigma, sample, n

    @classmethod
    def of(cls, name: str, statistics: Statistics) -> "Reference":
        return cls(name, statistics.mu, statistics.sigma, statistics.sample, statistics.n)

    @classmethod
    def load(cls, path: Path) -> "Reference":
        """From an .npz of `mu` and `sigma`, the layout that published statistics have; raises UserError."""
        try:
            with np.load(path, allow_pickle=False) as file:
                mu, sigma = (np.asarray(file[name], np.float64) for name in ("mu", "sigma"))
                n = int(file["n"]) if "n" in file else None
        except (OSError, KeyError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{path} is no file of statistics (an .npz with mu and sigma): {error}"
            ) from error
        if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)):
            raise UserError(
                f"{path}: mu of shape {mu.shape} and sigma of shape {sigma.shape} do not belong together"
            )
        return cls(path.name, mu, sigma, None, n)

    def save(self, path: Path) -> None:
        """As an .npz of `mu`, `sigma` and `n`."""
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, mu=self.mu, sigma=self.sigma, n=np.int64(self.n or 0))


def fid(statistics: Statistics, reference: Reference) -> float:
    """Fréchet distance of two Gaussians: |mu - mu'|² + tr(S) + tr(S') - 2 tr((S S')^½)."""
    if len(statistics.mu) != len(reference.mu):
        raise UserError(
            f"{reference.name} is of {len(reference.mu)} features, the network here of {len(statistics.mu)}"
        )
    mine, theirs = statistics.sigma, reference.sigma
    # The eigenvalues of S S' are those of the symmetric A = S^½ S' S^½, whose are real and found
    # with more digits.
    values, vectors = np.linalg.eigh(mine)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    middle = np.linalg.eigvalsh(root @ theirs @ root)
    difference = statistics.mu - reference.mu
    return float(
        difference @ difference
        + np.trace(mine)
        + np.trace(theirs)
        - 2 * np.sqrt(np.maximum(middle, 0)).sum()
    )


def kid(
    features: Vectors, reference: Vectors, seed: int = 2020, size: int = SUBSET
) -> tuple[float, float]:
    """Kernel distance: mean and standard deviation over 100 pairs of subsets; below zero only by chance."""
    size = min(size, len(features), len(reference))
    if size < 2:
        raise UserError("KID needs at least 2 images on each side")
    rng, found = np.random.RandomState(seed), []  # the subsets of torch-fidelity
    for _ in range(SUBSETS):
        x = features[rng.choice(len(features), size, replace=False)].astype(np.float64)
        y = reference[rng.choice(len(reference), size, replace=False)].astype(np.float64)
        same = sum(kernel.sum() - np.trace(kernel) for kernel in (_kernel(x, x), _kernel(y, y)))
        found.append(same / (size * (size - 1)) - 2 * _kernel(x, y).mean())
    return float(np.mean(found)), float(np.std(found))


def _kernel(x: Vectors, y: Vectors) -> Float[np.ndarray, "_n _m"]:
    return (x @ y.T / x.shape[1] + 1) ** 3


def precision_recall(
    features: Vectors, reference: Vectors, neighbour: int = NEIGHBOUR
) -> tuple[float, float]:
    """The share of images within the reference set's manifold, and of the reference set within the images'."""
    if min(len(features), len(reference)) <= neighbour:
        raise UserError(f"precision and recall need more than {neighbour} images on each side")
    return _share_inside(features, reference, neighbour), _share_inside(
        reference, features, neighbour
    )


def _share_inside(points: Vectors, centres: Vectors, neighbour: int) -> float:
    """How many points lie within reach of a centre: the distance to its `neighbour`-th nearest other centre."""
    reach = np.concatenate(
        [
            np.partition(rows, neighbour, axis=1)[:, neighbour]
            for rows in _distances(centres, centres)
        ]
    )
    inside = [(rows <= reach).any(axis=1) for rows in _distances(points, centres)]
    return float(np.concatenate(inside).mean())


def _distances(points: Vectors, others: Vectors, block: int = 1000) -> Any:
    """Squared distances, a block of rows at a time."""
    others = others.astype(np.float64)
    squares = np.square(others).sum(1)
    for start in range(0, len(points), block):
        some = points[start : start + block].astype(np.float64)
        yield np.maximum(np.square(some).sum(1)[:, None] + squares - 2 * some @ others.T, 0)


def inception_score(logits: Vectors, splits: int = SPLITS, seed: int = 2020) -> tuple[float, float]:
    """Exp of the mean divergence of an image's classes from those of all: mean and standard deviation over the splits."""
    n = len(logits)
    if n < splits:
        raise UserError(
            f"the Inception score is of {splits} splits and needs at least as many images, not {n}"
        )
    order = np.random.RandomState(seed).permutation(n)  # the order of torch-fidelity
    values = logits[order].astype(np.float64)
    values -= values.max(1, keepdims=True)
    log_p = values - np.log(np.exp(values).sum(1, keepdims=True))
    scores = []
    for i in range(splits):
        part = log_p[i * n // splits : (i + 1) * n // splits]
        p = np.exp(part)
        scores.append(np.exp((p * (part - np.log(p.mean(0)))).sum(1).mean()))
    return float(np.mean(scores)), float(np.std(scores))
