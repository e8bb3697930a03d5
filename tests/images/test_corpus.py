"""Damaged files that the fuzzer found (benchmarks/fuzz.py), each of another outcome."""

from pathlib import Path

import numpy as np
import pytest

from sr3_jax.errors import UserError
from sr3_jax.images import files
from sr3_jax.images.formats import FORMATS, check_size

pytestmark = pytest.mark.fast

CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about what it leaves out
@pytest.mark.parametrize("kind", sorted({path.name.partition("-")[0] for path in CORPUS}))
def test_each_is_read_and_can_be_written_or_refused_in_one_sentence_that_names_it(kind):
    read, refused = 0, list[str]()
    for path in CORPUS:
        if not path.name.startswith(f"{kind}-"):
            continue
        try:
            height, width = files.header(path.read_bytes(), "photo")
            if height * width > 10**6:
                continue
            found = files.parse(path.read_bytes(), "photo")
        except UserError as refusal:
            refused.append(str(refusal))
            continue
        read += 1
        assert np.isfinite(found.picture.colour).all(), path
        for form in FORMATS.values():
            try:
                check_size(form, *found.picture.colour.shape[:2], "photo")
            except UserError:
                continue
            files.encode(found.picture, form, found.metadata)
    assert read + len(refused) >= 1
    assert all("photo" in sentence and "\n" not in sentence for sentence in refused)
