"""What the blind corruption costs of a training step.

    python benchmarks/corruption.py [--config=configs/photos_4x_blind.py] [--repeats=12]

Two training steps take turns, so that whatever else the machine does slows both: the config's, and
the same with nothing but the bicubic reduction. Medians and their ratio are printed. Both networks
are told the same signals, so they are one network.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from sr3_jax.cli import configs
from sr3_jax.runtime import parallel
from sr3_jax.tasks import TASKS
from sr3_jax.tasks.blind import Blind
from sr3_jax.tasks.task import Given
from sr3_jax.training.step import Rows, training_program


class OnlyReduced(Blind):
    """The same signals, of images that are only reduced; nothing is drawn."""

    def corrupt(self, image, key=None, *, train=False):
        told = {signal.name: jnp.zeros(len(image)) for signal in self.signals if signal.removed}
        return Given(super().corrupt(image).image, told)


TASKS["only reduced"] = OnlyReduced


def seconds(step, state, images):
    started = time.perf_counter()
    state, metrics = step(state, images)
    jax.block_until_ready((state, metrics))
    return state, time.perf_counter() - started


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="configs/photos_4x_blind.py")
    parser.add_argument("--repeats", type=int, default=12)
    args = parser.parse_args()
    config = configs.load([f"--config={args.config}"], "corruption")
    parallel.start(config)
    mesh = parallel.make_mesh(config)
    shape = (config.train.batch_size, config.data.hr_size, config.data.hr_size, 3)
    images = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    batch = parallel.to_devices(Rows(images), mesh)
    runs = {}
    for name in ("blind", "only reduced"):
        config.task.kind = name
        program = training_program(config, mesh)
        step, state = program.lower().compile(), program.init()
        runs[name] = (step, seconds(step, state, batch)[0])
    times = {name: [] for name in runs}
    for _ in range(args.repeats):
        for name, (step, state) in runs.items():
            state, taken = seconds(step, state, batch)
            runs[name] = (step, state)
            times[name].append(taken)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, median in medians.items():
        print(f"{name}: {1e3 * median:.0f} ms a step")
    print(f"{medians['blind'] / medians['only reduced'] - 1:+.1%}")


if __name__ == "__main__":
    main()
