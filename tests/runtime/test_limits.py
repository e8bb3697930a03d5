"""A container's limits are the machine's."""

import psutil
import pytest

from sr3_jax.runtime import limits

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("files", "memory", "cores"),
    [
        ({}, None, None),
        ({"memory.max": "max\n", "cpu.max": "max 100000\n"}, None, None),
        ({"memory.max": "1073741824\n", "cpu.max": "100000 100000\n"}, 2**30, 1),
        ({"memory/memory.limit_in_bytes": "4096\n", "cpu.max": "20000 100000\n"}, 4096, 1),
        ({"memory.max": "9223372036854771712\n"}, None, None),
    ],
)
def test_the_smaller_of_machine_and_container_counts(tmp_path, monkeypatch, files, memory, cores):
    there = limits.cores()
    monkeypatch.setattr(limits, "CGROUPS", tmp_path)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert limits.memory() == (memory or psutil.virtual_memory().total)
    assert limits.cores() == (cores or limits.cores())
    assert limits.cores() <= max(there, 1)
