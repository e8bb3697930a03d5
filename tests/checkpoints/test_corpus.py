"""Exports with damaged headers that the fuzzer found (benchmarks/fuzz.py)."""

from pathlib import Path

import pytest

from sr3_jax.checkpoints.exported import load_export
from sr3_jax.errors import UserError

pytestmark = pytest.mark.fast

CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())


def test_each_is_read_or_refused_in_one_sentence_that_names_it():
    refused = []
    for path in CORPUS:
        try:
            load_export(path, "a name")
        except UserError as refusal:
            refused.append(str(refusal))
    assert len(refused) >= 5
    assert all("corpus" in sentence and "\n" not in sentence for sentence in refused)
