"""Whatever stops `sr3 train`, the same command goes on as if nothing had happened.

Real processes, really stopped.
"""

import shutil
import signal
import subprocess
from contextlib import contextmanager

import pytest

from sr3_jax.checkpoints.names import load_checkpoint
from sr3_jax.checkpoints.workdir import complete_steps
from tests.tiny import assert_same_bits, read_state
from tests.training.runs import finish, wait_for

ENDLESS = "--config.train.steps=1000000"
ONLY_WHEN_STOPPED = "--config.train.checkpoint_every=1000000"


def test_sigterm_and_ctrl_c_save_and_exit_with_0_and_the_run_goes_on_to_the_bit(start, tmp_path):
    steps = []
    for number in (signal.SIGTERM, signal.SIGINT):
        process = start(tmp_path / "stopped", ENDLESS, ONLY_WHEN_STOPPED)
        wait_for(process, f"step {(steps or [0])[-1] + 3}/")
        process.send_signal(number)
        output = finish(process)
        steps.append(load_checkpoint(tmp_path / "stopped").step)
        assert (
            f"stopped by a signal; saved step {steps[-1]}, run the same command to go on" in output
        )
    last = f"--config.train.steps={steps[-1] + 2}"
    assert f"resuming from step {steps[-1]}" in finish(
        start(tmp_path / "stopped", last, ONLY_WHEN_STOPPED)
    )
    finish(start(tmp_path / "whole", last, ONLY_WHEN_STOPPED))
    assert complete_steps(tmp_path / "stopped") == [*steps, steps[-1] + 2]
    assert complete_steps(tmp_path / "whole") == [steps[-1] + 2]
    assert_same_bits(read_state(tmp_path / "stopped"), read_state(tmp_path / "whole"))


def kill_in_mid_save(process, checkpoints):
    """SIGKILL at a moment when a checkpoint is half-written; returns its folder."""
    while process.poll() is None:
        for folder in checkpoints.glob("*.orbax-checkpoint-tmp*"):
            process.send_signal(signal.SIGSTOP)
            if folder.exists():
                process.kill()
                process.communicate()
                assert folder.exists()
                return folder
            process.send_signal(signal.SIGCONT)
    raise AssertionError(f"it ended by itself: {process.stderr.read()}")


def test_kill_9_in_mid_save_costs_the_steps_since_the_last_complete_checkpoint_and_nothing_else(
    start, tmp_path
):
    workdir, every = tmp_path / "killed", "--config.train.checkpoint_every=1"
    left, survived = [], {}
    for when in ("compiled in", "step 4/", "step 8/"):
        process = start(workdir, ENDLESS, every)
        wait_for(process, when)
        left.append(kill_in_mid_save(process, workdir / "checkpoints"))
        if complete := complete_steps(workdir):  # the first kill may come before any
            survived[complete[-1]] = load_checkpoint(workdir).params
    last = max(survived) + 2
    output = finish(start(workdir, f"--config.train.steps={last}", every))
    assert f"resuming from step {max(survived)}" in output
    assert complete_steps(workdir)[-1] == last
    assert [
        path.name for path in (workdir / "checkpoints").iterdir() if not path.name.isdigit()
    ] == []

    finish(start(tmp_path / "whole", f"--config.train.steps={last}", every))
    assert_same_bits(read_state(workdir), read_state(tmp_path / "whole"))
    for step, params in survived.items():
        assert_same_bits(
            params, load_checkpoint(tmp_path / "whole" / "checkpoints" / str(step)).params
        )


def assert_told_in_one_sentence(process, reason):
    _, errors = process.communicate()
    assert process.returncode == 2, errors
    assert "Traceback" not in errors
    assert [line for line in errors.splitlines() if "sr3: " in line] == errors.splitlines()[-1:]
    assert f"cannot be written: {reason}" in errors


def test_a_disk_that_takes_no_more_is_told_in_one_sentence_and_keeps_the_earlier_checkpoints(
    start, six, tmp_path
):
    """A limit on the size of files stands in for the disk; the save fails in its thread."""
    workdir = shutil.copytree(six.workdir, tmp_path / "workdir")
    process = start(workdir, ENDLESS, "--config.train.checkpoint_every=2", largest_file=12_000)
    assert_told_in_one_sentence(process, "File too large")
    assert complete_steps(workdir) == [3, 6]
    # Saved on eight devices, read on one
    assert_same_bits(load_checkpoint(workdir).params, six.state.ema)
    assert "resuming from step 6" in finish(start(workdir, "--config.train.steps=7"))


def test_a_damaged_checkpoint_is_named_and_without_it_the_run_goes_on_from_the_one_before(
    start, six, tmp_path
):
    workdir = shutil.copytree(six.workdir, tmp_path / "workdir")
    files = [
        path for path in (workdir / "checkpoints" / "6" / "state").rglob("d/*") if path.is_file()
    ]
    max(files, key=lambda path: path.stat().st_size).unlink()
    process = start(workdir, "--config.train.steps=7")
    _, errors = process.communicate()
    assert process.returncode == 2, errors
    assert "Traceback" not in errors
    assert f"{workdir / 'checkpoints' / '6'} is damaged" in errors
    assert "remove that folder to use the checkpoint before it" in errors
    shutil.rmtree(workdir / "checkpoints" / "6")
    assert "resuming from step 3" in finish(start(workdir, "--config.train.steps=7"))
    assert complete_steps(workdir) == [3, 6, 7]


@contextmanager
def small_disk(folder, size):
    try:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder],
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip(
            "there is no `mount` here; the test with a limit on the size of files needs none"
        )
    if mounted.returncode:
        pytest.skip(
            "mounting a small disk needs root; the test with a limit on the size of files does not"
        )
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_told_in_one_sentence_and_keeps_the_earlier_checkpoints(start, tmp_path):
    with small_disk(tmp_path, "2m"):
        process = start(tmp_path / "workdir", ENDLESS, "--config.train.checkpoint_every=2")
        assert_told_in_one_sentence(process, "No space left on device")
        steps = complete_steps(tmp_path / "workdir")
        assert steps[0] == 2
        for step in steps:
            assert load_checkpoint(tmp_path / "workdir" / "checkpoints" / str(step)).step == step
