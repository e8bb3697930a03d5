"""Two processes of two devices each are one run: the same numbers, one end, one restart."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from sr3_jax.checkpoints.names import load_checkpoint
from sr3_jax.checkpoints.workdir import complete_steps
from sr3_jax.images import arrays
from sr3_jax.runtime import parallel
from tests import tiny
from tests.tiny import assert_same_bits, read_state
from tests.training.runs import finish, wait_for
from tests.training.test_loop import assert_close, read_stats

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent


def places(count=2):
    """The environment variables that make `count` processes one job."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    shared = {
        "SR3_COORDINATOR": f"localhost:{port}",
        "SR3_PROCESSES": str(count),
        "JAX_NUM_CPU_DEVICES": "2",
    }
    return [shared | {"SR3_PROCESS": str(i)} for i in range(count)]


def finish_all(processes):
    """What each printed. All are started before the first is waited for."""
    return [finish(process) for process in list(processes)]


def test_two_processes_train_as_one_does_and_either_number_takes_over_from_the_other(
    start, tmp_path
):
    both, one = tmp_path / "both", tmp_path / "one"
    output, other = finish_all(start(both, "--config.mesh.fsdp=2", **place) for place in places())
    assert "4 × cpu in 2 processes, mesh data=2 fsdp=2" in output
    assert "step" not in other  # the first one speaks for all
    finish(start(one))
    assert_close(read_state(both), read_state(one), atol=1e-6)
    stats = [read_stats(workdir) for workdir in (both, one)]
    losses = [[line["loss"] for line in lines if "loss" in line] for lines in stats]
    assert len(losses[0]) == 5
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    evaluated = [[line for line in lines if "eval_psnr" in line] for lines in stats]
    assert evaluated[0] == [pytest.approx(evaluated[1][0], rel=1e-4)]

    finish(start(both, "--config.train.steps=7"))
    finish_all(start(both, "--config.train.steps=8", **place) for place in places())
    finish(start(one, "--config.train.steps=8"))
    assert complete_steps(both) == [3, 6, 7, 8]
    assert_close(read_state(both), read_state(one), atol=1e-6)


def test_a_regression_network_that_no_process_holds_whole_is_exported_all_the_same(start, tmp_path):
    """Gathering the average takes both, though only one of them writes it: neither waits."""
    flags = [
        "--config.objective=regression",
        "--config.mesh.fsdp=2",
        "--config.model.channels=64",
        "--config.train.steps=2",
    ]
    single = {"JAX_NUM_CPU_DEVICES": "1"}
    output, _ = finish_all(start(tmp_path, *flags, **place | single) for place in places())
    assert "2 × cpu in 2 processes, mesh data=1 fsdp=2" in output
    # compared with what is saved, which is at least one parameter large enough to be split
    saved, best = load_checkpoint(tmp_path), load_checkpoint(tmp_path / "best.safetensors")
    assert max(leaf.size for leaf in jax.tree.leaves(saved.params)) >= parallel.SMALLEST_SHARDED
    assert_same_bits(jax.device_get(best.params), jax.device_get(saved.params))

    # ... and both make up for an evaluation that only the first one knows to be missing
    lines = [line for line in read_stats(tmp_path) if "eval_psnr" not in line]
    (tmp_path / "stats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    output, _ = finish_all(start(tmp_path, *flags, **place | single) for place in places())
    assert "step 2 held-out: psnr" in output


@pytest.mark.parametrize(
    ("number", "stopped"), [(signal.SIGTERM, [0]), (signal.SIGTERM, [1]), (signal.SIGINT, [0, 1])]
)
def test_a_signal_to_some_of_them_saves_the_same_step_in_both_and_they_go_on_to_the_bit(
    start, tmp_path, number, stopped
):
    interrupted, whole, seldom = (
        tmp_path / "interrupted",
        tmp_path / "whole",
        "--config.train.checkpoint_every=1000000",
    )
    launched = [place | {"SR3_STOPPED_EXIT": "75"} for place in places()]
    processes = [
        start(interrupted, "--config.train.steps=1000000", seldom, **place) for place in launched
    ]
    wait_for(processes[0], "step 4/")
    for i in stopped:
        processes[i].send_signal(number)
    output, _ = (process.communicate()[0] for process in processes)
    assert [process.returncode for process in processes] == [75, 75]
    [step] = complete_steps(interrupted)
    assert f"stopped by a signal; saved step {step}" in output
    last = f"--config.train.steps={step + 2}"
    output, _ = finish_all(start(interrupted, last, seldom, **place) for place in places())
    assert f"resuming from step {step}" in output
    finish_all(start(whole, last, seldom, **place) for place in places())
    assert_same_bits(read_state(interrupted), read_state(whole))


def test_one_that_is_refused_alone_ends_at_once_and_so_does_the_other(start, tmp_path):
    """Only the second cannot read the data: it must not wait at its end for the first."""
    flags = ["--config.data.source=folder", "--config.data.folder=faces"]
    (tmp_path / "a" / "faces").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(40):
        arrays.write(
            tmp_path / "a" / "faces" / f"{i}.png", rng.integers(0, 256, (16, 16, 1), np.uint8)
        )
    began = time.monotonic()
    processes = []
    for folder, place in zip(("a", "b"), places(), strict=True):
        (tmp_path / folder).mkdir(exist_ok=True)
        with contextlib.chdir(tmp_path / folder):
            processes.append(start(tmp_path / "workdir", *flags, **place))
    errors = [process.communicate()[1] for process in processes]
    assert processes[1].returncode == 2
    assert "sr3: data.folder = 'faces' is not a folder" in errors[1]
    assert processes[0].returncode not in (0, 2)
    assert time.monotonic() - began < 120


def test_kill_9_of_one_ends_the_other_and_the_launcher_says_so_and_resumes(tmp_path, cache):
    workdir = tmp_path / "workdir"
    command = [
        sys.executable,
        "-m",
        "sr3_jax",
        "train",
        f"--config={tiny.__file__}",
        f"--workdir={workdir}",
    ]
    variables = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    launcher = subprocess.Popen(
        [
            ROOT / "launch" / "local.sh",
            "--devices=2",
            "2",
            *command,
            "--config.train.steps=1000000",
        ],
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(launcher, "step 8/")
        os.kill(child(launcher, number=1), signal.SIGKILL)
        assert "resuming from step" in wait_for(launcher, "resuming from step")
        launcher.terminate()
        output, errors = launcher.communicate()
    finally:
        launcher.kill()
    assert launcher.returncode == 0
    assert "saved step" in output
    told = [line for line in errors.splitlines() if line.startswith("launch/local.sh: ")]
    assert told == [
        "launch/local.sh: process 1 of 2 was killed by SIGKILL; "
        "starting all 2 again, restart 1 of 3",
    ]


def test_kill_9_of_one_ends_the_other_within_two_minutes_by_itself(start, tmp_path):
    processes = [
        start(tmp_path / "workdir", "--config.train.steps=1000000", **place) for place in places()
    ]
    wait_for(processes[0], "step 4/")
    processes[1].kill()
    began = time.monotonic()
    processes[0].communicate()
    assert time.monotonic() - began < 120
    assert processes[0].returncode != 0


def child(launcher, number):
    """The process id of process `number` of a launcher."""
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            parent = int((environment.parent / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == launcher.pid and f"SR3_PROCESS={number}\0" in environment.read_text():
                return int(environment.parent.name)
    raise AssertionError("no such process")


# -- evaluation and upscaling


@pytest.fixture
def trained(start, tmp_path):
    finish(start(tmp_path / "trained", "--config.train.steps=1"))
    return tmp_path / "trained"


def test_evaluation_by_two_counts_each_image_once_and_equals_that_by_one(sr3, trained, tmp_path):
    arguments = ["evaluate", f"--workdir={trained}", "--limit=5", "--samples=2"]
    outputs = finish_all(
        sr3(*arguments, f"--output={tmp_path / 'two'}", **place) for place in places()
    )
    assert "5 held-out images" in outputs[0]
    assert "PSNR" not in outputs[1]
    finish(sr3(*arguments, f"--output={tmp_path / 'one'}"))
    two, one = (
        json.loads((tmp_path / name / "results.json").read_text()) for name in ("two", "one")
    )
    assert two["n"] == one["n"] == 5
    for name, values in one["methods"].items():
        assert two["methods"][name] == pytest.approx(values, rel=1e-4)
    pictures = [
        arrays.read(tmp_path / name / "grid.png", 3).pixels.astype(int) for name in ("two", "one")
    ]
    assert np.abs(pictures[0] - pictures[1]).max() <= 1


def test_three_files_upscaled_by_two_are_those_of_one_and_one_bad_file_is_the_exit_code_of_both(
    sr3, trained, tmp_path
):
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        arrays.write(tmp_path / "in" / f"{name}.png", rng.integers(0, 256, (8, 8, 1), np.uint8))
    arguments = ["upscale", tmp_path / "in", f"--checkpoint={trained}"]
    outputs = finish_all(
        sr3(*arguments, f"--output={tmp_path / 'two'}", **place) for place in places()
    )
    written = sorted(
        line for output in outputs for line in output.splitlines() if line.endswith(".png")
    )
    assert written == [str(tmp_path / "two" / f"{name}.png") for name in "abc"]
    finish(sr3(*arguments, f"--output={tmp_path / 'one'}"))
    for name in "abc":
        two, one = (
            arrays.read(tmp_path / folder / f"{name}.png", 1).pixels.astype(int)
            for folder in ("two", "one")
        )
        assert np.abs(two - one).max() <= 1
    (tmp_path / "in" / "b.png").write_text("no image")
    shutil.rmtree(tmp_path / "two")
    processes = [sr3(*arguments, f"--output={tmp_path / 'two'}", **place) for place in places()]
    for process in processes:
        process.communicate()
    assert [process.returncode for process in processes] == [2, 2]
    assert sorted(path.name for path in (tmp_path / "two").glob("*.png")) == ["a.png", "c.png"]
