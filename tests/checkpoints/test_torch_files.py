"""Weights that PyTorch saved are read without it, and without trust."""

import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from sr3_jax.checkpoints import torch_files
from sr3_jax.errors import UserError

PEERS = Path(__file__).parents[1] / "metrics" / "peers"
pytestmark = pytest.mark.fast


@pytest.mark.parametrize("name", ["new.pth", "old.pth"])
def test_both_formats_give_names_values_views_and_types(name):
    found = torch_files.load(PEERS / name)
    assert set(found) == {"a.weight", "a.bias", "half", "count", "parameter"}
    np.testing.assert_array_equal(found["a.weight"], np.arange(12).reshape(3, 4).T)
    np.testing.assert_array_equal(found["a.bias"], [2, 3, 4])
    np.testing.assert_array_equal(found["half"], np.linspace(0, 1, 5).astype(np.float16))
    assert found["count"] == 7
    assert (found["parameter"].dtype, found["parameter"].shape) == (np.float64, (2, 2))


def test_safetensors_are_read_too(tmp_path):
    from safetensors.numpy import save_file

    save_file({"a": np.arange(3.0)}, tmp_path / "a.safetensors")
    np.testing.assert_array_equal(torch_files.load(tmp_path / "a.safetensors")["a"], [0, 1, 2])


class Malicious:
    def __reduce__(self):
        return os.system, ("touch /nowhere",)


def test_a_file_that_wants_to_run_something_is_refused(tmp_path):
    old = tmp_path / "old.pth"
    old.write_bytes(
        pickle.dumps(torch_files.MAGIC)
        + pickle.dumps(1001)
        + pickle.dumps({})
        + pickle.dumps(Malicious())
    )
    new = tmp_path / "new.pth"
    with zipfile.ZipFile(new, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps(Malicious()))
    for path in (old, new):
        with pytest.raises(UserError, match=r"cannot be read safely|can be read safely"):
            torch_files.load(path)


@pytest.mark.parametrize("name", ["new.pth", "old.pth"])
def test_a_truncated_or_damaged_file_is_named(tmp_path, name):
    whole = (PEERS / name).read_bytes()
    path = tmp_path / name
    rng = np.random.default_rng(0)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=name):
        torch_files.load(path)
    for _ in range(200):  # a change may go unnoticed, but it ends in nothing else
        changed = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            changed[place] = rng.integers(256)
        path.write_bytes(bytes(changed))
        try:
            torch_files.load(path)
        except UserError as error:
            assert "\n" not in str(error)  # noqa: PT017


def test_what_is_no_such_file_is_one_sentence(tmp_path):
    for path, data in ((tmp_path / "text.pth", b"hello"), (tmp_path / "empty.pth", b"")):
        path.write_bytes(data)
        with pytest.raises(UserError, match=path.name):
            torch_files.load(path)
    with pytest.raises(UserError, match="cannot be read"):
        torch_files.load(tmp_path)


def test_weights_of_another_network_are_named_with_the_first_difference(tmp_path):
    weights = {"a": np.zeros((2, 3)), "b": np.zeros(2)}
    assert torch_files.require(weights, {"a": (2, 3)}, Path("x.pth"), "it")["a"].dtype == np.float32
    with pytest.raises(UserError, match=r"x\.pth is not of it: it has no c"):
        torch_files.require(weights, {"a": (2, 3), "c": (1,)}, Path("x.pth"), "it")
    with pytest.raises(UserError, match=r"a has the shape \(2, 3\), not \(3, 2\)"):
        torch_files.require(weights, {"a": (3, 2)}, Path("x.pth"), "it")
