"""Real runs of a tiny network on eight devices."""

import functools
import json
import re
import shutil

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from sr3_jax.checkpoints.checkpoint import Checkpoint, CheckpointError
from sr3_jax.checkpoints.exported import export
from sr3_jax.checkpoints.names import load_checkpoint
from sr3_jax.checkpoints.workdir import complete_steps
from sr3_jax.data.cards import with_ancestors
from sr3_jax.errors import ConfigError, UserError
from sr3_jax.images import arrays
from sr3_jax.metrics import lpips
from sr3_jax.runtime import parallel
from sr3_jax.training import run as runs
from sr3_jax.training.loop import Interval, TrainingDiverged
from sr3_jax.training.step import training_program
from tests import tiny
from tests.tiny import assert_same_bits, contents, mesh_of, read_state


def read_stats(workdir):
    return [json.loads(line) for line in (workdir / "stats.jsonl").read_text().splitlines()]


def assert_close(found, expected, atol):
    for leaf, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(leaf, other, rtol=0, atol=atol)


def adam(state):
    return state.opt_state[1][0]


# -- restarts


def test_six_steps_equal_three_and_three_after_a_restart_to_the_bit(run, six, tmp_path):
    first = run(tmp_path, {"train.steps": 3})
    second = run(
        tmp_path,
        {
            "train.steps": 6,
            "train.log_every": 5,
            "train.checkpoint_every": 2,
            "train.keep_checkpoints": 2,
        },
    )
    assert int(first.state.step) == 3
    assert_same_bits(second.state, six.state)
    assert_same_bits(read_state(tmp_path), read_state(six.workdir))
    assert first.ids + second.ids == six.ids
    assert complete_steps(tmp_path) == [4, 6]
    assert len({tuple(ids) for ids in six.ids}) == 6  # six different batches


def test_a_run_that_is_done_stays_as_it_is_and_says_so(run, six, tmp_path, capsys):
    workdir = shutil.copytree(six.workdir, tmp_path / "copy")
    again = run(workdir, {"train.steps": 4})
    assert_same_bits(again.state, six.state)
    assert again.ids == again.evaluated == []
    assert f"{workdir} is already at step 6; raise train.steps" in capsys.readouterr().out
    assert complete_steps(workdir) == [3, 6]


def test_another_experiment_is_refused_naming_field_and_both_values_and_nothing_is_touched(
    run, six
):
    before = contents(six.workdir)
    with pytest.raises(
        CheckpointError,
        match=r"train\.learning_rate: 0\.5 here, 0\.001 there; use another --workdir",
    ):
        run(six.workdir, {"train.learning_rate": 0.5, "train.steps": 9})
    assert contents(six.workdir) == before


def test_a_cosine_that_would_jump_is_refused_and_one_with_a_later_end_goes_on_to_the_bit(
    run, tmp_path
):
    cosine = {"train.learning_rate_schedule": "cosine"}
    run(tmp_path / "ended", cosine | {"train.steps": 2})
    with pytest.raises(
        CheckpointError, match=r"train\.decay_steps: 4 here, 2 there.* with train\.init_from, or"
    ):
        run(tmp_path / "ended", cosine | {"train.steps": 4})
    whole = run(tmp_path / "whole", cosine | {"train.steps": 4})
    run(tmp_path / "parts", cosine | {"train.steps": 2, "train.decay_steps": 4})
    parts = run(tmp_path / "parts", cosine | {"train.steps": 4})
    assert_same_bits(parts.state, whole.state)


def test_a_checkpoint_whose_parts_are_of_different_steps_is_refused(run, six, tmp_path):
    workdir = shutil.copytree(six.workdir, tmp_path / "copy")
    meta = workdir / "checkpoints" / "6" / "meta" / "metadata"
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"position": 5}))
    with pytest.raises(UserError, match=r"checkpoints/6 is of step 6 and goes on with batch 5: "):
        run(workdir, {"train.steps": 7})


def test_what_a_step_measures_is_kept_in_few_numbers_until_it_is_written():
    interval = Interval()
    for loss in (1.0, 3.0, float("nan")):
        interval.add({"loss": loss, "gradient_norm": float("inf"), "bad_steps": loss})
    found = interval.read()
    assert found["loss"] == 2
    assert np.isnan(found["gradient_norm"])
    assert np.isnan(found["bad_steps"])
    assert not interval.last


# -- devices


@pytest.mark.parametrize(("fields", "devices"), [({}, 1), ({"mesh.data": 2, "mesh.fsdp": 4}, 8)])
def test_eight_devices_equal_one_and_two_times_four_with_everything_sharded(
    run, six, tmp_path, monkeypatch, fields, devices
):
    monkeypatch.setattr(parallel, "SMALLEST_SHARDED", 64)
    other = run(tmp_path, fields, mesh=mesh_of(jax.devices()[:1]) if devices == 1 else None)
    assert other.ids == six.ids
    assert_close(other.state, six.state, atol=1e-6)
    losses = [
        [line["loss"] for line in read_stats(workdir) if "loss" in line]
        for workdir in (tmp_path, six.workdir)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    state = other.state
    for tree in (state.params, state.ema, adam(state).mu, adam(state).nu):
        for leaf in jax.tree.leaves(tree):
            assert len(leaf.sharding.device_set) == devices
            # a large enough array of which some side divides by four is in four parts
            split = devices == 8 and leaf.size >= 64 and any(side % 4 == 0 for side in leaf.shape)
            assert {shard.data.size for shard in leaf.addressable_shards} == {
                leaf.size // (4 if split else 1)
            }


@pytest.mark.parametrize("fsdp", [1, 4])
def test_in_bfloat16_all_that_is_kept_stays_float32_and_the_loss_is_about_the_same(
    run, six, tmp_path, monkeypatch, fsdp
):
    monkeypatch.setattr(parallel, "SMALLEST_SHARDED", 64)
    state = run(tmp_path, {"model.dtype": "bfloat16", "mesh.fsdp": fsdp}).state
    for leaf in jax.tree.leaves((state.params, state.ema, adam(state).mu, adam(state).nu)):
        assert leaf.dtype == np.float32
    rounded, exact = (
        [line["loss"] for line in read_stats(place) if "loss" in line]
        for place in (tmp_path, six.workdir)
    )
    assert rounded == pytest.approx(exact, rel=1e-2)
    assert rounded != pytest.approx(exact, rel=1e-6)


def test_the_loop_moves_nothing_between_host_and_devices_behind_our_back(
    run, tmp_path, monkeypatch
):
    # Leaves it to the compiled step
    monkeypatch.setattr(parallel, "to_devices", lambda batch, mesh: batch)
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        run(tmp_path, {"train.steps": 1})


# -- what it leaves behind


def test_stats_are_one_json_a_line_in_order(six):
    steps = [line["step"] for line in read_stats(six.workdir) if "loss" in line]
    assert steps == [2, 3, 4, 5, 6]  # fetched one step late, so that the loop never waits
    for line in read_stats(six.workdir):
        assert all(np.isfinite(value) for value in line.values())


def test_after_a_restart_the_stats_hold_no_line_of_the_undone_future(run, six, tmp_path):
    workdir = shutil.copytree(six.workdir, tmp_path / "copy")
    shutil.rmtree(workdir / "checkpoints" / "6")
    with (workdir / "stats.jsonl").open("a") as file:
        file.write('{"step": 7, "lo')
    run(workdir, {"train.steps": 4, "train.evaluate_every": 2}, scores=[20.0])
    assert [line["step"] for line in read_stats(workdir)] == [2, 2, 3, 4, 4]
    assert read_stats(workdir)[-1] == {"step": 4, "eval_psnr": 20.0}
    assert read_stats(workdir)[:3] == read_stats(six.workdir)[:3]


def test_held_out_evaluation_gets_the_average_at_its_intervals_and_leaves_numbers_and_pictures(six):
    assert len(six.evaluated) == 3
    assert_same_bits(six.evaluated[-1], jax.device_get(six.state.ema))
    assert any(
        (a != b).any()
        for a, b in zip(*map(jax.tree.leaves, (six.evaluated[-1], six.state.params)), strict=True)
    )
    found = {
        line["step"]: line["eval_psnr"] for line in read_stats(six.workdir) if "eval_psnr" in line
    }
    assert found == {2: 10.0, 4: 10.0, 6: 10.0}
    pictures = {
        path.name: int(arrays.read(path, 1).pixels.max())
        for path in (six.workdir / "samples").iterdir()
    }
    assert pictures == {"00000002.png": 10, "00000004.png": 20, "00000006.png": 30}


@pytest.mark.parametrize(("step", "steps"), [(4, 5), (6, 6)])
def test_an_evaluation_that_a_stop_prevented_is_made_up_for_once(run, six, tmp_path, step, steps):
    """As if it had ended between saving at this step and evaluating."""
    workdir = shutil.copytree(six.workdir, tmp_path / "copy")
    if step == 4:
        run(workdir, {"train.steps": 4, "train.evaluate_every": 1_000_000})  # as it stands, at 6
        shutil.rmtree(workdir / "checkpoints" / "6")
        run(workdir, {"train.steps": 4, "train.evaluate_every": 1_000_000})
    lines = [
        line for line in read_stats(workdir) if not (line["step"] == step and "eval_psnr" in line)
    ]
    (workdir / "stats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    fields = {"train.steps": steps, "train.evaluate_every": 2}
    made_up = run(workdir, fields, scores=[33.0])
    assert {"step": step, "eval_psnr": 33.0} in read_stats(workdir)
    assert_same_bits(made_up.evaluated[0], jax.device_get(read_state(workdir, step).ema))
    assert run(workdir, fields).evaluated == []


def test_a_checkpoint_that_does_not_restore_leaves_the_config_as_it_was(run, six, tmp_path):
    workdir = shutil.copytree(six.workdir, tmp_path / "copy")
    for path in (workdir / "checkpoints" / "6" / "state").rglob("d/*"):
        path.write_bytes(b"")
    before = (workdir / "config.json").read_bytes()
    with pytest.raises(CheckpointError, match="6 is damaged"):
        run(workdir, {"train.steps": 99})
    assert (workdir / "config.json").read_bytes() == before


def test_what_was_converted_is_said_once_at_the_first_interval(run, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for i in range(40):
        (tmp_path / "faces").mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16, 4), np.uint8)).save(
            tmp_path / "faces" / f"{i}.png"
        )
    run(
        tmp_path / "run",
        {"data.source": "folder", "data.folder": str(tmp_path / "faces"), "train.steps": 3},
    )
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("converted")]
    assert re.fullmatch(
        r"converted so far: \d+ × alpha flattened onto white, \d+ × colour converted to grey", line
    )


def test_a_card_of_nothing_is_empty_and_an_ancestor_without_one_is_named_all_the_same():
    assert with_ancestors("", {}) == ""
    assert with_ancestors("# Data\n", {}) == "# Data\n"
    text = with_ancestors("# Data\n", {"teacher": ("/somewhere/b", "")})
    assert "## Its teacher, b, learned from other data\n\nNothing is known: " in text


def test_the_data_card_names_what_teacher_and_first_weights_learned_from(run, tmp_path):
    for name in ("mine", "theirs"):
        (tmp_path / name).mkdir()
        for i in range(40):
            shade = np.full((16, 16), 6 * i, np.uint8)
            Image.fromarray(shade).save(tmp_path / name / f"{i}.png")
        (tmp_path / name / "DATA.md").write_text(f"# Data\n\nImages of {name}.\n")
    data = {"data.source": "folder", "train.steps": 1, "train.warmup_steps": 0}
    mine, theirs = ({"data.folder": str(tmp_path / name)} for name in ("mine", "theirs"))
    run(tmp_path / "teacher", data | theirs)
    student = STUDENT | data | {"train.teacher": str(tmp_path / "teacher")}
    run(tmp_path / "student", student | mine)
    assert load_checkpoint(tmp_path / "student").data_card == (
        "# Data\n\nImages of mine.\n\n## Its teacher, teacher, learned from other data\n\n"
        "# Data\n\nImages of theirs.\n"
    )
    run(tmp_path / "tuned", data | theirs | {"train.init_from": str(tmp_path / "teacher")})
    assert load_checkpoint(tmp_path / "tuned").data_card == (
        "# Data\n\nImages of theirs.\n\n## Its first weights, teacher, learned from the same data\n"
    )


def test_the_data_card_stays_with_the_run_when_the_data_change_or_go(run, tmp_path):
    (tmp_path / "faces").mkdir()
    for i in range(8):
        Image.fromarray(np.full((16, 16), 20 * i, np.uint8)).save(tmp_path / "faces" / f"{i}.png")
    (tmp_path / "faces" / "DATA.md").write_text("Mine.")
    fields = {
        "data.source": "folder",
        "data.folder": str(tmp_path / "faces"),
        "data.eval_folder": str(tmp_path / "faces"),
    }
    run(tmp_path / "run", fields | {"train.steps": 1})
    (tmp_path / "faces" / "DATA.md").write_text("Yours.")
    run(tmp_path / "run", fields | {"train.steps": 2})
    shutil.rmtree(tmp_path / "faces")
    assert load_checkpoint(tmp_path / "run").data_card == "Mine."


def test_sr3_is_not_chosen_by_psnr(six):
    assert not (six.workdir / "best.safetensors").exists()


REGRESSION = {
    "objective": "regression",
    "model.dropout": 0.0,
    "train.batch_size": 16,
    "train.clip_norm": 0.0,
    "train.evaluate_every": 1,
    "train.steps": 3,
}


def test_regression_keeps_the_average_of_the_best_psnr_also_over_restarts(run, tmp_path):
    best = tmp_path / "best.safetensors"
    first = run(tmp_path, REGRESSION, scores=[10.0, 30.0, 20.0])

    def assert_kept(evaluated, step, psnr):
        with safe_open(best, framework="numpy") as file:
            assert float(file.metadata()["psnr"]) == psnr
        assert load_checkpoint(best).step == step
        assert_same_bits(jax.device_get(load_checkpoint(best).params), evaluated)

    assert_kept(first.evaluated[1], 2, 30.0)
    second = run(tmp_path, REGRESSION | {"train.steps": 5}, scores=[29.0, 31.0])
    assert len(second.evaluated) == 2
    assert_kept(second.evaluated[1], 5, 31.0)


def test_a_batch_in_two_parts_has_the_loss_and_gradient_of_the_whole(run, tmp_path):
    """Of the regression network without dropout, whose loss knows no chance."""
    whole = run(tmp_path / "whole", REGRESSION | {"train.steps": 1})
    parts = run(tmp_path / "parts", REGRESSION | {"train.steps": 1, "train.accumulate": 2})
    gradients = [
        jax.tree.map(lambda moment: moment / 0.1, adam(found.state).mu) for found in (parts, whole)
    ]
    assert_close(*gradients, atol=1e-6)
    assert max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(gradients[1])) > 1e-2
    losses = [read_stats(tmp_path / name)[0]["loss"] for name in ("whole", "parts")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


# -- where it starts


@pytest.mark.parametrize("kind", ["workdir", "export"])
def test_training_starts_from_given_weights_and_needs_them_only_once(run, six, tmp_path, kind):
    given = shutil.copytree(six.workdir, tmp_path / "given")
    if kind == "export":
        export(load_checkpoint(given), tmp_path / "given.safetensors")
        given = tmp_path / "given.safetensors"
    fields = {"train.init_from": str(given), "train.steps": 1}
    found = run(tmp_path / "new", fields)  # the learning rate of the first step is zero
    assert_same_bits(found.state.params, six.state.ema)
    assert_close(found.state.ema, six.state.ema, atol=1e-7)
    given.rename(tmp_path / "gone")
    run(tmp_path / "new", fields)


@pytest.mark.parametrize(
    ("flaw", "fields"),
    [("noise", {"task.noise": 8.0}), ("blur", {"task.blur": 1.0, "task.tell_blur": True})],
)
def test_a_network_that_is_to_be_told_of_a_flaw_starts_from_one_that_was_not(
    run, six, tmp_path, capsys, flaw, fields
):
    found = run(tmp_path / "new", {"train.init_from": str(six.workdir), "train.steps": 1} | fields)
    assert (
        "4 parameters are not in the checkpoint and were initialised randomly: "
        f"input_{flaw}_embedding.dense_0.bias" in capsys.readouterr().out
    )
    params = dict(found.state.params)
    new = params.pop(f"input_{flaw}_embedding")
    assert_same_bits(params, six.state.ema)
    assert not np.any(new["dense_1"]["kernel"])
    assert np.any(new["dense_0"]["kernel"])


def test_weights_of_another_network_are_refused_by_parameter_and_nothing_is_written(
    run, six, tmp_path
):
    with pytest.raises(
        CheckpointError,
        match=r"parameter \S+ has shape \(.*8.*\), the config's network needs \(.*16.*\)",
    ):
        run(tmp_path / "new", {"train.init_from": str(six.workdir), "model.channels": 16})
    assert list(tmp_path.iterdir()) == []


# -- distillation

STUDENT = {
    "objective": "distill",
    "schedule.name": "cosine",
    "sample.schedule": "respaced",
    "sample.steps": 2,
    "model.dropout": 0.0,
}


def test_a_student_starts_from_its_teacher_moves_towards_its_answers_and_restarts_to_the_bit(
    run, six, tmp_path, capsys
):
    fields = STUDENT | {"train.teacher": str(six.workdir), "train.warmup_steps": 0}
    single = {
        "sample.clip": False,
        "train.steps": 1,
        "train.learning_rate": 1e-12,
        "train.teacher_steps": 1,
    }
    still = run(tmp_path / "still", fields | single)
    assert_close(still.state.params, six.state.ema, atol=1e-10)
    [loss] = [line["loss"] for line in read_stats(tmp_path / "still") if "loss" in line]
    assert loss < 1e-3  # of a single step, it knows the answer
    run(tmp_path / "more", fields | single | {"train.teacher_steps": 2})
    assert f"learning from {six.workdir}: 2 evaluations instead of 4" in capsys.readouterr().out
    whole = run(tmp_path / "whole", fields | {"train.steps": 3})
    assert any(
        np.any(a != b)
        for a, b in zip(*map(jax.tree.leaves, (whole.state.params, six.state.ema)), strict=True)
    )
    teacher = shutil.copytree(six.workdir, tmp_path / "teacher")
    fields["train.teacher"] = str(teacher)
    run(tmp_path / "parts", fields | {"train.steps": 1})
    teacher.rename(tmp_path / "elsewhere")  # a student has its own copy
    parts = run(tmp_path / "parts", fields | {"train.steps": 3})
    assert_same_bits(parts.state, whole.state)


@pytest.mark.slow
def test_a_perceptual_student_takes_the_weights_of_lpips_and_says_so_where_there_are_none(
    run, six, tmp_path, monkeypatch
):
    fields = STUDENT | {"train.teacher": str(six.workdir), "train.steps": 1}
    plain = run(tmp_path / "plain", fields)
    fields["train.perceptual_weight"] = 3.0
    with pytest.raises(UserError, match="need the weights of LPIPS"):
        run(tmp_path / "none", fields)
    train = functools.partial(runs.train, features=functools.partial(lpips.load, "vgg"))
    monkeypatch.setattr(runs, "train", train)
    perceptual = run(tmp_path / "perceptual", fields)
    losses = [
        next(line["loss"] for line in read_stats(one.workdir) if "loss" in line)
        for one in (plain, perceptual)
    ]
    assert 0.01 < (losses[1] - losses[0]) / 3.0 < 2  # LPIPS


@pytest.mark.slow
def test_a_student_with_a_discriminator_goes_on_with_it_to_the_bit(run, six, tmp_path, monkeypatch):
    train = functools.partial(runs.train, features=functools.partial(lpips.load, "vgg"))
    monkeypatch.setattr(runs, "train", train)
    fields = STUDENT | {
        "train.teacher": str(six.workdir),
        "train.warmup_steps": 0,
        "train.adversarial_weight": 2.0,
    }
    whole = run(tmp_path / "whole", fields | {"train.steps": 2})
    run(tmp_path / "parts", fields | {"train.steps": 1})
    parts = run(tmp_path / "parts", fields | {"train.steps": 2})
    assert_same_bits(parts.state, whole.state)
    assert whole.state.discriminator is not None
    # the network and the discriminator have both learned
    # (where both sides of the hinge count, what moves a bias of the output cancels)
    moved = whole.state.discriminator.opt_state[0].mu
    assert all(np.abs(head["kernel"]).max() > 0 for head in moved.values())
    alone = run(tmp_path / "alone", fields | {"train.steps": 2, "train.adversarial_weight": 0.0})
    assert any(
        np.any(a != b)
        for a, b in zip(
            *map(jax.tree.leaves, (whole.state.params, alone.state.params)), strict=True
        )
    )


def test_a_student_with_a_discriminator_can_be_split_over_devices_in_half_precision(monkeypatch):
    monkeypatch.setattr(parallel, "SMALLEST_SHARDED", 64)
    config = tiny.get_config()
    config.update_from_flattened_dict(
        STUDENT
        | {
            "train.teacher": "somewhere",
            "train.perceptual_weight": 1.0,
            "train.adversarial_weight": 1.0,
            "model.dtype": "bfloat16",
            "mesh.fsdp": 4,
        }
    )
    program = training_program(config, parallel.make_mesh(config))
    state, _ = jax.eval_shape(program.step, program.state, program.batch, *program.teacher)
    assert state.discriminator is not None


def test_a_student_and_its_teacher_are_split_over_devices(run, six, tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "SMALLEST_SHARDED", 64)
    fields = STUDENT | {
        "train.teacher": str(six.workdir),
        "train.steps": 2,
        "train.warmup_steps": 0,
        "mesh.fsdp": 4,
    }
    one, four = (
        run(tmp_path / name, fields | more)
        for name, more in (("one", {"mesh.fsdp": 1}), ("four", {}))
    )
    assert one.ids == four.ids
    assert_close(four.state.params, one.state.params, atol=1e-6)


def test_a_teacher_that_cannot_teach_is_refused_before_anything_is_written(run, six, tmp_path):
    with pytest.raises(
        CheckpointError,
        match=r"parameter \S+ has shape \(.*8.*\), the config's network needs \(.*16.*\)",
    ):
        run(tmp_path / "a", STUDENT | {"train.teacher": str(six.workdir), "model.channels": 16})
    with pytest.raises(
        ConfigError, match=r"is another network: model\.predict: 'v' here, 'epsilon' there"
    ):
        run(tmp_path / "a", STUDENT | {"train.teacher": str(six.workdir), "model.predict": "v"})
    with pytest.raises(ConfigError, match=r"another network: data\.lr_size: 4 here, 8 there"):
        run(tmp_path / "a", STUDENT | {"train.teacher": str(six.workdir), "data.lr_size": 4})
    with pytest.raises(
        ConfigError, match=r"was trained on levels up to gamma = .*: take its schedule\.\* fields"
    ):
        run(
            tmp_path / "a",
            STUDENT | {"train.teacher": str(six.workdir), "schedule.log_snr_end": -15.0},
        )
    run(
        tmp_path / "told",
        {"train.init_from": str(six.workdir), "train.steps": 1, "task.noise": 4.0},
    )
    with pytest.raises(
        ConfigError, match="was trained with noise up to 4, and the student asks at 8"
    ):
        run(tmp_path / "a", STUDENT | {"train.teacher": str(tmp_path / "told"), "task.noise": 8.0})
    run(tmp_path / "two", STUDENT | {"train.teacher": str(six.workdir), "train.steps": 1})
    fields = STUDENT | {"train.teacher": str(tmp_path / "two"), "train.steps": 1}
    with pytest.raises(ConfigError, match="was distilled itself and knows only its own 2 levels"):
        run(tmp_path / "a", fields)
    with pytest.raises(ConfigError, match="the levels the same"):
        run(
            tmp_path / "a",
            fields
            | {"sample.steps": 1, "sample.schedule": "log_snr", "schedule.log_snr_end": -6.0},
        )
    assert not (tmp_path / "a").exists()
    assert int(run(tmp_path / "one", fields | {"sample.steps": 1}).state.step) == 1


# -- numbers that are not finite


def test_training_stops_after_too_many_bad_updates_and_the_last_checkpoint_is_good(
    run, six, tmp_path
):
    """Finite weights whose loss overflows float32."""
    params = jax.tree.map(lambda leaf: leaf * np.float32(1e30), load_checkpoint(six.workdir).params)
    export(Checkpoint(six.config, params, 0, "explosive"), tmp_path / "explosive.safetensors")
    fields = {
        "train.init_from": str(tmp_path / "explosive.safetensors"),
        "train.steps": 50,
        "train.max_bad_steps": 3,
    }
    with pytest.raises(
        TrainingDiverged,
        match=r"3 updates in a row.*train\.max_bad_steps = 3.*lower train\.learning_rate",
    ):
        run(tmp_path / "new", fields | {"train.checkpoint_every": 1})
    last = load_checkpoint(tmp_path / "new")
    assert last.step == complete_steps(tmp_path / "new")[-1] >= 2
    assert_same_bits(read_state(tmp_path / "new").params, params)
    assert read_stats(tmp_path / "new")[0]["loss"] is None


def test_it_stops_soon_after_too_many_bad_updates_however_seldom_it_logs(run, six, tmp_path):
    params = jax.tree.map(lambda leaf: leaf * np.float32(1e30), load_checkpoint(six.workdir).params)
    export(Checkpoint(six.config, params, 0, "explosive"), tmp_path / "explosive.safetensors")
    fields = {
        "train.init_from": str(tmp_path / "explosive.safetensors"),
        "train.steps": 50,
        "train.max_bad_steps": 3,
    }
    with pytest.raises(TrainingDiverged, match=r"3 updates in a row up to step 3 "):
        run(tmp_path / "new", fields | {"train.log_every": 1000, "train.checkpoint_every": 1})
    assert complete_steps(tmp_path / "new")[-1] <= 5
