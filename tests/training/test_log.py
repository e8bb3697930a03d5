"""stats.jsonl: one JSON a line, whatever happened to the process that wrote it."""

import json
import math
from pathlib import Path

import pytest
from etils import epath

from sr3_jax.errors import UserError
from sr3_jax.training import log as logs
from sr3_jax.training.log import Clock, Log

pytestmark = pytest.mark.fast


@pytest.fixture(autouse=True)
def _without_tensorboard(monkeypatch):
    monkeypatch.setattr(logs, "_tensorboard", lambda workdir: None)


def read_stats(workdir):
    def refuse(name):
        raise ValueError(f"{name} is not JSON")

    return [
        json.loads(line, parse_constant=refuse)
        for line in (workdir / "stats.jsonl").read_text().splitlines()
    ]


def test_a_restart_drops_an_undone_future_and_a_half_written_line_and_goes_on_below(tmp_path):
    lines = [json.dumps({"step": step, "value": step / 3}) for step in (1, 2, 2, 3, 4)]
    (tmp_path / "stats.jsonl").write_text("\n".join(lines) + '\n{"step": 2, "val')
    with Log(tmp_path, 10, 2, True) as log:
        log.write(3, {"value": -1.0})
    assert read_stats(tmp_path) == [{"step": s, "value": s / 3} for s in (1, 2, 2)] + [
        {"step": 3, "value": -1.0}
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["stats.jsonl"]


def test_what_json_does_not_know_is_null(tmp_path):
    with Log(tmp_path, 10, 0, True) as log:
        log.write(
            1,
            {
                "loss_of_a_bad_step": math.nan,
                "psnr_of_a_copy": math.inf,
                "worst": -math.inf,
                "fine": 1.5,
            },
        )
    assert read_stats(tmp_path) == [
        {"step": 1, "loss_of_a_bad_step": None, "psnr_of_a_copy": None, "worst": None, "fine": 1.5}
    ]


@pytest.mark.skipif(
    not Path("/dev/full").exists(),
    reason="there is no /dev/full here, which is a full disk in one file",
)
def test_a_full_disk_is_one_sentence(tmp_path):
    with Log(tmp_path, 10, 0, True) as log:
        (tmp_path / "stats.jsonl").symlink_to("/dev/full")
        with pytest.raises(
            UserError, match=r"stats\.jsonl cannot be written: No space left on device"
        ):
            log.write(1, {"value": 1.0})


class FullDisk:
    """TensorBoard's writer, as TensorFlow's behaves on a full disk."""

    def write_scalars(self, step, scalars):
        raise RuntimeError(
            "{{function_node __wrapped__WriteScalarSummary}} No space left on device "
            "[Op:WriteScalarSummary]"
        )

    def flush(self):
        raise RuntimeError(
            "{{function_node __wrapped__FlushSummaryWriter}} No space left on device "
            "[Op:FlushSummaryWriter]"
        )


def test_a_full_disk_is_one_sentence_from_tensorboard_too_and_hides_no_error_under_way(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(logs, "_tensorboard", lambda workdir: FullDisk())
    full = "tensorboard cannot be written: No space left on device"
    log = Log(tmp_path, 10, 0, True)
    with pytest.raises(UserError, match=full):
        log.write(1, {"value": 1.0})
    with pytest.raises(UserError, match=full):
        log.__exit__(None, None, None)
    # Raises nothing: that one goes on
    log.__exit__(UserError, UserError("the first error"), None)


@pytest.mark.parametrize("line", ['{"value": 1}', "[1]", "3", '{"step": "two"}'])
def test_a_line_that_is_none_of_ours_is_no_obstacle(tmp_path, line):
    (tmp_path / "stats.jsonl").write_text(f'{line}\n{{"step": 1}}\n')
    Log(tmp_path, 10, 2, True)
    assert read_stats(tmp_path) == [{"step": 1}]


def test_in_an_object_store_the_file_is_whole_at_each_flush(tmp_path):
    workdir = epath.Path(tmp_path)  # to us, any path that is not pathlib's
    with Log(workdir, 10, 0, True) as log:
        log.write(1, {"value": 1.0})
        log.flush()
        assert read_stats(tmp_path) == [{"step": 1, "value": 1.0}]


def test_where_there_is_no_terminal_each_interval_is_a_plain_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as notebooks do
    metrics = {"loss": 0.5, "seconds_per_step": 2.0, "images_per_second": 4.0, "data_wait": 0.25}
    with Log(tmp_path, 100, 0, True) as log:
        log.advance(40)
        log.write(40, metrics)
        log.write(40, {"eval_psnr": 20.0})
        log.say("a [word] in brackets")
        log.write(90, metrics | {"seconds_per_step": 36_000.0, "bad_steps": 3.0})
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == "step 40/100 · loss 0.5000 · 2 s/step · 4 images/s · data 25% · ETA 00:02:00"
    assert second == "a [word] in brackets"
    assert third.endswith("· data 25% · 3 updates dropped · ETA 4 d 04:00:00")


def test_the_clock_gives_rates_since_it_was_last_read_or_restarted(monkeypatch):
    now = 100.0
    monkeypatch.setattr(logs.time, "perf_counter", lambda: now)
    clock = Clock(8)
    for _ in range(4):
        now += 0.5
        clock.waited(0.125)
        clock.stepped()
    rates = {"seconds_per_step": 0.5, "images_per_second": 16.0, "data_wait": 0.25}
    assert clock.read() == rates
    now += 1000  # an evaluation
    clock.restart()
    now += 2
    clock.stepped()
    assert clock.read() == {"seconds_per_step": 2.0, "images_per_second": 4.0, "data_wait": 0.0}


def test_only_the_main_process_writes_and_speaks(tmp_path, capsys):
    with Log(tmp_path, 10, 0, False) as log:
        log.say("hello")
        log.write(1, {"value": 1.0})
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []
