"""How the C library allocates memory, on Linux: set once, before the first large array.

Each time a program of XLA runs on a CPU, it allocates all its temporaries, hundreds of MB, and
frees them afterwards. By default the kernel provides such a block anew each time, zeroed and mapped
page by page, which takes a tenth of a training step. Memory that the process keeps is mapped once.
"""

import ctypes
import os
import sys

# glibc's malloc.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8


def keep_memory() -> None:
    """Makes freed memory stay with the process.

    Does nothing without glibc, or if the user has set malloc's own environment variables.
    """
    if not sys.platform.startswith("linux") or any(
        name.startswith("MALLOC_") for name in os.environ
    ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return
    for parameter, value in (
        (M_ARENA_MAX, 1),  # only the main arena, the one that can grow as far as there is memory
        (M_MMAP_MAX, 0),
        (M_TRIM_THRESHOLD, 2**31 - 1),
        (M_TOP_PAD, 2**26),
    ):
        mallopt(parameter, value)
