"""How much memory this process may use: the machine's, or less in a container."""

from pathlib import Path

import psutil

CGROUPS = Path("/sys/fs/cgroup")
# Of the second and the first version of control groups
_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")


def total() -> int:
    """Bytes of memory of this machine, or of the container that limits this process."""
    found = [psutil.virtual_memory().total]
    for name in _LIMITS:
        try:
            found.append(int((CGROUPS / name).read_text()))
        except (OSError, ValueError):  # there is none, or it is "max"
            continue
    return min(found)
