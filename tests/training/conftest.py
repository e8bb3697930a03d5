"""A network that compiles in seconds, and runs of it."""

import hashlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "orl_16_64.py"
TINY = {
    "model.channels": 8,
    "model.multipliers": (1, 2),
    "model.blocks": 1,
    "train.batch_size": 8,
    "train.steps": 6,
    "train.log_every": 1,
    "train.checkpoint_every": 3,
    "train.evaluate_every": 1_000_000,
    "train.warmup_steps": 2,
}


def _tiny(**overrides):
    spec = importlib.util.spec_from_file_location("orl", CONFIG)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config()
    for field, value in (TINY | {name.replace("__", "."): value for name, value in overrides.items()}).items():
        node = config
        *parents, last = field.split(".")
        for parent in parents:
            node = node[parent]
        node[last] = value
    return config


@pytest.fixture(autouse=True)
def _optax_promotes():
    """Adam multiplies its step count, an integer, with floats."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def tiny():
    """tiny(train__steps=3) is the tiny config with train.steps = 3."""
    return _tiny


@pytest.fixture
def digest():
    """A fingerprint of all arrays of a tree, to the bit."""

    def of(tree):
        return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree))).hexdigest()

    return of


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """Compiled programs, shared by the processes that the tests start."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def start(cache):
    """start(workdir, **overrides) runs the tiny `sr3 train` in a process of its own, as a user does."""
    running = []

    def run(workdir, code="from sr3_jax.cli import main; import sys; sys.exit(main())", **overrides):
        fields = TINY | {name.replace("__", "."): value for name, value in overrides.items()}
        arguments = [
            f"--config={CONFIG}",
            f"--workdir={workdir}",
            *(f"--config.{name}={value}" for name, value in fields.items()),
        ]
        settings = {
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": "1",
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "PYTHONUNBUFFERED": "1",
        }
        process = subprocess.Popen(
            [sys.executable, "-c", code, "train", *arguments],
            env=os.environ | settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield run
    for process in running:
        process.kill()
        process.wait()
