"""The search for schedules: bounded, resumable, and its winner becomes the default."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from sr3_jax.checkpoints import exported, names
from sr3_jax.checkpoints.checkpoint import CheckpointError
from sr3_jax.config import validate
from sr3_jax.diffusion.registry import SAMPLERS
from sr3_jax.errors import UserError
from sr3_jax.evaluation import search as schedule_search
from sr3_jax.evaluation.search import (
    RANGES,
    Trial,
    fields_of,
    halton,
    picture,
    propose,
    search,
)
from sr3_jax.inference.sampling import Sampling
from sr3_jax.inference.upscaler import Upscaler
from sr3_jax.method import sampling_steps
from sr3_jax.metrics.networks.inception import Outputs
from tests.tiny import tiny_checkpoint


@pytest.fixture
def checkpoint(monkeypatch):
    # Tested elsewhere
    monkeypatch.setattr(schedule_search, "lpips", lambda images, references: np.ones(len(images)))
    return tiny_checkpoint()  # on the ORL faces


@pytest.mark.fast
def test_every_point_of_the_cube_is_a_valid_schedule_within_the_bounds():
    config = tiny_checkpoint().config
    seen = set()
    for number in range(1, 200):
        fields = fields_of(halton(number, 1 + len(RANGES)))
        steps = sampling_steps(config, 8, fields)
        assert steps.evaluations == (7 if fields["sampler"] == "heun" else 8)
        assert 1 <= fields["log_snr_start"] <= 9
        assert fields["rho"] == 0 or fields["rho"] >= 1
        changed = config.copy_and_resolve_references()
        changed.sample.update(fields)
        validate(changed)
        seen.add(fields["sampler"])
    assert seen == set(SAMPLERS)
    for corner in np.ndindex(2, 2, 2, 2):
        sampling_steps(config, 3, fields_of(np.array(corner, float)))


@pytest.mark.fast
def test_the_first_half_is_spread_evenly_and_the_second_comes_closer_to_the_best():
    points = np.array([halton(n, 4) for n in range(1, 257)])
    assert np.abs(points.mean(0) - 0.5).max() < 0.02
    assert np.histogram(points[:, 0], 8, (0, 1))[0].min() >= 30
    done = [
        Trial(i, point.tolist(), {"psnr": float(i == 5), "lpips": 0.5})
        for i, point in enumerate(points[:10])
    ]
    assert not np.array_equal(propose(done[:9], 20, "psnr"), points[5])
    np.testing.assert_array_equal(propose(done[:9], 20, "psnr"), points[9])
    later = [propose([*done, *done[:k]], 20, "psnr") for k in range(10)]
    assert all(point[0] == points[5][0] for point in later)
    distances = [np.abs(point - points[5]).max() for point in later]
    assert 0 < max(distances) < 0.9


def test_fid_and_kid_are_those_of_the_networks_features_and_need_the_network(
    checkpoint, tmp_path, monkeypatch
):
    class Network:  # as Inception, of other features
        name = "means"

        def __call__(self, images):
            blocks = images.reshape(len(images), 4, 4, 4, 4, 1).astype(np.float32).mean((2, 4))
            return Outputs(
                blocks.reshape(len(images), -1) / 255, np.zeros((len(images), 1008), np.float32)
            )

    with pytest.raises(UserError, match="--metric=fid needs --inception=PATH"):
        search(checkpoint, 2, 2, "fid", tmp_path, 8)
    tried = []
    found = search(checkpoint, 2, 4, "fid", tmp_path, 40, tried.append, Network())
    assert found.searched["fid"] == min(trial.scores["fid"] for trial in tried)
    images = schedule_search.held_out.load(checkpoint.config, 40, "validation")
    judge = schedule_search.Judge(Upscaler(checkpoint), images, np.arange(0, 40, 2), Network())
    again = judge(2, found.fields)
    assert (again["fid"], again["kid"]) == pytest.approx(
        (found.searched["fid"], found.searched["kid"]), rel=1e-4, abs=1e-6
    )
    assert again["fid"] > 0


def test_a_stopped_search_goes_on_to_the_same_end_and_its_winner_is_the_default(
    checkpoint, tmp_path
):
    stopped = []

    def stop_after_two(trial):
        stopped.append(trial)
        if len(stopped) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(checkpoint, 2, 4, "psnr", tmp_path / "a", 8, stop_after_two)
    assert len(json.loads((tmp_path / "a" / "trials.json").read_text())["done"]) == 2
    resumed, whole = [], []
    found = search(checkpoint, 2, 4, "psnr", tmp_path / "a", 8, resumed.append)
    other = search(checkpoint, 2, 4, "psnr", tmp_path / "b", 8, whole.append)
    assert [trial.point for trial in resumed] == [trial.point for trial in whole]
    assert found.fields == other.fields
    best = max(whole, key=lambda trial: trial.scores["psnr"])
    assert found.fields == best.fields
    assert found.searched["psnr"] == pytest.approx(best.scores["psnr"], abs=0.01)

    file = tmp_path / "tiny.safetensors"
    exported.export(checkpoint, file)
    schedule_search.keep(names.schedules_file(file), 2, found)
    schedule_search.keep(names.schedules_file(file), 30, found)
    loaded = names.load_checkpoint(file)
    assert loaded.schedules == {"2": found.fields, "30": found.fields}
    table = Upscaler(loaded, batch_size=1).engine.table(Sampling(2))
    for column, wanted in zip(table, sampling_steps(loaded.config, 2, found.fields), strict=True):
        np.testing.assert_array_equal(column, wanted)
    default = Upscaler(loaded, batch_size=1).engine.table(Sampling(3))
    np.testing.assert_array_equal(default.gamma, sampling_steps(loaded.config, 3).gamma)
    # ... and travels inside an export
    exported.export(loaded, tmp_path / "again.safetensors")
    assert names.load_checkpoint(tmp_path / "again.safetensors").schedules == loaded.schedules


def test_what_cannot_be_searched_is_one_sentence(checkpoint, tmp_path):
    search(checkpoint, 1, 1, "psnr", tmp_path, 4)
    with pytest.raises(UserError, match=r"another search \(evaluations: 2 here, 1 there\)"):
        search(checkpoint, 2, 1, "psnr", tmp_path, 4)
    other = dataclasses.replace(
        checkpoint, params=jax.tree.map(lambda leaf: leaf + 1, checkpoint.params)
    )
    with pytest.raises(UserError, match=r"another search \(parameters"):
        search(other, 1, 1, "psnr", tmp_path, 4)
    (tmp_path / "trials.json").write_text("{")
    with pytest.raises(UserError, match="is damaged; remove it"):
        search(checkpoint, 1, 1, "psnr", tmp_path, 4)
    with pytest.raises(UserError, match="--metric=ssim can be lpips or psnr or fid or kid"):
        search(checkpoint, 2, 1, "ssim", tmp_path / "x", 4)
    for objective, kind in (("regression", "regression"), ("distill", "student")):
        with pytest.raises(UserError, match=f"a {kind} network"):
            search(tiny_checkpoint(objective=objective), 2, 1, "psnr", tmp_path / "x", 4)


@pytest.mark.fast
@pytest.mark.parametrize(
    "text", ["nothing", "[]", '{"8": {"colour": 1}}', '{"eight": {}}', '{"8": 3}']
)
def test_a_damaged_file_of_schedules_is_named(tmp_path, text):
    (tmp_path / "a.schedules.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"a\.schedules\.json is not what"):
        names.read_schedules(tmp_path / "a.safetensors")


@pytest.mark.fast
def test_the_plot_shows_every_trial():
    rng = np.random.default_rng(0)
    trials = [
        Trial(i, halton(i + 1, 4).tolist(), {"psnr": rng.uniform(20, 25), "lpips": rng.uniform()})
        for i in range(30)
    ]
    sheet = picture(trials, "lpips")
    assert sheet.shape == (480, 480, 3)
    assert len(np.unique(sheet.reshape(-1, 3), axis=0)) > 4
    assert picture(trials[:1], "psnr").shape == (480, 480, 3)


def test_levels_are_not_searched_on_the_images_of_a_table(checkpoint, tmp_path, monkeypatch):
    """The table of the AT&T faces is of people 31-40."""
    seen = []

    class Looking(schedule_search.Judge):
        def __init__(self, upscaler, images, rows, inception=None):
            seen.extend(images.names)
            super().__init__(upscaler, images, rows, inception)

    monkeypatch.setattr(schedule_search, "Judge", Looking)
    search(checkpoint, 2, 1, "psnr", tmp_path)
    assert {name.partition("/")[0] for name in seen} == {f"s{person}" for person in range(26, 31)}
