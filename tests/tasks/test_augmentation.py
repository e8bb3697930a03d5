"""Noise-conditioning augmentation: noise that the program adds, and tells the network of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr3_jax.errors import UserError
from sr3_jax.inference.engine import Engine
from sr3_jax.inference.sampling import Sampling
from sr3_jax.tasks import build_task
from sr3_jax.tasks.augmentation import augmented
from sr3_jax.tasks.task import Given
from tests.tiny import random_checkpoint, tiny_config


def config_with(high, **fields):
    config = tiny_config(noise=4.0)
    config.task.augment = high
    config.task.update(fields)
    return config


@pytest.fixture(scope="module")
def engine():
    return Engine(random_checkpoint(config_with(30.0)), batch_size=2)


def test_half_of_the_images_get_noise_of_the_level_that_is_told():
    flat = Given(jnp.zeros((400, 16, 16, 3)), {"noise": jnp.full(400, 2.0)})
    given = jax.jit(lambda key: augmented(flat, 25.0, key))(jax.random.key(0))
    level = np.asarray(given.signals["augment"])
    assert 0.42 < (level == 0).mean() < 0.58
    assert 20 < level.max() <= 25
    assert np.median(level[level > 0]) < 25 / 2  # weak noise is more likely
    spread = np.asarray(given.image).std(axis=(1, 2, 3)) * 127.5
    np.testing.assert_allclose(spread, level, rtol=0.2)
    np.testing.assert_array_equal(given.signals["noise"], 2.0)


@pytest.mark.parametrize("kind", ["super_resolution", "blind"])
def test_it_is_a_signal_that_is_always_known_where_the_config_has_it(kind):
    signals = {each.name: each for each in build_task(config_with(30.0, kind=kind)).signals}
    assert signals["augment"].high == 30
    assert not signals["augment"].optional
    assert signals["noise"].label.endswith("to remove")
    assert not signals["augment"].label.endswith("to remove")
    without = build_task(config_with(0.0, kind=kind)).signals
    assert [each.name for each in without] == ["noise"]


def test_what_the_task_gives_is_not_augmented():
    task = build_task(config_with(30.0, kind="blind"))
    given = task.corrupt(jnp.zeros((4, 16, 16, 1)), jax.random.key(0), train=True)
    assert [*given.signals] == ["noise"]


def test_a_picture_of_the_network_s_own_size_gets_the_same_noise_in_a_batch_and_on_a_canvas(engine):
    lr = np.random.default_rng(0).uniform(-0.5, 0.5, (8, 8, 1)).astype(np.float32)
    found = {}
    for level in (0.0, 20.0):
        sampling = Sampling(signals={"augment": level})
        (batch,) = engine.batch(lr[None], [7], sampling)
        np.testing.assert_allclose(engine.canvas(lr, 7, sampling), batch, atol=1e-5)
        found[level] = batch
    assert np.abs(found[20.0] - found[0.0]).max() > 0.01
    (plain,) = engine.batch(lr[None], [7], Sampling())
    np.testing.assert_array_equal(found[0.0], plain)


def test_another_sample_and_another_place_have_other_noise(engine):
    lr = np.zeros((8, 24, 1), np.float32)
    added = [
        engine.augmented(lr, jax.random.key(sample), Sampling(signals={"augment": 10.0}))
        for sample in (0, 1)
    ]
    assert abs(added[0].std() * 127.5 - 10) < 2
    assert np.abs(added[0] - added[1]).max() > 0.05
    blocks = added[0].reshape(8, 3, 8)
    assert np.abs(blocks[:, 0] - blocks[:, 1]).max() > 0.05
    assert (lr == 0).all()  # the caller's picture is as it was


def test_a_network_that_was_not_trained_with_it_says_so():
    engine = Engine(random_checkpoint(tiny_config()), batch_size=2)
    with pytest.raises(UserError, match=r"not trained with task\.augment, so it cannot be told"):
        engine.table(Sampling(signals={"augment": 5.0}))
