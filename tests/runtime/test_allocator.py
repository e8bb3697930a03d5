"""Freed memory stays with the process: the second large array costs the kernel nothing."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.fast

FAULTS_OF_THE_SECOND_ARRAY = """
import resource
import numpy as np
from sr3_jax.runtime import allocator
if {keep}:
    allocator.keep_memory()
np.ones(2**26, np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(2**26, np.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(keep, **environment):
    code = FAULTS_OF_THE_SECOND_ARRAY.format(keep=keep)
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return int(result.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_the_second_large_array_is_not_mapped_again():
    without = faults(False)
    if without < 100:
        pytest.skip("this system maps 64 MB without page faults")
    assert faults(True) < without / 10


def test_the_users_own_settings_are_left_alone():
    assert faults(True, MALLOC_ARENA_MAX="2") >= faults(False) / 2
