"""Strict settings for every test, on 8 CPU devices.

Shapes are checked, nothing is promoted silently, and our own warnings are errors.
"""

import os
import sys
import tempfile
import warnings
from collections.abc import Iterator

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
# Compiling is most of what the tests do: without LLVM's expensive passes it takes less than half
# the time.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# What `sr3` compiles in processes of its own, not the user's
_CACHE = tempfile.TemporaryDirectory(prefix="sr3-tests-")
os.environ["XDG_CACHE_HOME"] = _CACHE.name

from jaxtyping import install_import_hook

# Before anything of ours is imported: every annotated function checks its shapes and dtypes.
install_import_hook("sr3_jax", "beartype.beartype")

import jax
import pytest
from absl import flags

if not flags.FLAGS.is_parsed():
    flags.FLAGS(sys.argv[:1])  # grain reads absl flags

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The fast tests come first: what is broken is known within two minutes."""
    items.sort(key=lambda item: item.get_closest_marker("fast") is None)


@pytest.fixture(autouse=True)
def _our_warnings_are_errors():
    with warnings.catch_warnings():
        warnings.filterwarnings("error", module=r"sr3_jax(\..*)?")
        yield


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """Chromium without a window."""
    from playwright.sync_api import sync_playwright

    from tests.browser import CHROMIUM, QUIET

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield found
        found.close()
