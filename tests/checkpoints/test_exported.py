"""What an exported file may hold, and where schedules that were searched for are kept."""

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from sr3_jax.checkpoints import names
from sr3_jax.checkpoints.checkpoint import CheckpointError
from sr3_jax.checkpoints.exported import export, load_export
from tests.tiny import tiny_checkpoint


def _broken(flat, about):
    int8 = next(key for key, leaf in flat.items() if leaf.dtype == np.int8)
    scale = int8 + ":scale"
    plain = next(key for key in flat if key not in (int8, scale) and not key.endswith(":scale"))
    return {
        "not finite": (flat | {scale: flat[scale] * np.float32(np.nan)}, about),
        f"{plain} has values that are not finite": (
            flat | {plain: np.full(flat[plain].shape, np.inf, np.float32)},
            about,
        ),
        "whole numbers without a scale": (
            {key: leaf for key, leaf in flat.items() if key != scale},
            about,
        ),
        ":scale has shape": (flat | {scale: flat[scale][:1]}, about),
        "a scale of nothing": (flat | {"no/kernel:scale": flat[scale]}, about),
        "its step is 'abc'": (flat, about | {"step": "abc"}),
        "is not what `sr3 search` writes": (flat, about | {"schedules": '{"8": {"rho": "x"}}'}),
        "`sr3 search` writes: .*rho": (flat, about | {"schedules": '{"8": {"rho": -1.0}}'}),
    }


@pytest.mark.parametrize("case", range(8))
def test_weights_that_can_be_none_and_nonsense_beside_them_are_refused_by_name(tmp_path, case):
    export(tiny_checkpoint(), tmp_path / "a.safetensors", dtype="int8")
    with safe_open(tmp_path / "a.safetensors", framework="numpy") as file:
        about = file.metadata()
        flat = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    words, (flat, about) = list(_broken(flat, about).items())[case]
    save_file(flat, tmp_path / "b.safetensors", metadata=about)
    with pytest.raises(CheckpointError, match=words) as caught:
        load_export(tmp_path / "b.safetensors", "b")
    assert str(tmp_path / "b.safetensors") in str(caught.value)


def test_what_a_search_finds_for_shipped_weights_goes_to_the_users_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    shipped = names.read_schedules("faces-16-64")
    file = names.schedules_file("faces-16-64")
    assert file == tmp_path / "sr3_jax" / "faces-16-64.schedules.json"
    file.parent.mkdir()
    file.write_text('{"3": {"rho": 5.0}}')
    assert names.read_schedules("faces-16-64") == {**shipped, "3": {"rho": 5.0}}
