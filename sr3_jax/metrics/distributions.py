"""How alike two sets of images are, by the features that a network computes of them.

The metrics of two sets are FID, KID, precision and recall; the Inception score is of one set.

FID: Heusel et al. 2017. KID: Bińkowski et al. 2018, polynomial kernel (x·y / d + 1)³, unbiased,
over subsets. Precision and recall: Kynkäänniemi et al. 2019, third neighbour. Inception score:
Salimans et al. 2016, ten splits of the shuffled images. All as torch-fidelity computes them.

Features can come in parts: the mean and covariance are computed from running sums, and of the
features themselves a random sample of bounded size is kept, for KID, precision and recall. A file
of statistics is an .npz of `mu` and `sigma`, as others have them too.
"""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from sr3_jax.errors import UserError
from sr3_jax.runtime.atomic import replacing

KEPT = 10_000  # feature vectors that are kept; Inception's take 80 MB
SUBSETS, SUBSET = 100, 1000  # of KID: how many subsets there are, and how many images in each
SPLITS = 10  # of the Inception score
BATCH = 32  # images that a network looks at at a time
NEIGHBOUR = 3  # of precision and recall: which neighbour a vector's neighbourhood reaches to

Vectors = Float[np.ndarray, "_n d"]


class Statistics:
    """The statistics of feature vectors that come in parts.

    Args:
      dimensions: The length of a vector.
      kept: How many vectors are kept at most; memory does not grow beyond them.
      seed: Of the random choice of those that are kept.
    """

    def __init__(self, dimensions: int, kept: int = KEPT, seed: int = 0):
        self.n = 0
        self._rows: list[np.ndarray] = []
        self._kept, self._rng = kept, np.random.default_rng(seed)
        # Sums are of differences from the first part's mean, so that they keep their digits
        self._origin = np.zeros(dimensions)
        self._sum = np.zeros(dimensions)
        self._products = np.zeros((dimensions, dimensions))

    def add(self, features: Vectors) -> None:
        """Adds the features of more images; raises ValueError if they are not finite."""
        values = np.asarray(features, np.float64)
        if not np.isfinite(values).all():
            raise ValueError("features that are not finite")
        if len(values):
            if self.n == 0:
                self._origin = values.mean(0)
            centred = values - self._origin
            self._sum += centred.sum(0)
            self._products += centred.T @ centred
        # Reservoir sampling: each vector so far is kept with the same probability
        for row in np.asarray(features, np.float32):
            self.n += 1
            if len(self._rows) < self._kept:
                self._rows.append(row)
            elif (place := int(self._rng.integers(self.n))) < self._kept:
                self._rows[place] = row

    @property
    def sample(self) -> Vectors:
        """The feature vectors that were kept: of at most `kept` images, drawn at random.

        If there are no more images than that, they are those of all images, in order.
        """
        return np.stack(self._rows) if self._rows else np.empty((0, len(self._sum)), np.float32)

    @property
    def mu(self) -> Float[np.ndarray, " d"]:
        """The mean."""
        return self._origin + self._sum / max(1, self.n)

    @property
    def sigma(self) -> Float[np.ndarray, "d d"]:
        """The covariance, divided by n - 1; raises UserError for fewer than 2 images."""
        if self.n < 2:
            raise UserError(f"a covariance needs at least 2 images, not {self.n}")
        return (self._products - np.outer(self._sum, self._sum) / self.n) / (self.n - 1)


def statistics_of(
    network: Callable[[np.ndarray], Any], images: np.ndarray, seed: int = 0
) -> Statistics:
    """The statistics of images by the features of a network.

    Args:
      network: From uint8 images (n, h, w, c) to an object with `features` (n, d).
      images: One or more, uint8.
      seed: Of the choice of the features that are kept.
    """
    found: Statistics | None = None
    for start in range(0, len(images), BATCH):
        features = np.asarray(network(images[start : start + BATCH]).features)
        found = found or Statistics(features.shape[1], seed=seed)
        found.add(features)
    if found is None:
        raise ValueError("statistics of no images")
    return found


class Reference:
    """The statistics of a reference set, from its images or from a file of statistics.

    Args:
      name: What the set is called in the results.
      mu: The mean of the features.
      sigma: Their covariance.
      sample: Feature vectors of some images, which a file does not hold.
      n: The number of images, if known.
    """

    def __init__(
        self, name: str, mu: np.ndarray, sigma: np.ndarray, sample: np.ndarray | None, n: int | None
    ):
        self.name, self.mu, self.sigma, self.sample, self.n = name, mu, sigma, sample, n

    @classmethod
    def of(cls, name: str, statistics: Statistics) -> "Reference":
        """The reference of a set whose images' features were added to `statistics`."""
        return cls(name, statistics.mu, statistics.sigma, statistics.sample, statistics.n)

    @classmethod
    def load(cls, path: Path) -> "Reference":
        """Reads an .npz of `mu` and `sigma`, the layout that published statistics have.

        Raises:
          UserError: The file is not one of statistics.
        """
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
                f"{path}: mu of shape {mu.shape} and sigma of shape {sigma.shape} do not "
                "belong together"
            )
        return cls(path.name, mu, sigma, None, n)

    def save(self, path: Path) -> None:
        """Writes an .npz of `mu`, `sigma` and `n`, which is 0 if it is not known."""
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, mu=self.mu, sigma=self.sigma, n=np.int64(self.n or 0))


def fid(statistics: Statistics, reference: Reference) -> float:
    """Fréchet distance of two Gaussians: |mu - mu'|² + tr(S) + tr(S') - 2 tr((S S')^½)."""
    if len(statistics.mu) != len(reference.mu):
        raise UserError(
            f"{reference.name} is of {len(reference.mu)} features, the network here of "
            f"{len(statistics.mu)}"
        )
    mine, theirs = statistics.sigma, reference.sigma
    # S S' has the same eigenvalues as S^½ S' S^½, which is symmetric: they are real, and are found
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
    features: Vectors,
    reference: Vectors,
    seed: int = 2020,
    size: int = SUBSET,
    subsets: int = SUBSETS,
) -> tuple[float, float]:
    """The kernel distance: its mean and standard deviation over pairs of subsets.

    It is unbiased, and below zero only by chance.

    Args:
      features: Of the images.
      reference: Of the reference set.
      seed: Of the choice of the subsets.
      size: How many images a subset has, at most.
      subsets: How many pairs of subsets there are.

    Raises:
      UserError: There are fewer than 2 images on either side.
    """
    size = min(size, len(features), len(reference))
    if size < 2:
        raise UserError("KID needs at least 2 images on each side")
    rng, found = np.random.RandomState(seed), []  # torch-fidelity's subsets
    for _ in range(subsets):
        x = features[rng.choice(len(features), size, replace=False)].astype(np.float64)
        y = reference[rng.choice(len(reference), size, replace=False)].astype(np.float64)
        same = sum(kernel.sum() - np.trace(kernel) for kernel in (_kernel(x, x), _kernel(y, y)))
        found.append(same / (size * (size - 1)) - 2 * _kernel(x, y).mean())
    return float(np.mean(found)), float(np.std(found))


def _kernel(x: Vectors, y: Vectors) -> Float[np.ndarray, "_n _m"]:
    base = x @ y.T / x.shape[1] + 1
    return base * base * base  # faster than a power


def precision_recall(
    features: Vectors, reference: Vectors, neighbour: int = NEIGHBOUR
) -> tuple[float, float]:
    """Precision and recall of a set of images.

    Precision is the share of the images that lie within the manifold of the reference set, recall
    the share of the reference set within that of the images. A manifold is the union of spheres
    around all vectors of a set, each as large as the distance to its `neighbour`-th neighbour.

    Raises:
      UserError: There are no more than `neighbour` images on either side.
    """
    if min(len(features), len(reference)) <= neighbour:
        raise UserError(f"precision and recall need more than {neighbour} images on each side")
    return _share_inside(features, reference, neighbour), _share_inside(
        reference, features, neighbour
    )


def _share_inside(points: Vectors, centres: Vectors, neighbour: int) -> float:
    """The share of points that lie within reach of any centre.

    A centre's reach is the distance to the `neighbour`-th nearest of the other centres.
    """
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
    """The Inception score: its mean and standard deviation over the splits.

    The score of a split is exp of the mean Kullback-Leibler divergence between an image's class
    probabilities and the mean probabilities of all its images.

    Args:
      logits: Of all images.
      splits: How many parts they are split into.
      seed: Of the order in which they are split.

    Raises:
      UserError: There are fewer images than splits.
    """
    n = len(logits)
    if n < splits:
        raise UserError(
            f"the Inception score is of {splits} splits and needs at least as many images, not {n}"
        )
    order = np.random.RandomState(seed).permutation(n)  # torch-fidelity's order
    values = logits[order].astype(np.float64)
    values -= values.max(1, keepdims=True)
    log_p = values - np.log(np.exp(values).sum(1, keepdims=True))
    scores = []
    for i in range(splits):
        part = log_p[i * n // splits : (i + 1) * n // splits]
        p = np.exp(part)
        scores.append(np.exp((p * (part - np.log(p.mean(0)))).sum(1).mean()))
    return float(np.mean(scores)), float(np.std(scores))
