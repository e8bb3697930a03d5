"""The launch scripts, tried with stand-ins for what they start.

They are clean, and honest about what they would do.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import metadata
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
LAUNCH = ROOT / "launch"
SCRIPTS = sorted(path for path in LAUNCH.rglob("*") if path.suffix in (".sh", ".sbatch"))
LOCAL, TPU, SLURM, SUBMIT, SHARDS, DETACHED, NEWEST = (
    LAUNCH / name
    for name in (
        "local.sh",
        "tpu_vm.sh",
        "slurm.sbatch",
        "kubernetes/submit.sh",
        "kubernetes/shards.sh",
        "detached.sh",
        "test_newest.sh",
    )
)
COMMAND = ["sr3", "train", "--config=my config.py", "--workdir=$HOME"]
PLACE = ["--name=sr3", "--zone=us-west4-a", "--type=v5litepod-32"]
IMAGE = ["--image=registry/sr3:1", "--hosts=4"]
PARTS = ["--image=registry/sr3:1", "--shards=16"]


def from_a_terminal():
    """In a process about to begin: signals as in a terminal.

    What nohup or `&` has made ignored, no script can trap.
    """
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def run(script, *arguments, **variables):
    return subprocess.run(
        [script, *map(str, arguments)],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.fast
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing_and_the_script_can_be_run(script):
    result = subprocess.run(
        [Path(sys.executable).parent / "shellcheck", script],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    assert os.access(script, os.X_OK)


@pytest.mark.fast
def test_the_readme_has_a_command_for_each_script():
    text = (LAUNCH / "README.md").read_text()
    for script in SCRIPTS:
        assert str(script.relative_to(ROOT)) in text or script == NEWEST


@pytest.mark.fast
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_help_has_the_script_s_own_path_and_every_option_and_starts_nothing(script, tmp_path):
    result = run(script, "--help", PATH=with_stand_ins(tmp_path, *STARTED))
    assert result.returncode == 0, result.stderr
    assert not (tmp_path / "calls").exists()
    assert str(script.relative_to(ROOT)) in result.stdout
    options = set(re.findall(r"^ +(--[a-z-]+)(?:=\*)?\)", script.read_text(), re.MULTILINE))
    assert {"--dry-run"} <= options
    assert {option for option in options if option not in result.stdout} == set()


# What the scripts start.
STARTED = ("gcloud", "srun", "kubectl", "sr3", "scontrol", "make")

DRY_RUNS = {
    "local": (LOCAL, ["--dry-run", "2", *COMMAND]),
    "tpu_vm": (TPU, ["--dry-run", *PLACE, "--", *COMMAND]),
    "slurm": (SLURM, ["--dry-run", *COMMAND[1:]]),
    "kubernetes": (SUBMIT, ["--dry-run", *IMAGE, "--", *COMMAND]),
    "kubernetes, shards": (SHARDS, ["--dry-run", *PARTS, "--", *COMMAND]),
    "detached": (DETACHED, ["--dry-run", *COMMAND]),
}


@pytest.mark.fast
@pytest.mark.parametrize(("script", "arguments"), DRY_RUNS.values(), ids=DRY_RUNS)
def test_a_dry_run_starts_nothing_and_quotes_what_has_spaces_or_dollars(
    script, arguments, tmp_path
):
    result = run(script, *arguments, PATH=with_stand_ins(tmp_path, *STARTED))
    assert result.returncode == 0, result.stderr
    assert not (tmp_path / "calls").exists()
    shown = result.stdout + result.stderr
    assert (
        r"my\ config.py" in shown
        or '"--config=my config.py"' in shown
        or r"my\\\ config.py" in shown
    )
    assert os.environ["HOME"] not in shown.replace(str(ROOT), "")  # not interpolated here


@pytest.mark.fast
def test_a_dry_run_of_the_newest_python_shows_the_command_and_starts_nothing(tmp_path):
    result = run(NEWEST, "--dry-run", PATH=with_stand_ins(tmp_path, *STARTED))
    assert result.returncode == 0, result.stderr
    assert not (tmp_path / "calls").exists()
    assert "make test PYTHON=" in result.stdout or "nothing" in result.stdout


REFUSED = {
    "local without a number": (LOCAL, ["sr3", "train"], "the number of processes must come first"),
    "local without a command": (LOCAL, ["2"], "give the command"),
    "local with a bad number": (
        LOCAL,
        ["--restarts=x", "2", "true"],
        "--restarts=x must be a whole number",
    ),
    "local with an unknown option": (LOCAL, ["--what", "2", "true"], "no option --what"),
    "tpu without a zone": (TPU, ["--name=a", "--type=b", "--", "sr3"], "--zone=… is missing"),
    "tpu without a command": (TPU, PLACE, "give the command"),
    "tpu with a bad name": (TPU, ["--name=A b", *PLACE[1:], "--", "sr3"], "--name=A b must be"),
    "slurm without arguments": (SLURM, [], "give the arguments of sr3"),
    "slurm with an unknown option": (SLURM, ["--array=1-2", "train"], "no option --array=1-2"),
    "slurm with a bad number of shards": (
        SLURM,
        ["--shards=0", "upscale"],
        "--shards=0 must be a whole number, at least 1",
    ),
    "slurm with shards and no array": (
        SLURM,
        ["--shards=4", "upscale"],
        "--shards=4 is for sbatch --array=1-4",
    ),
    "shards without an image": (SHARDS, ["--shards=2", "--", "sr3"], "--image=… is missing"),
    "shards without their number": (
        SHARDS,
        ["--image=a", "--", "sr3"],
        "--shards= must be a whole number",
    ),
    "shards with a bad number of GPUs": (
        SHARDS,
        [*PARTS, "--gpus=x", "--", "sr3"],
        "--gpus=x must be a whole number",
    ),
    "shards without a command": (SHARDS, PARTS, "give the command"),
    "detached without a command": (DETACHED, [], "give the command"),
    "detached, to stop a command": (DETACHED, ["--stop", "true"], "--stop takes no command"),
    "newest with an argument": (NEWEST, ["3.13"], "no option 3.13"),
    "kubernetes without an image": (SUBMIT, ["--hosts=2", "--", "sr3"], "--image=… is missing"),
    "kubernetes without hosts": (
        SUBMIT,
        ["--image=a", "--", "sr3"],
        "--hosts= must be a whole number",
    ),
    "kubernetes without a command": (SUBMIT, IMAGE, "give the command"),
}


@pytest.mark.fast
@pytest.mark.parametrize(("script", "arguments", "sentence"), REFUSED.values(), ids=REFUSED)
def test_a_bad_call_is_refused_in_one_sentence_with_exit_code_2(script, arguments, sentence):
    result = run(script, *arguments)
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1)
    assert sentence in result.stderr


def with_stand_ins(folder, *names, script="exit 0"):
    """A PATH whose programs of these names note their call in folder/calls, then do `script`."""
    (folder / "bin").mkdir(exist_ok=True)
    for name in names:
        path = folder / "bin" / name
        path.write_text(f'#!/usr/bin/env bash\necho "{name} $*" >>"{folder}/calls"\n{script}\n')
        path.chmod(0o755)
    return f"{folder / 'bin'}:{os.environ['PATH']}"


def calls(folder):
    return (folder / "calls").read_text().splitlines()


# -- local.sh


def bash(text):
    return ["bash", "-c", text]


def test_local_gives_each_process_its_number_and_the_same_coordinator():
    names = (
        "SR3_PROCESS",
        "SR3_PROCESSES",
        "SR3_COORDINATOR",
        "JAX_NUM_CPU_DEVICES",
        "CUDA_VISIBLE_DEVICES",
    )
    shown = " ".join(f"{name}=${name}" for name in names)
    result = run(LOCAL, "--devices=2", "--gpu-each", "3", *bash(f"echo {shown}"))
    assert result.returncode == 0
    found = [dict(word.split("=") for word in line.split()) for line in result.stdout.splitlines()]
    assert sorted(process["SR3_PROCESS"] for process in found) == ["0", "1", "2"]
    assert {process["SR3_PROCESSES"] for process in found} == {"3"}
    assert {process["JAX_NUM_CPU_DEVICES"] for process in found} == {"2"}
    assert len({process["SR3_COORDINATOR"] for process in found}) == 1
    assert all(process["CUDA_VISIBLE_DEVICES"] == process["SR3_PROCESS"] for process in found)


def test_local_starts_all_again_after_one_was_killed_and_says_which_and_how(tmp_path):
    first = f"touch {tmp_path}/up; exec sleep 100"
    second = (
        f"until [[ -e {tmp_path}/up ]]; do sleep 0.1; done; touch {tmp_path}/again; kill -KILL $$"
    )
    script = f"[[ -e {tmp_path}/again ]] && exit 0; ((SR3_PROCESS)) || {{ {first}; }}; {second}"
    began = time.monotonic()
    result = run(LOCAL, "2", *bash(script))
    assert result.returncode == 0
    told = result.stderr.splitlines()
    assert told == [
        "launch/local.sh: process 1 of 2 was killed by SIGKILL; "
        "starting all 2 again, restart 1 of 3"
    ]
    # The other one was given its fifteen seconds; that it got no more, `run` sees to
    assert time.monotonic() - began > 14


def test_local_gives_up_after_the_restarts_and_never_restarts_what_was_refused():
    result = run(LOCAL, "--restarts=1", "2", *bash("exit 7"))
    assert result.returncode == 1
    assert "process 0 of 2 ended with exit code 7; given up after 1 restarts" in result.stderr
    result = run(LOCAL, "2", *bash("echo why >&2; exit 2"))
    assert result.returncode == 2
    assert "[1] why" in result.stderr
    assert result.stderr.count("refused") == 1


# Takes signals until SIGTERM, and notes them in FOLDER/NUMBER.
PATIENT = """
import os, pathlib, signal, sys
folder, number, names = pathlib.Path(sys.argv[1]), os.environ["SR3_PROCESS"], []
signals = {signal.SIGINT, signal.SIGTERM}
signal.pthread_sigmask(signal.SIG_BLOCK, signals)
(folder / f"up{number}").touch()
while "SIGTERM" not in names:
    names.append(signal.Signals(signal.sigwait(signals)).name)
(folder / number).write_text(" ".join(names))
sys.exit(int(sys.argv[2] if len(sys.argv) > 2 else os.environ["SR3_STOPPED_EXIT"]))
"""


def begin_local(folder, *code, **variables):
    """local.sh with two patient processes, both of them up.

    It has a process group of its own, as in a terminal.
    """
    command = [LOCAL, "2", sys.executable, "-c", PATIENT, folder, *code]
    launcher = subprocess.Popen(
        command,
        env=os.environ | variables,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=from_a_terminal,
    )
    while len(list(folder.glob("up?"))) < 2:
        time.sleep(0.05)
    return launcher


def came(folder):
    return [(folder / number).read_text() for number in "01"]


@pytest.mark.parametrize("code", [0, 7])
def test_local_hands_sigterm_to_all_and_exits_as_they_do(tmp_path, code):
    launcher = begin_local(tmp_path, str(code))
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait(30) == code
    assert came(tmp_path) == ["SIGTERM", "SIGTERM"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_local_asks_each_once_to_stop_after_ctrl_c_or_a_hangup_of_the_terminal_which_reaches_its_whole_group(  # noqa: E501
    tmp_path, number
):
    launcher = begin_local(tmp_path)
    os.killpg(launcher.pid, number)
    assert launcher.wait(30) == 0
    assert came(tmp_path) == ["SIGTERM", "SIGTERM"]


def test_local_passes_on_that_it_was_stopped_to_a_launcher_around_it(tmp_path):
    launcher = begin_local(tmp_path, SR3_STOPPED_EXIT="99")
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait(30) == 99


def test_local_starts_again_what_a_signal_to_one_process_alone_has_stopped(tmp_path):
    result = run(
        LOCAL,
        "1",
        *bash(
            f"[[ -e {tmp_path}/again ]] && exit 0; touch {tmp_path}/again; exit $SR3_STOPPED_EXIT"
        ),
    )
    assert result.returncode == 0
    told = result.stderr.splitlines()
    assert told == [
        "launch/local.sh: process 0 of 1 was stopped by a signal; "
        "starting all 1 again, restart 1 of 3"
    ]


def test_local_that_is_stopped_while_it_pauses_starts_nothing_again(tmp_path):
    """Its `sleep 1` is a stand-in that sends it SIGTERM."""
    path = with_stand_ins(
        tmp_path, "sleep", script='[[ $1 == 1 ]] && kill -TERM $PPID || exec /bin/sleep "$@"'
    )
    result = run(LOCAL, "1", *bash(f"echo x >>{tmp_path}/started; exit 7"), PATH=path)
    assert result.returncode == 0
    assert (tmp_path / "started").read_text() == "x\n"


def test_local_that_is_stopped_before_all_processes_are_there_stops_them_too(tmp_path):
    """Its python3, which finds a port, is a stand-in that sends it SIGTERM."""
    path = with_stand_ins(tmp_path, "python3", script="kill -TERM $(ps -o sid= -p $$); echo 1234")
    launcher = subprocess.Popen(
        [LOCAL, "2", "sleep", "100"],
        env=os.environ | {"PATH": path},
        start_new_session=True,
        preexec_fn=from_a_terminal,
    )
    assert launcher.wait(30) == 128 + signal.SIGTERM


# -- detached.sh


def begin_detached(folder, text):
    """detached.sh, in this folder, with a bash command line that has printed something."""
    script = subprocess.Popen(
        [DETACHED, *bash(text)],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=from_a_terminal,
    )
    return script, script.stdout.readline()


STOPPABLE = "trap 'touch stopped; exit 75' TERM; echo up; while :; do sleep 0.1; done"


def test_detached_shows_what_the_command_prints_and_exits_as_it_does(tmp_path):
    script, first = begin_detached(tmp_path, "echo one; echo two >&2; exit 7")
    # Not `communicate`, which knows nothing of what `readline` has read ahead
    rest = script.stdout.read()
    assert (first + rest, script.wait(60)) == ("one\ntwo\n", 7)
    assert (tmp_path / "run.log").read_text() == "one\ntwo\n"


def test_detached_leaves_the_command_when_its_connection_is_lost_until_it_is_told_to_stop(tmp_path):
    script, _ = begin_detached(tmp_path, STOPPABLE)
    os.killpg(script.pid, signal.SIGHUP)
    script.communicate(timeout=60)
    assert script.returncode == -signal.SIGHUP
    refused = subprocess.run(
        [DETACHED, "true"], cwd=tmp_path, stderr=subprocess.PIPE, text=True, check=False
    )
    assert refused.returncode == 2
    assert "a command is running here already" in refused.stderr
    assert not (tmp_path / "stopped").exists()
    subprocess.run([DETACHED, "--stop"], cwd=tmp_path, check=True, timeout=60)
    assert (tmp_path / "stopped").exists()
    assert (tmp_path / "run.code").read_text() == "75\n"


def test_detached_that_still_follows_a_command_which_another_call_stops_says_so_by_its_exit_code(
    tmp_path,
):
    script, _ = begin_detached(tmp_path, STOPPABLE)
    subprocess.run([DETACHED, "--stop"], cwd=tmp_path, check=True, timeout=60)
    script.communicate(timeout=60)
    assert script.returncode == 76


# -- tpu_vm.sh, against a gcloud that keeps one TPU in a file, and whose only host is a folder here

GCLOUD = """
cd "{folder}"
case "$4" in
  describe) cat state 2>/dev/null || exit 1 ;;
  create) mkdir host && echo READY >state ;;
  start) echo READY >state ;;
  delete) rm -rf state host ;;
  scp) cp "$5" "host/${{6#*:}}" ;;
  ssh)
    cd host
    for argument; do
      [[ $argument != --command=* ]] || exec env HOME="$PWD" bash -c "${{argument#*=}}"
    done
    ;;
esac
"""


@pytest.fixture
def checkout(tmp_path):
    """A git checkout of the scripts, all of them committed."""
    shutil.copytree(LAUNCH, tmp_path / "checkout" / "launch")
    git(tmp_path / "checkout", "init", "--quiet")
    git(tmp_path / "checkout", "add", ".")
    git(tmp_path / "checkout", "commit", "--quiet", "--message=all")
    return tmp_path / "checkout"


def git(folder, *arguments):
    who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "-C", folder, *who, *arguments], check=True)


def tpu(checkout, *arguments, sr3="exit 0", state=None):
    """The result, and what was asked of gcloud.

    `sr3` is what that command does on the host. With a `state` there is a TPU, in that state.
    """
    folder = checkout.parent
    if state:
        (folder / "state").write_text(state)
        (folder / "host").mkdir(exist_ok=True)
    with_stand_ins(folder, "python3")  # pip and uv
    with_stand_ins(folder, "sr3", script=f"cd {folder}\n{sr3}")
    path = with_stand_ins(folder, "gcloud", script=GCLOUD.format(folder=folder))
    result = run(
        checkout / "launch" / TPU.name,
        *PLACE,
        *arguments,
        "--",
        *COMMAND,
        PATH=path,
        SR3_RETRY_SECONDS="0",
    )
    asked = [
        line.split()[4]
        for line in calls(folder)
        if line.startswith("gcloud") and " describe " not in line
    ]
    return result, asked


ATTEMPT = ["ssh", "scp", "ssh", "ssh"]  # stop what runs, copy, install, run


def test_tpu_creates_copies_installs_and_runs_on_all_hosts(checkout):
    result, done = tpu(checkout, "--spot", "--project=mine")
    assert result.returncode == 0, result.stderr
    assert done == ["create", *ATTEMPT]
    noted = calls(checkout.parent)
    [create] = [line for line in noted if " create " in line]
    assert "sr3 --zone=us-west4-a --project=mine --accelerator-type=v5litepod-32" in create
    assert create.endswith("--spot")
    assert all("--worker=all" in line for line in noted if " ssh " in line or " scp " in line)
    assert r"sr3 train --config=my\ config.py --workdir=\$HOME" in noted[-2]
    assert noted[-1] == " ".join(COMMAND)


def test_tpu_brings_a_python_that_the_package_takes(checkout):
    tpu(checkout)
    pip, venv, install = (line for line in calls(checkout.parent) if line.startswith("python3"))
    assert pip.endswith("install --quiet --user uv")
    [version] = re.findall(r"uv venv .*--python 3\.(\d+) sr3_jax/\.venv$", venv)
    [least] = re.findall(r'python_requires=">=3\.(\d+)"', (ROOT / "setup.py").read_text())
    assert int(version) >= int(least)
    assert install.endswith("--python sr3_jax/.venv/bin/python -e ./sr3_jax[tpu]")


def test_tpu_reuses_one_that_is_ready_and_deletes_it_only_when_asked(checkout):
    assert tpu(checkout, state="READY")[1] == ATTEMPT
    assert (checkout.parent / "state").exists()
    assert tpu(checkout, "--delete")[1][-1] == "delete"


def test_tpu_starts_one_that_was_stopped_with_its_disk_and_waits_for_one_that_is_busy(checkout):
    assert tpu(checkout, state="STOPPED")[1] == ["start", *ATTEMPT]
    (checkout.parent / "calls").unlink()
    result, done = tpu(checkout, "--retries=1", state="REIMAGING")
    assert (result.returncode, done) == (1, [])
    assert "sr3 is not ready: REIMAGING" in result.stderr


def test_tpu_comes_back_after_a_preemption(checkout):
    result, done = tpu(
        checkout, sr3="[[ -e again ]] && exit 0; touch again; echo PREEMPTED >state; exit 255"
    )
    assert result.returncode == 0
    assert done == ["create", *ATTEMPT, "delete", "create", *ATTEMPT]
    assert "exit code 255, sr3 is PREEMPTED; retry 1 of 100" in result.stderr


def test_tpu_goes_on_with_a_run_that_saved_when_a_signal_stopped_it_and_deletes_only_after_its_end(
    checkout,
):
    result, done = tpu(
        checkout, "--delete", sr3='[[ -e again ]] && exit 0; touch again; exit "$SR3_STOPPED_EXIT"'
    )
    assert result.returncode == 0
    assert done == ["create", *ATTEMPT, *ATTEMPT, "delete"]
    assert "exit code 75, sr3 is READY; retry 1 of 100" in result.stderr


def test_tpu_does_not_repeat_what_was_refused(checkout):
    result, done = tpu(checkout, sr3="exit 2")
    assert result.returncode == 2
    assert done == ["create", *ATTEMPT]


def test_tpu_gives_way_to_another_call_that_stops_its_run(checkout):
    stop = f"cd host/sr3_jax && launch/{DETACHED.name} --stop & while :; do sleep 0.1; done"
    result, done = tpu(checkout, sr3=stop)
    assert result.returncode == 1
    assert done == ["create", *ATTEMPT]
    assert "another call of this script has taken sr3 over" in result.stderr


def test_tpu_refuses_a_checkout_with_changes_that_would_not_be_copied(checkout):
    (checkout / "launch" / "new.py").touch()
    result = run(
        checkout / "launch" / TPU.name,
        *PLACE,
        "--",
        *COMMAND,
        PATH=with_stand_ins(checkout.parent, "gcloud"),
    )
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1)
    assert "commit your changes first" in result.stderr
    assert "launch/new.py" in result.stderr
    assert not (checkout.parent / "calls").exists()


# -- slurm.sbatch


@pytest.mark.parametrize(("code", "requeued"), [(0, False), (75, True), (2, False), (9, False)])
def test_slurm_requeues_what_a_signal_stopped_and_nothing_that_fails_at_once(
    tmp_path, code, requeued
):
    noted = f'echo "$SR3_STOPPED_EXIT $SRUN_CPUS_PER_TASK" >>"{tmp_path}/calls"; exit {code}'
    with_stand_ins(tmp_path, "srun", script=noted)
    path = with_stand_ins(tmp_path, "scontrol")
    result = run(
        SLURM, "train", "--config=a b", PATH=path, SLURM_JOB_ID="17", SLURM_CPUS_PER_TASK="32"
    )
    assert result.returncode == code
    assert calls(tmp_path)[:2] == ["srun --kill-on-bad-exit=1 sr3 train --config=a b", "75 32"]
    assert ("scontrol requeue 17" in calls(tmp_path)) == requeued


def array(task, first, last, count):
    """What SLURM tells one job of an array."""
    values = {"ID": task, "MIN": first, "MAX": last, "COUNT": count}
    variables = {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}
    return variables | {"SLURM_ARRAY_JOB_ID": "17", "SLURM_JOB_ID": "17"}


@pytest.mark.fast
@pytest.mark.parametrize(
    ("flags", "of", "shard"),
    [
        ([], (1, 1, 16, 16), "1/16"),
        ([], (16, 1, 16, 16), "16/16"),
        ([], (0, 0, 15, 16), "1/16"),
        ([], (12, 10, 14, 5), "3/5"),
        ([], (3, 3, 3, 1), "1/1"),
        (["--shards=16"], (7, 3, 7, 2), "7/16"),
        (["--shards=16"], (16, 16, 16, 1), "16/16"),
    ],
)
def test_each_job_of_a_slurm_array_does_its_shard(flags, of, shard):
    result = run(SLURM, *flags, "--dry-run", "upscale", "a b", **array(*of))
    assert result.returncode == 0, result.stderr
    wanted = ["srun", "--kill-on-bad-exit=1", "sr3", "upscale", "a b", f"--shard={shard}"]
    assert shlex.split(result.stdout) == wanted


@pytest.mark.fast
@pytest.mark.parametrize(
    ("flags", "of", "sentence"),
    [
        ([], (7, 3, 7, 2), "--array leaves numbers out: to run some shards again give --shards=N"),
        (["--shards=4"], (5, 1, 8, 8), "--array has a job 5; with --shards=4 they are 1 to 4"),
        (["--shards=4"], (0, 0, 3, 4), "--array has a job 0; with --shards=4 they are 1 to 4"),
    ],
)
def test_an_array_whose_shards_are_not_known_is_refused(flags, of, sentence):
    result = run(SLURM, *flags, "--dry-run", "upscale", "a", **array(*of))
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1)
    assert sentence in result.stderr


@pytest.mark.parametrize(
    ("code", "restarts", "requeued"), [(75, "0", True), (2, "0", False), (143, "10", False)]
)
def test_one_job_of_an_array_goes_back_to_the_queue_alone_and_ten_times_at_most(
    tmp_path, code, restarts, requeued
):
    with_stand_ins(tmp_path, "srun", script=f"exit {code}")
    path = with_stand_ins(tmp_path, "scontrol")
    variables = array(3, 1, 4, 4) | {"SLURM_RESTART_COUNT": restarts}
    result = run(SLURM, "evaluate", "--workdir=a", PATH=path, **variables)
    assert result.returncode == code
    assert calls(tmp_path)[0].endswith("sr3 evaluate --workdir=a --shard=3/4")
    assert ("scontrol requeue 17_3" in calls(tmp_path)) == requeued
    assert ("restarted ten times" in result.stderr) == (restarts == "10")


# -- kubernetes


def manifests(*arguments, script=SUBMIT):
    result = run(script, "--dry-run", *arguments)
    assert result.returncode == 0, result.stderr
    return list(yaml.safe_load_all(result.stdout))


@pytest.mark.fast
def test_the_manifest_as_it_is_and_as_filled_in_is_what_kubernetes_takes():
    for documents in (
        list(yaml.safe_load_all((SUBMIT.parent / "job.yaml").read_text())),
        manifests(*IMAGE, "--", *COMMAND),
        manifests(*PARTS, "--", *COMMAND, script=SHARDS),
        manifests(*PARTS, "--gpus=1", "--claim=photos", "--", *COMMAND, script=SHARDS),
    ):
        for document in documents:
            kubernetes_validate.validate(document, "1.30", strict=True)


@pytest.mark.fast
def test_name_hosts_chips_and_command_reach_their_places():
    service, job = manifests(
        *IMAGE,
        "--name=faces",
        "--chips=8",
        "--topology=2x2",
        "--accelerator=tpu-v6e-slice",
        "--",
        *COMMAND,
    )
    spec = job["spec"]
    pod = spec["template"]["spec"]
    [container] = pod["containers"]
    environment = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] == int(environment["SR3_PROCESSES"]) == 4
    assert service["metadata"]["name"] == job["metadata"]["name"] == pod["subdomain"] == "faces"
    assert service["spec"]["selector"] == spec["template"]["metadata"]["labels"]
    assert environment["SR3_COORDINATOR"].startswith("faces-0.faces:")
    assert container["image"] == "registry/sr3:1"
    assert container["command"] == COMMAND
    assert container["resources"]["limits"] == {"google.com/tpu": "8"}
    assert set(pod["nodeSelector"].values()) == {"tpu-v6e-slice", "2x2"}


@pytest.mark.parametrize(("script", "flags"), [(SUBMIT, IMAGE), (SHARDS, PARTS)])
def test_submitting_hands_the_manifest_to_kubectl(tmp_path, script, flags):
    path = with_stand_ins(tmp_path, "kubectl", script=f'cat >"{tmp_path}/given"')
    assert run(script, *flags, "--", *COMMAND, PATH=path).returncode == 0
    assert calls(tmp_path) == ["kubectl apply -f -"]
    assert list(yaml.safe_load_all((tmp_path / "given").read_text())) == manifests(
        *flags, "--", *COMMAND, script=script
    )


@pytest.mark.fast
def test_pods_of_shards_count_from_1_and_fail_and_start_again_each_by_itself(tmp_path):
    [job] = manifests(*PARTS, "--parallel=4", "--name=large", "--", *COMMAND, script=SHARDS)
    spec = job["spec"]
    [container] = spec["template"]["spec"]["containers"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 16, 4)
    assert job["metadata"]["name"] == spec["template"]["metadata"]["labels"]["app"] == "large"
    assert "env" not in container  # no coordinator
    [refused] = [rule for rule in spec["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    assert (refused["action"], refused["onExitCodes"]["values"]) == ("FailIndex", [2])
    assert refused["onExitCodes"]["containerName"] == container["name"]
    path = with_stand_ins(tmp_path, "sr3", script='printf "%s\\n" "$@"')
    for index, shard in (("0", "1/16"), ("15", "16/16")):
        environment = os.environ | {"PATH": path, "JOB_COMPLETION_INDEX": index}
        words = subprocess.run(
            container["command"], env=environment, capture_output=True, text=True, check=True
        ).stdout.splitlines()
        assert words == [*COMMAND[1:], f"--shard={shard}"]


@pytest.mark.fast
def test_shards_run_on_a_tpu_host_or_on_gpus_and_see_a_volume():
    [tpu_job] = manifests(*PARTS, "--chips=8", "--", *COMMAND, script=SHARDS)
    [gpu_job] = manifests(*PARTS, "--gpus=2", "--claim=photos", "--", *COMMAND, script=SHARDS)
    tpu_pod, gpu_pod = (one["spec"]["template"]["spec"] for one in (tpu_job, gpu_job))
    assert tpu_pod["containers"][0]["resources"]["limits"] == {"google.com/tpu": "8"}
    assert "2x2" in tpu_pod["nodeSelector"].values()
    assert gpu_pod["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "2"}
    assert "nodeSelector" not in gpu_pod
    [mount], [volume] = gpu_pod["containers"][0]["volumeMounts"], gpu_pod["volumes"]
    assert (mount["name"], mount["mountPath"]) == (volume["name"], "/shared")
    assert volume["persistentVolumeClaim"] == {"claimName": "photos"}


@pytest.mark.fast
def test_pods_that_a_signal_stopped_are_replaced_and_one_that_was_refused_fails_the_job():
    _, job = manifests(*IMAGE, "--", *COMMAND)
    [container] = job["spec"]["template"]["spec"]["containers"]
    [code] = [
        variable["value"] for variable in container["env"] if variable["name"] == "SR3_STOPPED_EXIT"
    ]
    rules = [rule for rule in job["spec"]["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    assert {rule["onExitCodes"]["containerName"] for rule in rules} == {container["name"]}
    assert {rule["action"]: rule["onExitCodes"]["values"] for rule in rules} == {
        "FailJob": [2],
        "Ignore": [int(code)],
    }


@pytest.mark.fast
def test_the_image_copies_what_is_there_and_asks_for_extras_that_the_package_has():
    text = (SUBMIT.parent / "Dockerfile").read_text()
    copied = [
        source
        for line in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE)
        for source in line.split()
    ]
    assert {"setup.py", "sr3_jax", "configs"} <= set(copied)
    assert [source for source in copied if not (ROOT / source).exists()] == []
    [extras] = re.findall(r'"\.\[(.*)\]"', text)
    [choices] = re.findall(r"^# (\w+) or (\w+);.*\nARG EXTRA=(?:\1|\2)$", text, re.MULTILINE)
    known = set(metadata("sr3_jax").get_all("Provides-Extra"))
    for choice in choices:
        chosen = set(extras.replace("${EXTRA}", choice).split(","))
        assert chosen <= known
        assert {choice, "gcs"} <= chosen  # the workdir is in a bucket


@pytest.mark.fast
@pytest.mark.parametrize(
    "line",
    re.findall(
        r"^\|.*`(launch/kubernetes/submit.*?)` \|$", (LAUNCH / "README.md").read_text(), re.M
    ),
)
def test_the_readme_s_pods_read_and_write_only_what_they_can_reach(line):
    """The manifest mounts nothing."""
    _, *arguments = shlex.split(line)
    _, job = manifests(*arguments)
    [container] = job["spec"]["template"]["spec"]["containers"]
    assert "volumes" not in job["spec"]["template"]["spec"]
    places = [
        value
        for value in container["command"]
        if re.match("--workdir=|--config.data.folder=", value)
    ]
    assert len(places) == 2
    assert all("=gs://" in place for place in places)
