"""Whatever stops a run, the same command goes on as if nothing had happened. Real processes, killed for real."""

import json
import os
import signal

import pytest

from sr3_jax.checkpoints import CheckpointError, Checkpoints, load_checkpoint
from sr3_jax.training import loop
from sr3_jax.training.loop import train


@pytest.fixture
def seen(monkeypatch):
    """The image ids of every batch that the loop draws."""
    drawn = []

    class Recorded(loop.Batches):
        def __next__(self):
            batch = super().__next__()
            drawn.append(batch["index"].tolist())
            return batch

    monkeypatch.setattr(loop, "Batches", Recorded)
    return drawn


def wait_for(process, text):
    """Reads the process's output until a line contains `text`."""
    for line in process.stdout:
        if text in line:
            return line
    raise AssertionError(f"no {text!r} before the end: {process.stderr.read()}")


def finish(process):
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    return output


def final(workdir):
    return load_checkpoint(workdir).params


def test_six_steps_equal_three_and_three_to_the_bit(tiny, digest, tmp_path, seen):
    whole = train(tiny(), tmp_path / "whole")
    ids = list(seen)
    train(tiny(train__steps=3), tmp_path / "parts")
    parts = train(tiny(), tmp_path / "parts")
    assert int(parts.step) == 6
    for name in ("params", "ema", "opt_state"):
        assert digest(getattr(parts, name)) == digest(getattr(whole, name)), name
    assert seen[6:] == ids
    assert len(ids) == 6


def test_a_run_that_is_done_says_so_and_changes_nothing(tiny, digest, tmp_path, capsys):
    first = train(tiny(train__steps=3), tmp_path)
    again = train(tiny(train__steps=3), tmp_path)
    assert digest(first) == digest(again)
    assert "already at step 3" in capsys.readouterr().out


def test_lengths_and_intervals_may_change_on_resume_and_nothing_else(tiny, tmp_path):
    train(tiny(train__steps=1, train__checkpoint_every=1), tmp_path)
    train(tiny(train__steps=2, train__checkpoint_every=2, train__log_every=2), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError, match=r"train.learning_rate: 0.5 here, 0.0004 there; use another --workdir"):
        train(tiny(train__learning_rate=0.5), tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_stats_hold_no_line_of_a_future_that_was_undone(tiny, tmp_path):
    train(tiny(train__steps=2, train__checkpoint_every=2), tmp_path)
    with (tmp_path / "stats.jsonl").open("a") as file:
        file.write('{"step": 3, "loss": 1.0}\n{"step": 4, "lo')  # written after the checkpoint, the last one half
    train(tiny(train__steps=3, train__checkpoint_every=2), tmp_path)
    steps = [json.loads(line)["step"] for line in (tmp_path / "stats.jsonl").read_text().splitlines()]
    assert sorted(set(steps)) == [2, 3] or sorted(set(steps)) == [1, 2, 3]
    assert steps.count(3) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_exits_with_zero_and_the_run_goes_on_to_the_bit(start, digest, tmp_path, number):
    stopped = start(tmp_path / "stopped", train__steps=100_000, train__checkpoint_every=100_000)
    wait_for(stopped, "step 3/")
    stopped.send_signal(number)
    assert "stopped by a signal; saved step" in finish(stopped)
    step = load_checkpoint(tmp_path / "stopped").step
    finish(start(tmp_path / "stopped", train__steps=step + 2))
    finish(start(tmp_path / "whole", train__steps=step + 2))
    assert digest(final(tmp_path / "stopped")) == digest(final(tmp_path / "whole"))


def test_kill_9_also_in_mid_save_resumes_from_the_last_complete_checkpoint(start, digest, tmp_path):
    """With a checkpoint at every step a save is always under way."""
    workdir, steps = tmp_path / "killed", 40
    for after in ("step 2/", "step 9/", "step 17/"):
        process = start(workdir, train__steps=steps, train__checkpoint_every=1)
        wait_for(process, after)
        process.kill()
        process.wait()
        if (workdir / "checkpoints").is_dir():
            (workdir / "checkpoints" / "99.orbax-checkpoint-tmp").mkdir(exist_ok=True)  # an unfinished save, in any case
    output = finish(start(workdir, train__steps=steps, train__checkpoint_every=1))
    assert "resuming from step" in output
    assert not list((workdir / "checkpoints").glob("*tmp*"))
    finish(start(tmp_path / "whole", train__steps=steps, train__checkpoint_every=steps))
    assert digest(final(workdir)) == digest(final(tmp_path / "whole"))


def test_a_full_disk_ends_in_one_sentence_and_the_earlier_checkpoint_stays(start, tmp_path):
    finish(start(tmp_path, train__steps=2, train__checkpoint_every=2))
    limit = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); from sr3_jax.cli import main; sys.exit(main())"
    )
    process = start(tmp_path, code=limit, train__steps=4, train__checkpoint_every=1)
    _, errors = process.communicate()
    assert process.returncode == 2, errors
    assert errors.count("sr3: ") == 1
    assert "cannot be written" in errors
    assert "Traceback" not in errors
    assert load_checkpoint(tmp_path).step == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root; the test above needs nothing")
def test_a_disk_that_is_really_full_does_the_same(start, tmp_path):
    import subprocess

    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1200k", "tmpfs", tmp_path], check=False).returncode:
        pytest.skip("this machine does not allow mounting a small file system; the test above needs nothing")
    try:
        process = start(tmp_path, train__steps=10, train__checkpoint_every=1)
        _, errors = process.communicate()
        assert process.returncode == 2, errors
        assert "cannot be written" in errors
        assert "Traceback" not in errors
        assert load_checkpoint(tmp_path).step >= 1
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_training_stops_after_too_many_losses_that_are_not_finite(tiny, tmp_path, monkeypatch):
    train(tiny(train__steps=2), tmp_path)
    monkeypatch.setattr(loop.Method, "loss", lambda self, params, images, key, train=True: images[:, 0, 0, 0] * float("nan"))
    with pytest.raises(loop.TrainingDiverged, match=r"not finite for 3 updates in a row.*lower train\.learning_rate"):
        train(tiny(train__steps=50, train__max_bad_steps=3), tmp_path)
    assert load_checkpoint(tmp_path).step >= 2


def test_held_out_evaluation_gets_the_ema_and_leaves_numbers_and_a_picture(tiny, tmp_path):
    import numpy as np

    given = []

    def evaluate(params):
        given.append(params)
        return {"psnr": 10.0 - len(given)}, np.zeros((4, 4, 1), np.uint8)

    state = train(tiny(train__steps=4, train__evaluate_every=2, objective="regression"), tmp_path, evaluate)
    assert given[-1] is state.ema
    lines = [json.loads(line) for line in (tmp_path / "stats.jsonl").read_text().splitlines()]
    assert [(line["step"], line["eval_psnr"]) for line in lines if "eval_psnr" in line] == [(2, 9.0), (4, 8.0)]
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == ["00000002.png", "00000004.png"]
    assert load_checkpoint(tmp_path / "best.safetensors").step == 2  # regression keeps its best PSNR, as the paper does


def test_sr3_keeps_no_best_checkpoint(tiny, tmp_path):
    import numpy as np

    train(tiny(train__steps=1, train__evaluate_every=1), tmp_path, lambda _: ({"psnr": 1.0}, np.zeros((4, 4, 1), np.uint8)))
    assert not (tmp_path / "best.safetensors").exists()


def test_training_starts_from_given_weights(tiny, tmp_path, digest):
    given = train(tiny(train__steps=1), tmp_path / "given")
    again = train(tiny(train__steps=1, train__learning_rate=1e-30, train__init_from=str(tmp_path / "given")), tmp_path / "next")
    assert digest(again.params) == digest(given.ema)
    with pytest.raises(CheckpointError, match=r"parameter .* has shape .*, the config's network needs"):
        train(tiny(model__channels=16, train__init_from=str(tmp_path / "given")), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_checkpoints_saved_on_eight_devices_load_on_four(tiny, digest, tmp_path):
    import jax

    from sr3_jax import parallel
    from sr3_jax.method import Method
    from sr3_jax.training.state import init_state, make_optimizer

    config = tiny(train__steps=1, mesh__fsdp=8)
    eight = train(config, tmp_path)
    method, optimizer = Method(config), make_optimizer(config)
    abstract = jax.eval_shape(lambda: init_state(method, optimizer))
    mesh = jax.sharding.Mesh(jax.devices()[:4], ("fsdp",))
    sharding = jax.tree.map(lambda leaf: jax.sharding.NamedSharding(mesh, parallel.fsdp_spec(leaf.shape, 4)), abstract)
    abstract = jax.tree.map(lambda leaf, s: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=s), abstract, sharding)
    checkpoints = Checkpoints(tmp_path, config)
    four, position = checkpoints.restore(abstract)
    checkpoints.close()
    assert digest(four) == digest(eight)
    assert position == 1
    assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(four)} == {4}
