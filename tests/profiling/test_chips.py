"""The slices that the TPU compiler knows."""

import json
import os
import subprocess
import sys

import pytest

from sr3_jax.errors import UserError
from sr3_jax.profiling import chips
from tests.profiling.compiler import needs_compiler, without_settings

SLICES = {  # devices, hosts
    "v5e:1x1": (1, 1),
    "v5e:2x2": (4, 1),
    "v5e:4x8": (32, 8),
    "v5e:16x16": (256, 64),
    "v6e:1x1": (1, 1),
    "v6e:2x4": (8, 2),
    "v6e:16x16": (256, 64),
    "v4:1x1x1": (1, 1),
    "v4:2x2x1": (4, 1),
    "v4:2x2x4": (16, 4),
    "v5p:1x1x1": (1, 1),
    "v5p:2x2x2": (8, 2),
    "v5p:4x4x4": (64, 16),
}
PROGRAM = """
import json, sys
from sr3_jax.profiling import chips
chips.prepare_environment()
import jax
found = {name: [device.process_index for device in chips.devices(name)] for name in sys.argv[1:]}
try:
    chips.devices("v5e:3x3")
except chips.UserError as error:
    refused = str(error)
counts = {name: (len(hosts), len(set(hosts))) for name, hosts in found.items()}
print(json.dumps([counts, refused, jax.config.jax_enable_compilation_cache]))
"""


@needs_compiler
def test_every_kind_of_chip_has_its_slices():
    environment = without_settings(os.environ) | {"JAX_ENABLE_COMPILATION_CACHE": "true"}
    command = [sys.executable, "-c", PROGRAM, *SLICES]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    counts, refused, cached = json.loads(done.stdout.splitlines()[-1])
    assert {name: tuple(count) for name, count in counts.items()} == SLICES
    assert refused.startswith("--topology=v5e:3x3: ")
    assert "divisible" in refused
    assert not cached, "these programs cannot be read back"


@pytest.mark.fast
@pytest.mark.parametrize("topology", ["v3:2x2", "v5e", "v5e:", "v5e:4", "v5e:4xa", "v5e:2x2x2x2"])
def test_an_unknown_topology_names_the_known_ones(topology):
    with pytest.raises(UserError, match=r"v4, v5e, v5p, v6e.*v5e:4x8"):
        chips.parse(topology)


@pytest.mark.fast
def test_one_host_of_a_slice():
    found = {
        name: chips.one_host(name)
        for name in ("v5e:1x1", "v5e:2x2", "v5e:4x8", "v4:2x2x4", "v5p:1x1x1")
    }
    assert list(found.values()) == ["v5e:1x1", "v5e:2x2", "v5e:2x2", "v4:2x2x1", "v5p:1x1x1"]
