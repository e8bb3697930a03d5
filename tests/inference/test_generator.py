"""Cascades: images that depend on seed and number alone, stages that fit, noise that is left."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sr3_jax.config
from sr3_jax import cli
from sr3_jax.checkpoints.exported import export
from sr3_jax.diffusion import samplers, schedules
from sr3_jax.errors import UserError
from sr3_jax.images import arrays
from sr3_jax.inference import generated
from sr3_jax.inference.classes import labels_of
from sr3_jax.inference.engine import Engine
from sr3_jax.inference.generator import Drawing, Generator
from sr3_jax.inference.sampling import Sampling
from sr3_jax.runtime import parallel
from tests.tiny import random_checkpoint, tiny_config


def base_config(classes=3, size=8, channels=1):
    config = tiny_config(channels)
    config.task.kind, config.data.hr_size, config.data.lr_size = "generation", size, size
    config.model.predict_residual = False
    config.model.classes, config.train.label_dropout = classes, 0.1 if classes else 0.0
    config.sample.steps = 3
    return config


def stage_config(classes=3, augment=20.0, channels=1):
    config = tiny_config(channels)
    config.model.classes, config.task.augment = classes, augment
    config.train.label_dropout = 0.1 if classes else 0.0
    return config


@pytest.fixture(scope="module")
def base():
    return random_checkpoint(base_config(), "base", 0.3)


@pytest.fixture(scope="module")
def stage():
    return random_checkpoint(stage_config(), "stage", 0.3)


@pytest.fixture(scope="module")
def cascade(base, stage):
    return Generator([base, stage], batch_size=4)


def close(a, b):
    """Equal to a level: another batch size is another program, and may round otherwise."""
    return np.abs(a.astype(int) - b.astype(int)).max() <= 1


def test_an_image_depends_on_seed_and_number_alone(base, stage, cascade):
    whole = cascade(7, guidance=2.0)
    assert whole.shape == (7, 16, 16, 1)
    assert close(cascade(3, first=4, guidance=2.0), whole[4:])
    assert close(Generator([base, stage], batch_size=2)(7, guidance=2.0), whole)
    assert not close(cascade(7, guidance=2.0, seed=1), whole)
    assert not close(whole[:1], whole[1:2])


def test_class_guidance_steps_and_augmentation_all_change_the_images(cascade):
    plain = cascade(4, classes=[1])
    for options in (
        {"classes": [2]},
        {"classes": [1], "guidance": 4.0},
        {"classes": [1], "guidance": (1, 4.0)},
        {"classes": [1], "steps": (5, 0)},
        {"classes": [1], "augment": 20},
        {"classes": [1], "augment": 20, "truncated": True},
    ):
        assert not close(cascade(4, **options), plain), options
    assert close(cascade(4, classes=[1], guidance=1), plain)
    outside = cascade(4, classes=[1], guidance=4.0, guidance_interval=(15, 16))
    assert close(outside, plain)  # no noise level of these samplers lies there


def test_every_image_of_a_batch_has_its_own_class(cascade):
    mixed = cascade(4, classes=[0, 2])
    assert close(mixed[1:2], cascade(1, first=1, classes=[2]))
    assert close(mixed[2:3], cascade(1, first=2, classes=[0]))


@pytest.mark.parametrize("task", ["base", "stage"])
def test_guidance_is_the_same_on_a_canvas_as_in_a_batch(task, request):
    """In one tile of the network's own size, where the noise is the same too."""
    engine = Engine(request.getfixturevalue(task), batch_size=1)
    size, channels = engine.lr_size, 0 if task == "base" else 1
    lr = np.random.default_rng(0).uniform(-1, 1, (size, size, channels)).astype(np.float32)
    for guidance in (None, 3.0):
        sampling = Sampling(guidance=guidance, signals={"label": 1})
        (batch,) = engine.batch(lr[None], [5], sampling)
        np.testing.assert_allclose(engine.canvas(lr, 5, sampling), batch, atol=1e-4)
    plain, guided = (
        engine.canvas(lr, 5, Sampling(guidance=weight, signals={"label": 1})) for weight in (1, 3.0)
    )
    assert np.abs(plain - guided).max() > 1e-3


def test_noise_can_become_a_picture_of_any_size_in_tiles(base):
    engine = Engine(base, batch_size=2)
    picture = engine.canvas(np.zeros((11, 20, 0), np.float32), 0, Sampling(signals={"label": 2}))
    assert picture.shape == (11, 20, 1)
    assert picture.std() > 0.01


def test_classes_are_drawn_taken_in_turn_or_chosen_by_number_and_name():
    config = base_config()
    config.data.class_names = ("cat", "dog", "newt")
    base = random_checkpoint(config)
    numbers = np.arange(3000)
    drawn = labels_of(base, "all", numbers)
    assert np.abs(np.bincount(drawn) - 1000).max() < 100
    np.testing.assert_array_equal(labels_of(base, "all", numbers[7:9]), drawn[7:9])
    assert (labels_of(base, "all", numbers, seed=1) != drawn).any()
    assert labels_of(base, "balanced", numbers[:5]).tolist() == [0, 1, 2, 0, 1]
    for chosen in ("newt,0", [2, "cat"], "2, 0"):
        assert labels_of(base, chosen, numbers[:3]).tolist() == [2, 0, 2]
    for wrong in ("3", "bird", "-1", "1.5", []):
        with pytest.raises(UserError, match="class"):
            labels_of(base, wrong, numbers)
    unconditional = random_checkpoint(base_config(classes=0))
    assert labels_of(unconditional, "all", numbers) is None
    with pytest.raises(UserError, match="knows no classes"):
        labels_of(unconditional, "3", numbers)


def refuse(message, *configs, **options):
    stages = [random_checkpoint(config, f"stage-{i}") for i, config in enumerate(configs)]
    with pytest.raises(UserError, match=message):
        Generator(stages).stages(Drawing(**options))


def test_stages_that_do_not_fit_are_named():
    refuse("needs at least one stage")
    refuse("stage-0 enlarges images", stage_config())
    refuse("stage-1 makes images from noise", base_config(), base_config())
    refuse("stage-0 makes images of 16², and stage-1 .* 8²", base_config(size=16), stage_config())
    refuse("1 channels, and stage-1 .* 3", base_config(), stage_config(channels=3))
    refuse("stage-0 knows no classes, and stage-1 knows 3", base_config(0), stage_config(3))
    refuse("knows 4 classes, and stage-1 knows 3", base_config(4), stage_config(3))


def test_choices_that_the_networks_do_not_have_are_one_sentence():
    two = base_config(), stage_config()
    refuse("steps = 1, 2, 3: .* each of the 2 stages", *two, steps=(1, 2, 3))
    refuse("guidance = 2 is for networks that know classes", base_config(0), guidance=(2,))
    refuse("guidance = 101 must lie between", *two, guidance=(101,))
    refuse("guidance_interval = .* the lower one first", *two, guidance_interval=(2, 1))
    refuse("there is only one stage", base_config(), augment=(5,))
    refuse("augment = 21 must lie between 0 and 20", *two, augment=(21,))
    refuse("stage-1 was not trained with task.augment", two[0], stage_config(3, 0.0), augment=(5,))
    refuse("truncated needs augment", *two, truncated=True)
    refuse("seed = -1", *two, seed=-1)


def test_a_stage_without_classes_follows_one_with_classes(base):
    plain = random_checkpoint(stage_config(classes=0), "plain", 0.3)
    assert Generator([base, plain])(2, guidance=2.0).shape == (2, 16, 16, 1)


@pytest.mark.parametrize("sampler", [samplers.ancestral, samplers.ddim, samplers.dpm_solver])
@pytest.mark.parametrize("level", [0.1, 0.5])
def test_a_truncated_sampler_leaves_as_much_noise_as_it_was_asked_for(sampler, level):
    """With the exact denoiser of y_0 ~ N(m, s²), y / √gamma must be N(m, s² + level²)."""
    mean, spread = 0.3, 0.2

    def denoise(condition, y_t, gamma):
        gamma = gamma[:, None, None, None]
        gain = jnp.sqrt(gamma) * spread**2 / (gamma * spread**2 + 1 - gamma)
        return mean + gain * (y_t - jnp.sqrt(gamma) * mean)

    end = 1 / (1 + level**2)
    steps = sampler(schedules.truncated(schedules.log_snr(80, 9.0, -9.0), end))
    assert float(steps.gamma.max()) < end
    keys = jax.random.split(jax.random.key(0), 256)
    y = samplers.sample(denoise, None, keys, steps, shape=(256, 4, 4, 1)) / np.sqrt(end)
    assert float(y.mean()) == pytest.approx(mean, abs=0.02)
    assert float(y.std()) == pytest.approx(np.hypot(spread, level), rel=0.05)


def test_a_truncated_stage_hands_on_the_noise_that_the_next_is_told_of(base, stage):
    """Its input differs from the finished image by about that noise, and is not clipped."""
    seen = {}
    generator = Generator([base, stage], batch_size=4)
    inner = generator.engines[1].batch

    def watch(lr, ids, sampling, on_batch, signals, link):
        seen["lr"], seen["augment"], seen["noisy"] = lr, signals["augment"], link.noisy
        return inner(lr, ids, sampling, on_batch, signals, link)

    generator.engines[1].batch = watch
    generator(4, augment=20, truncated=True)
    noisy = seen["lr"]
    assert seen["noisy"]
    assert (seen["augment"] == 20).all()
    generator(4, augment=20)
    assert not seen["noisy"]
    levels = (seen["lr"] + 1) * 127.5
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-3)  # as a file would hold it
    assert (noisy - seen["lr"]).std() > 0.02


# -- files


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    monkeypatch.setattr(parallel, "start", lambda config=None: None)


@pytest.fixture(scope="module")
def places(base, stage, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stages")
    for name, checkpoint in (("base", base), ("stage", stage)):
        export(checkpoint, folder / f"{name}.safetensors")
    return [f"--stage={folder}/{name}.safetensors" for name in ("base", "stage")]


def files(output, folder="images"):
    root = output / folder
    return {
        str(path.relative_to(root)): arrays.read(path, 1).pixels for path in root.rglob("*.png")
    }


def generate(*words):
    return cli.main(["generate", "--quiet", *words])


def test_the_command_writes_a_folder_for_each_class_and_goes_on_where_it_stopped(
    places, tmp_path, capsys
):
    output = tmp_path / "made"
    words = [*places, f"--output={output}", "--classes=balanced", "--keep-stages", "--batch=4"]
    assert generate(*words, "--count=7") == 0
    assert "images" in capsys.readouterr().out
    made = files(output)
    assert sorted(made)[:3] == ["0/0000000.png", "0/0000003.png", "0/0000006.png"]
    assert len(made) == 7
    assert {pixels.shape for pixels in made.values()} == {(16, 16, 1)}
    assert {pixels.shape for pixels in files(output, "stage-1").values()} == {(8, 8, 1)}
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["labels"] == [0, 1, 2, 0, 1, 2, 0]
    assert [one["size"] for one in manifest["stages"]] == [8, 16]
    assert (output / "sheet.png").exists()
    # as after a kill: some are missing, one has not its first stage
    kept = output / "images/1/0000004.png"
    before = kept.stat().st_mtime_ns
    (output / "images/0/0000003.png").unlink()
    (output / "stage-1/2/0000005.png").unlink()
    assert generate(*words, "--count=9", "--json") == 0
    assert json.loads(capsys.readouterr().out)["made"] == 4
    assert kept.stat().st_mtime_ns == before
    again = files(output)
    assert len(again) == 9
    assert all(close(again[name], pixels) for name, pixels in made.items())


def test_shards_together_make_what_one_machine_makes(places, tmp_path):
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    assert generate(*places, f"--output={alone}", "--count=5") == 0
    for shard in ("2/2", "1/2"):
        assert not (shared / "sheet.png").exists()
        assert generate(*places, f"--output={shared}", "--count=5", f"--shard={shard}") == 0
    one, other = files(alone), files(shared)
    assert one.keys() == other.keys()
    assert all(close(one[name], other[name]) for name in one)
    assert (shared / "sheet.png").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--classes=9"], "has no class '9'"),
        (["--guidance=x"], "--guidance=x must be a number"),
        (["--guidance=-1"], "must lie at or above 0"),
        (["--guidance-interval=1"], "two log-SNRs"),
        (["--steps=4,4,4"], "each of the 2 stages"),
        (["--steps=1.5"], "must be a whole number"),
        (["--shard=5/4"], "I from 1 to N"),
        (["--truncated"], "truncated needs augment"),
        (["--count=0"], "--count=0"),
        (["--stage=nothing"], "no checkpoint at 'nothing'"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_made(places, tmp_path, capsys, words, message):
    output = tmp_path / "made"
    assert generate(*places, f"--output={output}", *words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not output.exists()


def test_the_folder_of_another_run_is_left_alone(places, tmp_path, capsys):
    output = tmp_path / "made"
    assert generate(*places, f"--output={output}", "--count=4") == 0
    before = {name: pixels.tobytes() for name, pixels in files(output).items()}
    for words, message in (
        (["--count=4", "--seed=1"], "seed: 1 here, 0 there"),
        (["--count=4", "--guidance=2"], "stages"),
        (["--count=3"], "is fewer"),
    ):
        assert generate(*places, f"--output={output}", *words) == 2
        assert message in capsys.readouterr().err
    assert {name: pixels.tobytes() for name, pixels in files(output).items()} == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    assert generate(*places, f"--output={tmp_path / 'mine'}") == 2
    assert "not of `sr3 generate`" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]


def test_a_run_that_is_not_complete_is_not_evaluated(places, tmp_path):
    output = tmp_path / "made"
    assert generate(*places, f"--output={output}", "--count=4", "--shard=1/2") == 0
    with pytest.raises(UserError, match="has 2 of 4 images"):
        generated.files_of(output)
    assert generate(*places, f"--output={output}", "--count=4") == 0
    assert generated.files_of(output) == output / "images"
    assert generated.files_of(tmp_path) == tmp_path


def test_a_class_name_with_a_slash_is_one_folder(base, tmp_path):
    config = base_config()
    config.data.class_names = ("T-shirt/top", "..", "ok")
    named = dataclasses.replace(base, config=config)
    sr3_jax.config.validate(config)
    generated.generate(Generator([named]), generated.Run(tmp_path / "made", 3, "balanced"))
    assert sorted(files(tmp_path / "made")) == [
        "-/0000001.png",
        "T-shirt-top/0000000.png",
        "ok/0000002.png",
    ]
