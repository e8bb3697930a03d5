"""Sets of generated images with classes, against a data set that has the same classes.

For images for which FID's network was not made, such as Fashion-MNIST's: by the features of a
classifier that `sr3 train-classifier` trained on the same data (FD, KD, precision, recall, never
called FID), and by the classification accuracy score (CAS, Ravuri & Vinyals 2019, arXiv
1905.10887): the accuracy on real test images of a classifier that was trained on the set alone.

    FOLDER/rows/NAME.json     what was measured of a set; a run that was stopped goes on after it
"""

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, UInt8

from sr3_jax.errors import UserError
from sr3_jax.evaluation import classifier
from sr3_jax.evaluation.protocols import Options, Protocol
from sr3_jax.images import arrays, pairs
from sr3_jax.inference import generated
from sr3_jax.inference.classes import folder_of
from sr3_jax.metrics import classification, distributions
from sr3_jax.metrics.distributions import Reference
from sr3_jax.metrics.networks.inception import FeatureNetwork
from sr3_jax.runtime.atomic import write_text
from sr3_jax.runtime.paths import AnyPath
from sr3_jax.tasks import operations

REAL = "real training images"  # the row of what generated images are to be like
BATCH = 500  # images that are enlarged at a time


class Set(NamedTuple):
    """Images of classes."""

    images: UInt8[np.ndarray, "n s s c"]
    labels: Int[np.ndarray, " n"]


def run(
    protocol: Protocol,
    folder: AnyPath,
    options: Options,
    network: FeatureNetwork,
    on_start: Callable[[int], object] = lambda total: None,
    on_images: Callable[[int], object] = lambda count: None,
) -> dict[str, Any]:
    """Measures the training images and every set of `options.images`.

    Args:
      protocol: Its size and columns.
      folder: Where rows are kept.
      options: `data`, `images`, `seed` (of the classifiers) and `limit` (images of each set).
      network: What computes features.
      on_start: Called once with the number of sets.
      on_images: Called with 1 after each.

    Returns:
      What of results.json is particular to this protocol: n, data, networks, methods, sets.

    Raises:
      UserError: Data or images cannot be read, or do not go together.
    """
    if REAL in options.images:
        raise UserError(f"a method cannot be called {REAL!r} here: give NAME=DIR with another name")
    each = {name: _files(place) for name, place in options.images.items()}
    (images, labels), names = classifier.read(options.data, protocol.hr_size, 1, "eval")
    test = Set(images, labels)
    reference = Reference.of(
        "the test images", distributions.statistics_of(network, test.images, options.seed)
    )
    on_start(1 + len(options.images))
    methods: dict[str, dict[str, float]] = {}
    for name, files in {REAL: {}, **each}.items():
        about = {
            "network": network.name,
            "seed": options.seed,
            "limit": options.limit,
            "data": options.data,
            "test": f"{zlib.crc32(test.images.tobytes()):08x}",
            "files": pairs.fingerprint(files),
        }
        kept = folder / "rows" / f"{name}.json"
        found = _kept(kept, about)
        if found is None:
            made = (
                Set(*classifier.read(options.data, protocol.hr_size, 1, "train", options.limit)[0])
                if name == REAL
                else _read(files, names, test.images.shape[1:], options.limit)
            )
            found = _measure(made, test, reference, network, len(names), options.seed)
            write_text(kept, json.dumps(about | {"values": found}, indent=1) + "\n")
        methods[name] = found
        on_images(1)
    return {
        "n": len(test.images),
        "data": {"source": options.data, "classes": list(names)},
        "networks": {"fd": {"network": network.name}},
        "methods": methods,
        "sets": {
            name: generated.settings(place)
            for name, place in options.images.items()
            if generated.is_run(place)
        },
    }


def _files(place: Path) -> dict[str, Path]:
    return pairs.by_stem(generated.files_of(place))


def _read(
    files: Mapping[str, Path], names: Sequence[str], shape: tuple[int, ...], limit: int
) -> Set:
    """The images of a set, enlarged by bicubic if they are smaller; the folders are the classes."""
    numbers = {folder_of(name): number for number, name in enumerate(names)}
    stems = sorted(files, key=lambda stem: stem.rpartition("/")[2])
    stems = stems[:limit] if limit else stems
    labels, images = [], []
    for stem in stems:
        folder = stem.rpartition("/")[0]
        if folder not in numbers:
            raise UserError(
                f"{files[stem]} is in no folder of a class: {', '.join(numbers)} are its names"
            )
        labels.append(numbers[folder])
        images.append(arrays.read(files[stem], shape[-1]).pixels)
    sizes = {image.shape for image in images}
    if len(sizes) > 1:
        raise UserError(f"{files[stems[0]]} and others are of several sizes: {sorted(sizes)[:3]}")
    whole = np.stack(images)
    if whole.shape[1:] != shape:
        parts = [
            operations.to_uint8(
                operations.resize(
                    operations.to_float(jnp.asarray(whole[i : i + BATCH])), shape[0], shape[1]
                )
            )
            for i in range(0, len(whole), BATCH)
        ]
        whole = np.concatenate([np.asarray(part) for part in parts])
    return Set(whole, np.array(labels, np.int32))


def _measure(
    made: Set,
    test: Set,
    reference: Reference,
    network: FeatureNetwork,
    classes: int,
    seed: int,
) -> dict[str, float]:
    """The row of a set."""
    logits: list[np.ndarray] = []

    def look(images: np.ndarray) -> Any:
        """The network, whose logits are kept beside."""
        outputs = network(images)
        logits.append(np.asarray(outputs.logits))
        return outputs

    statistics, real = distributions.statistics_of(look, made.images, seed), reference.sample
    assert real is not None
    precision, recall = distributions.precision_recall(statistics.sample, real)
    params = classification.fit(made.images, made.labels, classes, seed=seed)
    return {
        "images": float(len(made.images)),
        "fd": distributions.fid(statistics, reference),
        "kd": distributions.kid(statistics.sample, real)[0],
        "precision": precision,
        "recall": recall,
        "as_asked": float((np.concatenate(logits).argmax(-1) == made.labels).mean()),
        "cas": classification.accuracy(params, test.images, test.labels),
    }


def _kept(path: AnyPath, about: Mapping[str, Any]) -> dict[str, float] | None:
    """What was measured of the same set before."""
    if not path.exists():
        return None
    found = json.loads(path.read_text())
    same = all(found.get(name) == value for name, value in about.items())
    return found["values"] if same else None
