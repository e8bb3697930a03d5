"""The TPU compiler, for tests: in processes of its own, where it is installed."""

from collections.abc import Mapping
from importlib.util import find_spec

import pytest

needs_compiler = pytest.mark.skipif(find_spec("libtpu") is None, reason="needs the extra [aot]")


def without_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without what the tests set for their own process."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(("JAX_", "XLA_", "TPU_"))
    }
