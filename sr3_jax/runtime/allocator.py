"""How the C library hands out memory, on Linux: set once, before the first large array.

XLA on a CPU asks for all temporaries of a program each time it runs, hundreds of MB, and gives them
back. By default such a block comes fresh from the kernel each time, to be zeroed and mapped page by
page: a tenth of a training step. Kept within the process, it is mapped once.
"""

import ctypes
import os
import sys

# glibc's malloc.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8


def keep_memory() -> None:
    """Freed memory stays with the process.

    Does nothing without glibc, or where the user tunes malloc by its own variables.
    """
    if not sys.platform.startswith("linux") or any(
        name.startswith("MALLOC_") for name in os.environ
    ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return
    for parameter, value in (
        (M_ARENA_MAX, 1),  # the one that can grow as far as memory goes
        (M_MMAP_MAX, 0),
        (M_TRIM_THRESHOLD, 2**31 - 1),
        (M_TOP_PAD, 2**26),
    ):
        mallopt(parameter, value)
