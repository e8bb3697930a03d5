"""How a command of many processes ends: signals, and the exit code that their launcher sees."""

import os
import signal
import sys
from types import SimpleNamespace

import jax
import pytest

from sr3_jax import cli
from sr3_jax.evaluation import held_out
from sr3_jax.runtime import parallel
from sr3_jax.training import run as runs
from sr3_jax.training.stopping import stop_signals
from tests import tiny

pytestmark = pytest.mark.fast


class Ended(BaseException):
    """The process is gone."""


@pytest.fixture
def one_of_many(monkeypatch):
    """As if JAX's distributed runtime ran; `os._exit` raises Ended(code)."""

    def end(code):
        raise Ended(code)

    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(os, "_exit", end)


@pytest.fixture
def signals(monkeypatch):
    """What SIGTERM's handler, in the place of JAX's preemption service, was given."""
    found = []
    old = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGTERM, lambda number, _: found.append(number))
    yield found
    for number, handler in old.items():
        signal.signal(number, handler)


def test_ctrl_c_of_one_of_many_becomes_the_sigterm_on_which_all_agree_and_the_second_one_interrupts(
    one_of_many, signals
):
    with stop_signals() as stop:
        signal.raise_signal(signal.SIGINT)
        assert signals == [signal.SIGTERM]
        assert not stop.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_single_process_stops_by_itself(signals, number):
    with stop_signals() as stop:
        signal.raise_signal(number)
        assert stop.requested
    assert signals == []


def train(monkeypatch, tmp_path, step):
    """The exit code of `sr3 train` if training returns at this step of the tiny config's six."""
    monkeypatch.setattr(parallel, "start", lambda config: None)
    monkeypatch.setattr(held_out, "during_training", lambda config: None)
    monkeypatch.setattr(runs, "train", lambda *_: SimpleNamespace(step=step))
    return cli.main(["train", f"--config={tiny.__file__}", f"--workdir={tmp_path}"])


@pytest.mark.parametrize(
    ("variable", "step", "code"),
    [(None, 4, 0), ("0", 4, 0), ("75", 4, 75), ("75", 6, 0), ("2", 4, 2), ("x", 4, 2)],
)
def test_a_launcher_may_choose_the_exit_code_of_a_training_that_was_stopped(
    monkeypatch, tmp_path, variable, step, code
):
    monkeypatch.delenv("SR3_STOPPED_EXIT", raising=False)
    if variable:
        monkeypatch.setenv("SR3_STOPPED_EXIT", variable)
    assert train(monkeypatch, tmp_path, step) == code


def test_processes_that_were_stopped_together_wait_for_each_other_and_one_that_fails_does_not(
    monkeypatch, tmp_path, one_of_many
):
    monkeypatch.setenv("SR3_STOPPED_EXIT", "75")
    assert train(monkeypatch, tmp_path, 4) == 75
    monkeypatch.setenv("SR3_STOPPED_EXIT", "x")
    with pytest.raises(Ended, match="2"):
        train(monkeypatch, tmp_path, 4)


def test_one_of_many_ends_at_once_when_nobody_reads_what_it_prints(monkeypatch, one_of_many):
    """Rich raises SystemExit then; JAX would wait at the exit for others that wait for this one."""

    class Closed:
        def write(self, text=""):
            raise BrokenPipeError

        flush = write

    def broken(argv):
        raise SystemExit(1)

    monkeypatch.setattr(cli, "_main", broken)
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, Closed())
    with pytest.raises(Ended, match="1"):
        cli.main([])
