"""Runs of the tiny config, here and in processes of their own, which share compiled programs."""

import os
import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from sr3_jax.runtime import parallel
from sr3_jax.training import log
from sr3_jax.training import run as runs
from tests import tiny


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """The folder of compiled programs: one for all processes of a test session."""
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "compiled"
    folder.mkdir(exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    compilation_cache.reset_cache()  # JAX looks at these once
    return folder


@pytest.fixture(autouse=True)
def _optax_promotes():
    """Adam multiplies its step count, an integer, with floats."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def _run(workdir, fields=(), *, mesh=None, scores=()):
    """Trains in this process; returns the state, the image ids seen, and what was evaluated.

    `mesh` replaces the config's, for some of the devices; `scores` are the PSNRs that the
    evaluations find.
    """
    config = tiny.get_config()
    config.update_from_flattened_dict(dict(fields))
    found = SimpleNamespace(workdir=workdir, config=config, ids=[], evaluated=[])
    psnr = iter(scores)

    class Recorded(runs.Batches):
        def __next__(self):
            batch = super().__next__()
            found.ids.append(batch.number.tolist())
            return batch

    def evaluate(params):
        found.evaluated.append(jax.device_get(params))
        return {"psnr": next(psnr, 10.0)}, np.full((4, 4, 1), 10 * len(found.evaluated), np.uint8)

    with pytest.MonkeyPatch.context() as patch, jax.numpy_dtype_promotion("standard"):
        patch.setattr(runs, "Batches", Recorded)
        # TensorFlow takes seconds to import
        patch.setattr(log, "_tensorboard", lambda workdir: None)
        if mesh:
            patch.setattr(parallel, "make_mesh", lambda config: mesh)
        found.state = runs.train(config, workdir, evaluate)
    return found


@pytest.fixture(scope="session")
def run(cache):
    return _run


@pytest.fixture(scope="session")
def six(run, tmp_path_factory):
    """Six steps on eight devices, checkpoints at 3 and 6, evaluations at 2, 4 and 6.

    Copy the workdir before you change it.
    """
    return run(tmp_path_factory.mktemp("six") / "workdir", {"train.evaluate_every": 2})


@pytest.fixture
def sr3(cache, tmp_path_factory):
    """sr3(*arguments, **variables) is that command in a process of its own, with one device."""
    without_tensorboard = tmp_path_factory.mktemp("path")
    (without_tensorboard / "tensorflow.py").write_text('raise ImportError("seconds, for nothing")')
    environment = os.environ | {
        "JAX_NUM_CPU_DEVICES": "1",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": str(without_tensorboard),
    }
    running = []

    def begin(*arguments, largest_file=0, **variables):
        command = ["-m", "sr3_jax"]
        if largest_file:  # in bytes, as if the disk took no more
            limit = f"resource.setrlimit(resource.RLIMIT_FSIZE, ({largest_file}, {largest_file}))"
            command = [
                "-c",
                f"import resource, sys, sr3_jax.cli; {limit}; sys.exit(sr3_jax.cli.main())",
            ]
        command = [sys.executable, *command, *map(str, arguments)]
        process = subprocess.Popen(
            command,
            env=environment | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.communicate()


@pytest.fixture
def start(sr3):
    """start(workdir, *flags) is `sr3 train` of the tiny config."""

    def begin(workdir, *flags, **options):
        return sr3("train", f"--config={tiny.__file__}", f"--workdir={workdir}", *flags, **options)

    return begin
