"""docs/extending.md: a new corruption, or a new sampler, takes one file and one line."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sr3_jax.config
from sr3_jax import cli
from sr3_jax.diffusion import registry, samplers
from sr3_jax.inference.upscaler import Upscaler
from sr3_jax.method import sampling_steps
from sr3_jax.tasks import build_task
from sr3_jax.tasks.corruptions import CORRUPTIONS
from tests.tiny import random_checkpoint, tiny_config

PAGE = (Path(__file__).parent.parent / "docs" / "extending.md").read_text()


@pytest.fixture
def sharpen(monkeypatch):
    """The page's file, and its line."""
    source = next(
        block
        for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
        if "CORRUPTION = " in block
    )
    names = {}
    exec(compile(source, "sharpen.py", "exec"), names)
    monkeypatch.setitem(CORRUPTIONS, "sharpen", names["CORRUPTION"])
    return names["CORRUPTION"]


def test_a_new_corruption_is_trained_on_told_and_explained_everywhere(sharpen, capsys):
    config = tiny_config()
    config.task.sharpen = 1.5
    sr3_jax.config.validate(config)
    assert [signal.name for signal in build_task(config).signals] == ["sharpen"]
    assert any(
        field.name == "task.sharpen" and "unsharp masking" in field.meaning
        for field in sr3_jax.config.fields()
    )
    hr = jax.random.uniform(jax.random.key(0), (64, 16, 16, 1), minval=-0.5, maxval=0.5)
    clean, (image, signals) = (
        build_task(config).corrupt(hr),
        build_task(config).corrupt(hr, jax.random.key(1)),
    )
    sharper = jnp.std(image, (1, 2, 3)) > jnp.std(clean.image, (1, 2, 3)) + 0.01
    assert (sharper == (signals["sharpen"] > 0.1)).mean() > 0.9
    upscaler = Upscaler(random_checkpoint(config), batch_size=1)
    small = np.asarray(clean.image[0] * 127 + 128, np.uint8)
    assert (upscaler(small, sharpen=1.0) != upscaler(small)).any()
    assert cli.main(["upscale", "--help"]) == 0
    assert "unsharp masking" in capsys.readouterr().out.lower()


def test_a_new_sampler_is_offered_and_runs_in_tiles(monkeypatch):
    table = registry.Sampler(lambda schedule, variance, eta: samplers.ddim(schedule, 1 - eta))
    monkeypatch.setitem(registry.SAMPLERS, "mine", table)
    monkeypatch.setitem(sr3_jax.config.CHOICES, "sample.sampler", tuple(registry.SAMPLERS))
    config = tiny_config()
    found = sampling_steps(config, 4, {"sampler": "mine"})
    np.testing.assert_array_equal(
        found.keep, sampling_steps(config, 4, {"sampler": "ddim", "eta": 1.0}).keep
    )
    upscaler = Upscaler(random_checkpoint(config), batch_size=1)
    image = np.random.default_rng(0).integers(0, 256, (9, 20, 1), np.uint8)
    assert (upscaler(image, sampler="mine") != upscaler(image, sampler="ddim")).any()
