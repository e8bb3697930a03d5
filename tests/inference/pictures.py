"""Images to enlarge, and plans of what becomes of them."""

import numpy as np

from sr3_jax.images import arrays
from sr3_jax.inference import plan as planning
from sr3_jax.inference.plan import Naming
from sr3_jax.runtime.parallel import Shard

RNG = np.random.default_rng(0)
ALL = Shard()


def picture(path, size=8, channels=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays.write(path, RNG.integers(0, 256, (size, size, channels), np.uint8))
    return path


def make(folder, *names):
    return [picture(folder / name) for name in names]


def plan(inputs, output, samples=1, overwrite=False, uncertainty=False, shard=ALL):
    naming = Naming(samples=samples, uncertainty=uncertainty)
    jobs = planning.plan([str(name) for name in inputs], str(output), naming, shard).jobs
    if not overwrite:
        planning.check_new(jobs)
    return jobs
