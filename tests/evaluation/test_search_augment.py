"""The search for a stage's conditioning augmentation."""

import json

import jax.numpy as jnp
import pytest

from sr3_jax import cli
from sr3_jax.checkpoints.exported import export
from sr3_jax.errors import UserError
from sr3_jax.evaluation import search_augment
from sr3_jax.inference.generator import Generator
from sr3_jax.metrics.networks.inception import Outputs
from sr3_jax.runtime import parallel
from tests.tiny import random_checkpoint, tiny_config


class Network:
    """Features: brightness and its deviation, in four quarters."""

    name, resize = "quarters", "none"

    def __call__(self, images):
        x = jnp.asarray(images, jnp.float32)[..., 0] / 255
        quarters = x.reshape(len(x), 2, 8, 2, 8)
        return Outputs(
            quarters.mean((2, 4)).reshape(len(x), 4), quarters.std((1, 2, 3, 4))[:, None]
        )


@pytest.fixture(scope="module")
def stages():
    base = tiny_config()
    base.task.kind, base.data.hr_size, base.data.lr_size = "generation", 8, 8
    base.model.predict_residual = False
    stage = tiny_config()
    stage.task.augment = 40.0
    return [random_checkpoint(base, "base", 0.3), random_checkpoint(stage, "stage", 0.3)]


def test_every_level_is_tried_with_the_same_images_and_the_best_comes_first(stages, tmp_path):
    tried = []
    generator = Generator(stages, batch_size=50)
    found = search_augment.search(
        generator, [0, 40, 0], Network(), count=100, folder=tmp_path, on_tried=tried.append
    )
    assert [one.level for one in tried] == [0, 40, 0]
    assert tried[0].distance == pytest.approx(tried[2].distance)
    assert tried[0].distance != pytest.approx(tried[1].distance)
    assert found[0].distance == min(one.distance for one in tried)
    written = json.loads((tmp_path / "augment.json").read_text())
    assert [one["level"] for one in written["tried"]] == [0, 40, 0]
    assert written["network"] == "quarters"


def test_what_cannot_be_searched_is_one_sentence(stages):
    plain = random_checkpoint(tiny_config(), "plain")
    with pytest.raises(UserError, match=r"plain was not trained with task\.augment"):
        search_augment.search(Generator([stages[0], plain]), [0.0], Network())
    with pytest.raises(UserError, match="at least 100"):
        search_augment.search(Generator(stages), [0.0], Network(), count=9)
    with pytest.raises(UserError, match="augment = 41"):
        search_augment.search(Generator(stages), [41.0], Network(), count=100)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--augment=0,5"], "needs both --augment"),
        (["--before={b}"], "needs both --augment"),
        (["--augment=0,5", "--before={b}"], "needs --classifier=FILE or --inception"),
        (["--augment=0,x", "--before={b}"], "--augment=x must be a number"),
    ],
)
def test_the_command_says_what_it_needs(stages, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.setattr(parallel, "start", lambda config=None: None)
    for checkpoint, name in zip(stages, ("b", "s"), strict=True):
        export(checkpoint, tmp_path / f"{name}.safetensors")
    given = [word.format(b=tmp_path / "b.safetensors") for word in words]
    assert cli.main(["search", f"--checkpoint={tmp_path / 's.safetensors'}", *given]) == 2
    assert message in capsys.readouterr().err
    assert len(list(tmp_path.iterdir())) == 2
