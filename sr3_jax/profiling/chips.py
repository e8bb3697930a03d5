"""TPU chips to compile for, without having them.

Their published figures, and the topologies (layouts of several chips) that the TPU compiler knows.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import NamedTuple

from sr3_jax.errors import UserError

GIB = 2**30
HOST = (2, 2, 1)  # the layout of one host's chips, as the compiler has it for all CHIPS


class Chip(NamedTuple):
    """The peak figures of one chip.

    They are from Google's pages on each TPU version. The clock follows from the peak and the number
    of matrix units.
    """

    flops: float  # dense bfloat16, per second
    hbm_bytes: int
    hbm_bandwidth: float  # bytes per second
    link_bandwidth: float  # bytes per second, all links to other chips together
    clock: float  # Hz, of the cycles that the compiler estimates
    options: dict[str, str]  # what a topology of such chips needs beside its name


CHIPS = {
    "v4": Chip(275e12, 32 * GIB, 1228e9, 300e9, 1.05e9, {"chip_config_name": "megacore"}),
    "v5e": Chip(197e12, 16 * GIB, 819e9, 200e9, 1.5e9, {}),
    "v5p": Chip(459e12, 95 * GIB, 2765e9, 600e9, 1.75e9, {}),
    "v6e": Chip(918e12, 32 * GIB, 1640e9, 448e9, 1.75e9, {}),
}


def parse(topology: str) -> tuple[Chip, int]:
    """The chip of a topology such as "v5e:4x8", and how many there are; raises UserError."""
    name, _, layout = topology.partition(":")
    if name not in CHIPS or not re.fullmatch(r"\d+(x\d+){1,2}", layout):
        examples = '"v5e:4x8", "v6e:16x16", "v4:2x2x4" or "v5p:4x4x4"'
        raise UserError(
            f"--topology={topology} is not known; it can be one of {', '.join(CHIPS)} "
            f"with its layout: {examples}"
        )
    return CHIPS[name], prod(map(int, layout.split("x")))


def one_host(topology: str) -> str:
    """The topology of one host of a slice, which to the compiler is a whole slice of its own."""
    name, _, layout = topology.partition(":")
    sizes = (min(int(size), most) for size, most in zip(layout.split("x"), HOST, strict=False))
    return f"{name}:{'x'.join(map(str, sizes))}"


def prepare_environment() -> None:
    """Sets environment variables so that the TPU compiler works without a TPU.

    Must be called before JAX starts. This machine then computes on its CPU, and the TPU compiler
    looks for no TPU.

    Raises:
      UserError: The TPU compiler (extra [aot]) is not installed.
    """
    from importlib.util import find_spec

    if find_spec("libtpu") is None:
        raise UserError("the TPU compiler is not installed: pip install 'sr3_jax[aot]'")
    settings = {
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # else a lock file stops a second process
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_STDERR_LOG_LEVEL": "3",
        "TPU_MIN_LOG_LEVEL": "3",
    }
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    os.environ["TPU_ACCELERATOR_TYPE"] = ""  # the topology says it
    # A program whose devices are not here can be written to the cache, but never read from it
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    import jax

    # JAX has read the environment if a config file was loaded before
    jax.config.update("jax_enable_compilation_cache", False)
    jax.config.update("jax_platforms", os.environ["JAX_PLATFORMS"])


def devices(topology: str) -> list:
    """The devices of a topology, to compile for; raises UserError if there is no such topology."""
    from jax.experimental import topologies

    chip, count = parse(topology)
    alone: dict = {"chips_per_host_bounds": (1, 1, 1)} if count == 1 else {}
    options = chip.options | alone
    try:
        with _silence():
            return list(topologies.get_topology_desc(topology, "tpu", **options).devices)
    except Exception as error:  # XLA's own, not exported under a stable name
        raise UserError(f"--topology={topology}: {' '.join(str(error).split())[:200]}") from error


@contextmanager
def _silence() -> Iterator[None]:
    """Drops what libtpu writes to file descriptor 2 (stderr) while it starts.

    It complains there that no TPU is attached.
    """
    keep = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(keep, 2)
            os.close(keep)
