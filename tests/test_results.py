"""What the pages of results say is what the JSON files hold.

Those were measured on the weights that are shipped.
"""

import importlib.util
import json
from pathlib import Path

import pytest

from sr3_jax.checkpoints.checkpoint import fingerprint
from sr3_jax.checkpoints.names import load_checkpoint
from sr3_jax.weights import shipped

pytestmark = pytest.mark.fast

ROOT = Path(__file__).parent.parent
RESULTS = sorted((ROOT / "docs" / "results").glob("*.json"))


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_are_what_their_scripts_write():
    assert (ROOT / "docs" / "results.md").read_text() == script("results").page()
    faces, photographs = script("ablations").page(), script("trials").section()
    assert (ROOT / "docs" / "ablations.md").read_text() == f"{faces}\n{photographs}"


@pytest.mark.parametrize("text", ["README.md", "docs/models.md"])
def test_marked_tables_are_what_make_results_writes(text):
    found = (ROOT / text).read_text()
    assert "<!-- results: " in found
    assert script("results").tables(found) == found


@pytest.fixture(scope="module")
def fingerprints():
    return {name: fingerprint(load_checkpoint(name)) for name in shipped()}


@pytest.mark.parametrize("file", RESULTS, ids=[file.stem for file in RESULTS])
def test_every_table_was_measured_on_the_weights_that_are_shipped(file, fingerprints):
    contenders = json.loads(file.read_text())["contenders"].values()
    ours = [about for about in contenders if about.get("checkpoint") in fingerprints]
    assert ours
    for about in ours:
        assert about["parameters"] == fingerprints[about["checkpoint"]], about
