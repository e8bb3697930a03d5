"""What this process may use: of the machine, or less in a container."""

import os
from pathlib import Path

import psutil

CGROUPS = Path("/sys/fs/cgroup")


def memory() -> int:
    """Bytes of memory of this machine, or of the container that limits this process."""
    found = [psutil.virtual_memory().total]
    # Of the second and the first version of control groups
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            found.append(int((CGROUPS / name).read_text()))
        except (OSError, ValueError):  # there is none, or it is "max"
            continue
    return min(found)


def cores() -> int:
    """Cores that this process may keep busy, at least 1."""
    count = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    try:
        quota, period = map(int, (CGROUPS / "cpu.max").read_text().split())
    except (OSError, ValueError):  # there is none, or it is "max"
        return count
    return max(1, min(count, quota // period))
