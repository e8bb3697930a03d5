"""What was saved comes back to the bit.

What is missing, damaged or foreign is told in one sentence, and nothing is lost.
"""

import dataclasses
import errno
import functools
import json
import os
import shutil
import stat
from typing import NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jaxtyping import PyTree
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from sr3_jax import config
from sr3_jax.checkpoints import exported as exported_files
from sr3_jax.checkpoints.checkpoint import CheckpointError
from sr3_jax.checkpoints.exported import best_psnr, export
from sr3_jax.checkpoints.names import load_checkpoint
from sr3_jax.checkpoints.workdir import (
    Checkpoints,
    complete_steps,
    open_workdir,
    read_config,
    write_config,
)
from sr3_jax.errors import UserError
from sr3_jax.runtime import atomic, parallel
from sr3_jax.weights import shipped
from tests.tiny import (
    abstract_state,
    assert_same_bits,
    contents,
    get_config,
    mesh_of,
    random_state,
    read_state,
    save,
)

# What is still being read when one read fails ends in complaints that the garbage collector finds.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def one():
    return mesh_of(jax.devices()[:1])


@functools.cache
def state_of(step):
    return random_state(get_config(), one(), step)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A workdir with checkpoints of steps 3 and 5."""
    workdir = tmp_path_factory.mktemp("saved")
    open_workdir(workdir, get_config())
    save(workdir, get_config(), state_of(3), state_of(5))
    return workdir


@pytest.fixture
def workdir(saved, tmp_path):
    """A copy of it, to be spoilt."""
    return shutil.copytree(saved, tmp_path / "workdir")


@pytest.fixture(scope="module")
def exported(saved, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "weights.safetensors"
    export(load_checkpoint(saved), path)
    return path


def error_of(place) -> str:
    with pytest.raises(CheckpointError) as raised:
        load_checkpoint(place)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def rewrite(path, target, *, rename=lambda name: name, **metadata):
    """An export with other metadata or names; None removes an entry."""
    with safe_open(path, framework="numpy") as file:
        old = file.metadata()
    metadata = {key: value for key, value in (old | metadata).items() if value is not None}
    save_file(
        {rename(name): leaf for name, leaf in load_file(path).items()}, target, metadata=metadata
    )


# -- a workdir


def test_what_was_saved_on_eight_devices_comes_back_on_four_and_on_one_to_the_bit(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(parallel, "SMALLEST_SHARDED", 64)
    config = get_config()
    state = random_state(config, mesh_of(jax.devices(), fsdp=4), 7)
    assert any(not leaf.is_fully_replicated for leaf in jax.tree.leaves(state.ema))
    save(tmp_path, config, state)
    reader = Checkpoints(tmp_path, config)
    for mesh in (mesh_of(jax.devices()[:4], fsdp=2), mesh_of(jax.devices()[:1])):
        abstract = abstract_state(config, mesh)
        found, position = reader.restore(abstract)
        assert_same_bits(found, state)
        assert position == 7
        assert jax.tree.map(lambda leaf: leaf.sharding, found) == jax.tree.map(
            lambda leaf: leaf.sharding, abstract
        )
    reader.close()


def test_a_workdir_means_its_latest_step_a_step_itself_and_both_the_ema(saved):
    latest, third = load_checkpoint(saved), load_checkpoint(saved / "checkpoints" / "3")
    assert_same_bits(latest.params, state_of(5).ema)
    assert_same_bits(third.params, state_of(3).ema)
    assert (latest.step, third.step) == (5, 3)
    assert config.differences(latest.config, get_config()) == []


def test_a_workdir_may_be_called_2024_and_be_relative(saved, tmp_path, monkeypatch):
    shutil.copytree(saved, tmp_path / "2024")
    monkeypatch.chdir(tmp_path)
    assert load_checkpoint("2024").step == 5
    assert load_checkpoint("2024/checkpoints/3").step == 3
    monkeypatch.chdir(tmp_path / "2024")
    assert load_checkpoint(".").step == 5


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    config = get_config()
    config.train.keep_checkpoints = 2
    save(tmp_path, config, *(state_of(step) for step in (1, 2, 3)))
    assert complete_steps(tmp_path) == [2, 3]


@pytest.mark.parametrize("suffix", ["", "-1700000000"])
def test_what_a_kill_in_mid_save_left_is_never_read_and_is_cleared_away(workdir, suffix):
    left = shutil.copytree(
        workdir / "checkpoints" / "5", workdir / "checkpoints" / f"9.orbax-checkpoint-tmp{suffix}"
    )
    (left / "ema" / "manifest.ocdbt").unlink()
    assert load_checkpoint(workdir).step == 5
    writer = Checkpoints(workdir, get_config())
    assert writer.latest() == 5
    assert_same_bits(writer.restore(abstract_state(get_config(), one()))[0], state_of(5))
    again = state_of(9)
    writer.save(again, 9)
    writer.close()
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["3", "5", "9"]
    assert_same_bits(load_checkpoint(workdir).params, again.ema)


@pytest.mark.parametrize(
    "damage",
    [lambda data: data[: len(data) // 2], lambda data: bytes(len(data)), lambda data: b"", None],
)
@pytest.mark.parametrize("item", ["ema", "state"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_still_loads(workdir, item, damage):
    # all of them: which one holds what depends on how the writer's threads met
    for path in [
        path for path in (workdir / "checkpoints" / "5" / item).rglob("d/*") if path.is_file()
    ]:
        path.write_bytes(damage(path.read_bytes())) if damage else path.unlink()
    reader = Checkpoints(workdir, get_config())
    with pytest.raises(
        CheckpointError, match=r"5 is damaged or of another network: .*; remove that folder"
    ) as raised:
        reader.restore(abstract_state(get_config(), one()))
    assert "\n" not in str(raised.value)
    assert int(reader.restore(abstract_state(get_config(), one()), 3)[0].step) == 3
    reader.close()
    if item == "ema":
        assert f"{workdir / 'checkpoints' / '5'} is damaged" in error_of(workdir)
    else:  # all that is needed for upscaling is there
        assert_same_bits(load_checkpoint(workdir).params, state_of(5).ema)


def test_a_damaged_config_inside_a_checkpoint_is_told_in_one_sentence(workdir):
    path = workdir / "checkpoints" / "5" / "meta" / "metadata"
    path.write_text(path.read_text()[:100])
    assert "5 is damaged" in error_of(workdir)


def test_a_checkpoint_of_another_network_does_not_restore(saved):
    config = get_config()
    config.model.channels = 16
    reader = Checkpoints(saved, config)
    with pytest.raises(CheckpointError, match="5 is damaged or of another network"):
        reader.restore(abstract_state(config, one()))
    reader.close()


# -- config.json


@pytest.mark.fast
def test_lengths_intervals_and_devices_may_change_and_the_new_ones_are_noted_when_the_run_has_been_restored(  # noqa: E501
    tmp_path,
):
    open_workdir(tmp_path, get_config())
    config = get_config()
    config.train.steps, config.train.log_every, config.train.keep_checkpoints, config.mesh.fsdp = (
        99,
        7,
        1,
        2,
    )
    open_workdir(tmp_path, config)
    assert read_config(tmp_path / "config.json") == get_config()
    write_config(tmp_path, config)
    assert read_config(tmp_path / "config.json") == config


@pytest.mark.fast
def test_another_experiment_is_refused_with_each_field_and_both_values_and_nothing_is_touched(
    tmp_path,
):
    open_workdir(tmp_path, get_config())
    before = contents(tmp_path)
    config = get_config()
    config.train.steps, config.model.channels, config.train.learning_rate = 99, 16, 0.5
    with pytest.raises(CheckpointError) as raised:
        open_workdir(tmp_path, config)
    assert "model.channels: 16 here, 8 there; train.learning_rate: 0.5 here, 0.001 there;" in str(
        raised.value
    )
    assert "train.steps" not in str(raised.value)
    assert contents(tmp_path) == before


@pytest.mark.fast
@pytest.mark.parametrize("name", ["parameters.txt", "stats.jsonl", "best.safetensors"])
def test_a_folder_of_somebody_else_is_refused_and_keeps_its_files(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(
        CheckpointError, match=f"holds {name} but no config.json.*use another --workdir"
    ):
        open_workdir(tmp_path, get_config())
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: "mine"}


@pytest.mark.fast
@pytest.mark.parametrize("text", ['{"seed": 0', "[]", '{"train": {"stepz": 1}}', ""])
def test_an_unreadable_config_is_named_and_left_alone(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json is not a readable config"):
        open_workdir(tmp_path, get_config())
    assert (tmp_path / "config.json").read_text() == text


@pytest.mark.fast
def test_a_workdir_that_is_a_file_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="cannot be written"):
            open_workdir(place, get_config())
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.fast
def test_text_appears_whole_or_not_at_all_with_the_usual_permissions(tmp_path, monkeypatch):
    path = tmp_path / "config.json"
    atomic.write_text(path, "old")
    (tmp_path / "plain").write_text("")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)

    with atomic.replacing(tmp_path / "network") as temporary:  # as safetensors does
        temporary.unlink()
        temporary.touch(0o600)
    assert (tmp_path / "network").stat().st_mode == path.stat().st_mode
    (tmp_path / "network").unlink()

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        atomic.write_text(path, "new")
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {
        "config.json": "old",
        "plain": "",
    }


# -- exported files


def test_an_export_comes_back_to_the_bit_and_in_half_the_size_to_eight_bits(
    saved, exported, tmp_path
):
    original, again = load_checkpoint(saved), load_checkpoint(exported)
    assert_same_bits(again.params, original.params)
    assert (again.config.to_dict(), again.step) == (original.config.to_dict(), 5)
    small = tmp_path / "folder" / "model.safetensors"
    export(original, small, dtype="bfloat16")
    assert small.stat().st_size < 0.6 * exported.stat().st_size
    rounded = load_checkpoint(tmp_path / "folder")
    for leaf, exact in zip(
        jax.tree.leaves(rounded.params), jax.tree.leaves(original.params), strict=True
    ):
        assert leaf.dtype == np.float32
        np.testing.assert_allclose(leaf, exact, rtol=1 / 256)
        assert (np.asarray(leaf) != np.asarray(exact)).any()


def test_eight_bit_kernels_are_within_half_a_step_of_each_output_channel(saved, tmp_path):
    original = load_checkpoint(saved)
    export(original, tmp_path / "small.safetensors", dtype="int8")
    again = load_checkpoint(tmp_path / "small.safetensors")
    assert jax.tree.structure(again.params) == jax.tree.structure(original.params)
    for leaf, exact in zip(
        jax.tree.leaves(again.params), jax.tree.leaves(original.params), strict=True
    ):
        assert leaf.dtype == np.float32
        largest = (
            np.abs(exact).max(axis=tuple(range(exact.ndim - 1)))
            if exact.ndim > 1
            else np.abs(exact)
        )
        assert np.all(
            np.abs(leaf - exact) <= largest * (0.501 / 127 if exact.ndim > 1 else 1 / 256)
        )


def test_an_export_keeps_its_data_card_and_one_without_it_loads_as_well(exported, tmp_path):
    assert load_checkpoint(exported).data_card == ""
    card = "# Data\n\nMy photographs × 3.\n"
    export(
        dataclasses.replace(load_checkpoint(exported), data_card=card),
        tmp_path / "card.safetensors",
    )
    export(load_checkpoint(tmp_path / "card.safetensors"), tmp_path / "again.safetensors")
    again = load_checkpoint(tmp_path / "again.safetensors")
    assert again.data_card == card
    assert_same_bits(again.params, load_checkpoint(exported).params)


def test_an_export_that_fails_half_way_leaves_the_old_file_and_no_other(
    saved, exported, tmp_path, monkeypatch
):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(exported.read_bytes())

    def full(weights, kind):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(exported_files, "_stored", full)  # after the header
    with pytest.raises(
        UserError, match=r"weights\.safetensors cannot be written: No space left on device"
    ):
        export(load_checkpoint(saved), path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {
        "weights.safetensors": exported.read_bytes()
    }


@pytest.mark.fast
def test_a_missing_checkpoint_names_the_place_and_what_is_shipped(tmp_path):
    message = error_of(tmp_path / "nowhere")
    assert repr(str(tmp_path / "nowhere")) in message
    assert all(name in message for name in shipped())


@pytest.mark.fast
@pytest.mark.parametrize("make", [lambda path: None, lambda path: (path / "checkpoints").mkdir()])
def test_a_folder_without_checkpoints_tells_where_it_looked(tmp_path, make):
    make(tmp_path)
    message = error_of(tmp_path)
    assert f"{tmp_path} holds no checkpoint" in message
    assert f"{tmp_path}/checkpoints/STEP" in message


@pytest.mark.parametrize("length", [0, 4, 100, 5000, -1])
def test_a_truncated_export_is_named(exported, tmp_path, length):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(exported.read_bytes()[:length])
    assert f"{path} is not a complete .safetensors file" in error_of(path)


def test_a_file_that_is_no_export_is_named(exported, tmp_path):
    path = tmp_path / "other.safetensors"
    path.write_bytes(b"\x89PNG" * 1000)
    assert f"{path} is not a complete .safetensors file" in error_of(path)
    rewrite(exported, path, config=None)
    assert f"{path} carries no config" in error_of(path)


@pytest.mark.parametrize("text", ["{", "[1]", '{"model": {"wings": 2}}'])
def test_an_export_with_a_config_of_another_version_or_none_is_one_sentence(
    exported, tmp_path, text
):
    rewrite(exported, tmp_path / "other.safetensors", config=text)
    with pytest.raises(UserError, match=r"this (checkpoint's )?config") as raised:
        load_checkpoint(tmp_path / "other.safetensors")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": {"channels": 0}}, "model.channels = 0 must lie between 2 and 32768"),
        ({"model": {"channels": None}}, "model.channels = None must have a value"),
        ({"objective": "guess"}, "objective = 'guess' is not known"),
        (
            {"schedule": {"name": "cosine", "log_snr_start": 80.0}},
            "schedule.log_snr_start = 80.0 must lie between -15 and 15",
        ),
    ],
)
def test_a_config_with_a_bad_value_is_told_with_the_file_it_is_in(
    exported, workdir, tmp_path, change, words
):
    rewrite(exported, tmp_path / "other.safetensors", config=json.dumps(change))
    assert error_of(tmp_path / "other.safetensors").startswith(
        f"{tmp_path / 'other.safetensors'}: {words}"
    )

    meta = workdir / "checkpoints" / "5" / "meta" / "metadata"
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"config": change}))
    assert error_of(workdir).startswith(f"{workdir / 'checkpoints' / '5'}: {words}")


def test_weights_of_another_network_name_the_parameter_and_both_shapes(exported, tmp_path):
    path = tmp_path / "other.safetensors"
    wider = json.loads(config.to_json(get_config()))
    wider["model"]["channels"] = 16
    rewrite(exported, path, config=json.dumps(wider))
    message = error_of(path)
    name = next(name for name in sorted(load_file(exported)) if name in message)
    assert (
        f"parameter {name} has shape {load_file(exported)[name].shape}, "
        "the config's network needs (" in message
    )
    assert "16" in message.partition("needs")[2]

    rewrite(exported, path, rename=lambda name: name.replace("conv_0", "conv_9"))
    message = error_of(path)
    assert "conv_0" in message
    assert "has shape none (missing)" in message


@pytest.mark.fast
def test_the_psnr_of_an_export_is_read_back_and_is_minus_infinity_without_one(tmp_path):
    path = tmp_path / "best.safetensors"
    assert best_psnr(path) == -np.inf
    save_file({"a": np.zeros(1)}, path, metadata={"psnr": "31.25"})
    assert best_psnr(path) == 31.25


# -- a full disk

TENSORSTORE = (
    'RESOURCE_EXHAUSTED: Error writing "output.bias/0" in OCDBT database at local file '
    '"/w/12.orbax-checkpoint-tmp/": Failed writing: "/w/d/98": Failed to write 2962 bytes to file '
    "4: No space left on device [os_error_code='28']"
)


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "No space left on device"),
        (OSError(errno.EFBIG, os.strerror(errno.EFBIG)), "File too large"),
        (OSError(errno.EROFS, os.strerror(errno.EROFS)), "Read-only file system"),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), "Disk quota exceeded"),
        (ValueError(TENSORSTORE), "No space left on device"),
    ],
)
def test_a_save_that_fails_on_the_disk_is_one_sentence_and_keeps_the_earlier_checkpoint(
    workdir, monkeypatch, failure, reason
):
    writer = Checkpoints(workdir, get_config())

    def fail(*_, **__):
        raise failure

    with monkeypatch.context() as patch:
        # Where asynchronous saves fail
        patch.setattr("orbax.checkpoint.CheckpointManager.wait_until_finished", fail)
        with pytest.raises(UserError) as raised:
            writer.wait()
    assert (
        str(raised.value)
        == f"{workdir} cannot be written: {reason}; what was there before is untouched"
    )
    with monkeypatch.context() as patch:
        patch.setattr("orbax.checkpoint.CheckpointManager.save", fail)
        with pytest.raises(UserError, match=reason):
            writer.save(state_of(6), 6)
    writer.close()
    assert load_checkpoint(workdir).step == 5


@pytest.mark.fast
def test_other_failures_of_a_save_are_not_blamed_on_the_disk(tmp_path):
    with pytest.raises(ValueError, match="a bug"), atomic.disk_errors(tmp_path):
        raise ValueError("a bug")
    full = "RESOURCE_EXHAUSTED: Out of memory allocating 4294967296 bytes."
    with pytest.raises(RuntimeError, match="Out of memory"), atomic.disk_errors(tmp_path):
        raise RuntimeError(full)
    quota = "RESOURCE_EXHAUSTED: HTTP 429, too many requests"
    with pytest.raises(UserError, match="RESOURCE_EXHAUSTED"), atomic.disk_errors(tmp_path):
        raise ValueError(quota)


def test_a_checkpoint_from_before_there_were_discriminators_is_restored(tmp_path):
    class Before(NamedTuple):  # TrainState as it was
        step: PyTree
        params: PyTree
        ema: PyTree
        opt_state: PyTree
        bad_steps: PyTree
        bad_in_a_row: PyTree

    state = state_of(3)
    write_config(tmp_path, get_config())
    with ocp.CheckpointManager(tmp_path / "checkpoints") as manager:
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(Before(*state[:6])._replace(ema=None)),
            ema=ocp.args.StandardSave(state.ema),
            meta=ocp.args.JsonSave({"config": get_config().to_dict(), "position": 3}),
        )
        manager.save(3, args=items)
    assert_same_bits(read_state(tmp_path), state)
