"""Settings that must be made before JAX is imported: environment variables and memory.

Only the command `sr3` makes them; as a library, we leave the process as it is. What the user has
set in the environment is never changed.
"""

import contextlib
import os
import platform
import re
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from sr3_jax.runtime import allocator

if TYPE_CHECKING:
    from sr3_jax.runtime.paths import AnyPath

DEVICES, CPUINFO = Path("/dev"), Path("/proc/cpuinfo")
CACHE_BYTES = 4 * 2**30  # of compiled programs; above it, those used longest ago are dropped


def prepare() -> None:
    """Silences libraries, keeps freed memory, and keeps compiled programs for later processes."""
    defaults = {
        # messages of libraries at start-up are not for our users
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_ENABLE_ONEDNN_OPTS": "0",
        "EPATH_USE_TF": "false",  # one driver for buckets, that of the extra [gcs]
    }
    # Without a TPU, libtpu would complain if it is installed
    if not any(DEVICES.glob("accel*")) and not (DEVICES / "vfio").exists():
        defaults |= {
            "TPU_SKIP_MDS_QUERY": "1",
            "TPU_ACCELERATOR_TYPE": "v5litepod-1",
            "TPU_WORKER_HOSTNAMES": "localhost",
        }
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        # Without a home folder, or with one that cannot be written to, there is no cache
        with contextlib.suppress(OSError, RuntimeError):
            folder = cache_folder()
            folder.mkdir(parents=True, exist_ok=True)
            defaults |= {
                "JAX_COMPILATION_CACHE_DIR": str(folder),
                "JAX_COMPILATION_CACHE_MAX_SIZE": str(CACHE_BYTES),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
            }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    if not accelerated():
        allocator.keep_memory()


def accelerated() -> bool:
    """Whether JAX will compute on a TPU or GPU, as far as can be told before it is imported.

    There the C library's memory is that of decoders and checkpoints: many threads, and gigabytes
    that are needed for moments.
    """
    if os.environ.get("JAX_PLATFORMS", "").startswith("cpu"):
        return False
    return any(any(DEVICES.glob(name)) for name in ("accel*", "vfio", "nvidia[0-9]*"))


def share_programs(workdir: "AnyPath") -> None:
    """Lets the hosts of a cluster keep compiled programs in the workdir, which all of them see.

    In JAX only the first process writes them, so in folders of their own the other hosts would find
    none. Not on CPUs, since those of a cluster may differ in the instructions that a program was
    compiled for; and not if the user has chosen a folder.
    """
    import jax

    from sr3_jax.runtime.paths import is_remote

    ours = os.environ.get("JAX_COMPILATION_CACHE_DIR") == str(cache_folder())
    if ours and jax.process_count() > 1 and jax.default_backend() != "cpu":
        jax.config.update("jax_compilation_cache_dir", str(workdir / "compiled"))
        # a limit would need a lock on a file, which object stores do not have
        jax.config.update("jax_compilation_cache_max_size", -1)
        if is_remote(workdir):
            # XLA's own caches can only be local files
            jax.config.update("jax_persistent_cache_enable_xla_caches", "none")


def cache_folder() -> Path:
    """The folder where compiled programs are kept: one for each kind of CPU.

    A program for a CPU uses the instructions that this one has, and the hosts of a cluster, which
    may differ in them, often share a home.
    """
    return user_cache() / "compiled" / f"{zlib.crc32(_instructions().encode()):08x}"


def _instructions() -> str:
    """What says which instructions this machine's CPU has, or which kind of CPU it is."""
    with contextlib.suppress(OSError):
        found = re.search(r"^(?:flags|Features)\s*:(.*)$", CPUINFO.read_text(), re.MULTILINE)
        if found:
            return found[1]
    return platform.machine() + platform.processor()


def user_cache() -> Path:
    """The folder of this user for what can be made or fetched again."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "sr3_jax"
