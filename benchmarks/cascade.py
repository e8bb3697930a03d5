r"""Table 5 of the paper in miniature: what a cascade's second stage gains by augmentation and loss.

    python benchmarks/cascade.py --base=runs/fashion-14 --data=runs/fashion-28 \
        --classifier=runs/fashion-classifier.safetensors

Each variant of configs/fashion_14_28.py is trained for a few hundred steps with each seed, and
enlarges the same images of the first stage. What is measured is the Fréchet distance FD of 28×28
images from the training images, by the features of a classifier: choices are made on training
data. It is not FID. Every variant is a folder below runs/cascade, and a run that was stopped goes
on. The table, with the deviation over the seeds, goes to docs/cascade.json.
"""

import argparse
import dataclasses
import json
import runpy
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from sr3_jax.checkpoints.names import load_checkpoint
from sr3_jax.evaluation import classifier as data
from sr3_jax.inference.classes import labels_of
from sr3_jax.inference.engine import Engine
from sr3_jax.inference.generator import Drawing, Generator
from sr3_jax.inference.sampling import Sampling
from sr3_jax.metrics import distributions
from sr3_jax.metrics.distributions import Reference
from sr3_jax.metrics.networks import classifier
from sr3_jax.runtime import parallel
from sr3_jax.tasks.labels import LABEL
from sr3_jax.training import run

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "configs" / "fashion_14_28.py"


@dataclasses.dataclass(frozen=True)
class Variant:
    """Fields of the config, and the augmentation at sampling."""

    fields: dict[str, Any]
    augment: float = 0.0


VARIANTS = {
    "without": Variant({"task.augment": 0.0}),
    "blur": Variant({"task.augment": 0.0, "task.blur": 1.0}),
    "blur, L1": Variant({"task.augment": 0.0, "task.blur": 1.0, "train.loss": "l1"}),
    "noise": Variant({"task.augment": 40.0}, 10.0),
    "noise, L1": Variant({"task.augment": 40.0, "train.loss": "l1"}, 10.0),
}


def main() -> None:
    """Trains, enlarges, measures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--classifier", required=True)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    parallel.start()
    network = classifier.load(args.classifier)
    (real, _), _ = data.read(args.data, 28, 1, "train", args.count)
    reference = Reference.of("training images", distributions.statistics_of(network, real))
    small, labels = first_stage(args)
    found: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for seed in range(args.seeds):
        for name, variant in VARIANTS.items():
            place = ROOT / "runs" / "cascade" / f"{name.replace(', ', '-')}-{args.steps}-{seed}"
            distance = measured(place, variant, seed, args, network, reference, small, labels)
            found[name].append(distance)
            print(f"{name}, seed {seed}: FD {distance:.3f}", flush=True)
    table = {
        "network": network.name,
        "base": Path(args.base).name,
        "steps": args.steps,
        "batch": args.batch,
        "images": args.count,
        "fd": found,
    }
    (ROOT / "docs" / "cascade.json").write_text(json.dumps(table, indent=1) + "\n")
    print("| second stage | FD ↓ | deviation over seeds |\n| --- | ---: | ---: |")
    for name, values in found.items():
        spread = statistics.stdev(values) if len(values) > 1 else float("nan")
        print(f"| {name} | {statistics.mean(values):.2f} | {spread:.2f} |")


def first_stage(args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """The images that all variants enlarge, made once, and their classes."""
    kept = ROOT / "runs" / "cascade" / f"{Path(args.base).name}-{args.count}.npz"
    checkpoint = load_checkpoint(args.base)
    labels = labels_of(checkpoint, "balanced", np.arange(args.count))
    if not kept.exists():
        generator = Generator([checkpoint])
        batches = generator.batches(generator.stages(Drawing()), np.arange(args.count), labels)
        parts = [made[-1] for _, made in batches]
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(kept, images=np.concatenate(parts))
    with np.load(kept) as file:
        return file["images"], labels


def measured(
    place: Path,
    variant: Variant,
    seed: int,
    args: argparse.Namespace,
    network: classifier.ClassifierNetwork,
    reference: Reference,
    small: np.ndarray,
    labels: np.ndarray,
) -> float:
    """The distance of a variant's images; it is trained if it is not yet."""
    done = place / "fd.json"
    if done.exists():
        return float(json.loads(done.read_text())["fd"])
    config = runpy.run_path(str(CONFIG))["get_config"]()
    config.update_from_flattened_dict(variant.fields)
    config.seed, config.data.folder = seed, args.data
    config.train.steps, config.train.learning_rate_schedule = args.steps, "cosine"
    config.train.batch_size, config.train.warmup_steps = args.batch, args.steps // 10
    config.train.ema_decay, config.train.evaluate_every = 0.99, 1_000_000
    run.train(config, place)
    engine = Engine(load_checkpoint(place), 256)
    signals = {LABEL.name: labels.astype(np.float32)}
    if variant.augment:
        signals["augment"] = np.full(len(labels), variant.augment, np.float32)
    made = engine.batch(
        small / np.float32(127.5) - 1, range(len(small)), Sampling(sample=1), signals=signals
    )
    images = np.rint((np.clip(made, -1, 1) + 1) * 127.5).astype(np.uint8)
    distance = distributions.fid(distributions.statistics_of(network, images), reference)
    done.write_text(json.dumps({"fd": distance}))
    return distance


if __name__ == "__main__":
    main()
