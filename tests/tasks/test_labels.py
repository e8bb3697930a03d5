"""Classes: what the network is told of them in training, and what a user can ask for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr3_jax.errors import UserError
from sr3_jax.inference.upscaler import Upscaler
from sr3_jax.method import Method
from sr3_jax.models.blocks import LabelEmbedding
from sr3_jax.tasks import build_task
from sr3_jax.tasks.labels import labelled
from sr3_jax.tasks.task import Given
from tests.tiny import random_checkpoint, tiny_config

GIVEN = Given(jnp.zeros((2000, 1, 1, 1)), {"noise": jnp.ones(2000)})
LR = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)


def config(classes=5, dropout=0.1):
    found = tiny_config()
    found.model.classes, found.train.label_dropout = classes, dropout
    return found


def test_labels_become_a_signal_of_which_some_are_dropped_and_unknown_ones_stay_unknown():
    labels = jnp.arange(2000) % 5 - 1  # -1: unknown
    told = labelled(GIVEN, labels, 0.25, jax.random.key(0)).signals
    assert (told["noise"] == 1).all()
    value = np.asarray(told["label"])
    assert np.isnan(value[labels < 0]).all()
    known = value[labels >= 0]
    assert np.isnan(known).mean() == pytest.approx(0.25, abs=0.03)
    kept = ~np.isnan(value)
    np.testing.assert_array_equal(value[kept], labels[kept])
    for without in ({"dropout": 0.0, "key": jax.random.key(0)}, {"dropout": 0.5}):
        assert not np.isnan(labelled(GIVEN, labels, **without).signals["label"][1:5]).any()
    assert labelled(GIVEN, None) is GIVEN


def test_every_class_has_a_vector_of_its_own_and_the_unknown_one_is_nothing():
    model = LabelEmbedding(3, 16)
    params = model.init(jax.random.key(0), jnp.zeros(1))
    found = model.apply(params, jnp.array([0.0, 1, 2, jnp.nan]))
    np.testing.assert_array_equal(found[:3], params["params"]["embedding"])
    np.testing.assert_array_equal(found[3], 0)


def test_the_class_is_the_last_signal_of_a_task_that_has_others():
    both = config()
    both.task.noise, both.task.augment = 4.0, 10.0
    signals = build_task(both).signals
    assert [signal.name for signal in signals] == ["noise", "augment", "label"]
    assert (signals[-1].high, signals[-1].classes, signals[-1].removed) == (4, 5, False)
    assert build_task(config(0, 0.0)).signals == ()


def test_the_loss_hears_of_the_class():
    method = Method(config(dropout=0.0))
    params = random_checkpoint(config(dropout=0.0), size=0.3).params
    images = jnp.asarray(np.random.default_rng(1).integers(0, 256, (4, 16, 16, 1), np.uint8))
    key = jax.random.key(0)
    losses = [
        method.loss(params, images, key, labels=jnp.full(4, label)) for label in (0, 0, 3, -1)
    ]
    np.testing.assert_array_equal(losses[0], losses[1])
    for other in losses[2:]:  # at most levels; where the noise says all, the class says nothing
        assert (losses[0] != other).sum() >= 3


def test_a_network_that_knows_classes_enlarges_by_class_or_without():
    upscaler = Upscaler(random_checkpoint(config(), size=0.3), batch_size=1)
    one, same, other, none = (
        upscaler(LR, **({} if label is None else {"label": label})) for label in (1, 1, 2, None)
    )
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    assert (one != none).any()


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        (config(), {"label": 5}, "label = 5 must be a whole number between 0 and 4"),
        (config(), {"label": 1.5}, r"label = 1\.5 must be a whole number"),
        (config(), {"label": -1}, "label = -1 must be"),
        (config(0, 0.0), {"label": 0}, "trained without classes"),
        (config(dropout=0.0), {}, "has to be told the class"),
        (config(dropout=0.0), {"label": 1, "guidance": 2.0}, r"train\.label_dropout = 0"),
        (config(0, 0.0), {"guidance": 2.0}, r"model\.classes = 0"),
    ],
)
def test_what_cannot_be_asked_for_is_one_sentence(given, options, message):
    upscaler = Upscaler(random_checkpoint(given), batch_size=1)
    with pytest.raises(UserError, match=message):
        upscaler(LR, **options)


def test_a_network_that_makes_images_from_noise_enlarges_none():
    noise = tiny_config()
    noise.task.kind, noise.data.lr_size, noise.model.predict_residual = "generation", 16, False
    with pytest.raises(UserError, match="use sr3 generate"):
        Upscaler(random_checkpoint(noise))
