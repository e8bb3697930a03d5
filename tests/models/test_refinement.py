"""Predict and refine: who learns from which loss, what a pixel depends on.

It depends on its surroundings alone.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr3_jax import config as config_lib
from sr3_jax.errors import ConfigError
from sr3_jax.inference.sampling import Sampling
from sr3_jax.inference.upscaler import Upscaler
from sr3_jax.method import Method
from sr3_jax.models.refinement import FLATTEST
from sr3_jax.profiling.aot import model_flops
from tests.tiny import refining_checkpoint

IMAGES = jnp.asarray(np.random.default_rng(0).integers(0, 256, (4, 16, 16, 1), np.uint8))
KEY = jax.random.key(3)


def norms(gradient):
    return {
        name: float(sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(part)))
        for name, part in gradient.items()
    }


def test_the_loss_is_the_sum_of_the_predictor_s_and_the_refiner_s_and_the_guess_learns_from_its_own_alone():  # noqa: E501
    checkpoint = refining_checkpoint()
    method, params = checkpoint.method, checkpoint.params
    loss, gradient = jax.value_and_grad(
        lambda params: method.loss(params, IMAGES, KEY, False).mean()
    )(params)
    regression = Method(_as(checkpoint.config, "regression"))
    alone, own = jax.value_and_grad(
        lambda part: regression.loss({"predictor": part}, IMAGES, KEY, False).mean()
    )(params["predictor"])
    assert 0 < alone < loss
    # the last convolution makes the guess and nothing else: whatever the refiner asks for, it must
    # not move
    np.testing.assert_allclose(
        gradient["predictor"]["out"]["kernel"], own["out"]["kernel"], rtol=1e-4, atol=1e-6
    )
    # its trunk makes the features too
    assert not np.allclose(
        gradient["predictor"]["block_0"]["conv_0"]["kernel"],
        own["block_0"]["conv_0"]["kernel"],
        rtol=1e-2,
    )
    assert norms(gradient)["denoiser"] > 0


def _as(config, objective):
    config = config.copy_and_resolve_references()
    config.objective = objective
    return config


def test_a_regression_is_the_predictor_alone_and_makes_the_guess_that_is_refined():
    checkpoint = refining_checkpoint()
    regression = Method(_as(checkpoint.config, "regression"))
    shapes = jax.eval_shape(regression.init, KEY)
    assert set(shapes) == {"predictor"}
    upsampled = jax.random.normal(KEY, (2, 16, 16, 1))
    guess = regression.denoiser({"predictor": checkpoint.params["predictor"]})(
        upsampled, upsampled, jnp.ones(2)
    )
    condition = checkpoint.method.condition(checkpoint.params, upsampled)
    assert condition.shape == (2, 16, 16, checkpoint.method.condition_channels) == (2, 16, 16, 3)
    np.testing.assert_allclose(regression.decode(guess, upsampled), condition[..., :1], atol=1e-6)


def test_a_student_keeps_its_teacher_s_predictor():
    checkpoint = refining_checkpoint("distill")
    method = checkpoint.method
    gradient = jax.grad(
        lambda params: method.loss(params, IMAGES, KEY, True, checkpoint.params).mean()
    )(checkpoint.params)
    found = norms(gradient)
    assert found["predictor"] == 0
    assert found["denoiser"] > 0


def test_both_networks_are_told_of_the_input_s_noise():
    checkpoint = refining_checkpoint()
    upsampled = jax.random.normal(KEY, (1, 16, 16, 1))
    clean, noisy = (
        checkpoint.method.condition(checkpoint.params, upsampled, {"noise": jnp.full(1, noise)})
        for noise in (0.0, 4.0)
    )
    assert float(jnp.abs(clean - noisy).max()) > 1e-3
    gamma = jnp.full((1,), 0.5)
    answers = [
        checkpoint.method.denoiser(checkpoint.params, {"noise": jnp.full(1, noise)})(
            clean, upsampled, gamma
        )
        for noise in (0.0, 4.0)
    ]
    assert float(jnp.abs(answers[0] - answers[1]).max()) > 1e-4


def test_a_picture_does_not_depend_on_its_tiles():
    """Nothing is a statistic over a whole tile, and what padding reaches has no weight.

    That is a sixteenth of the tile at its edges, here 5 LR pixels.
    """
    checkpoint = refining_checkpoint()
    picture = np.random.default_rng(2).integers(0, 256, (130, 120), np.uint8)
    small, large = (
        Upscaler(checkpoint, tile=tile)(picture, seed=1, match_input=False) for tile in (160, 224)
    )
    assert np.abs(small.astype(int) - large).max() <= 1
    assert small.std() > 10


def test_an_image_of_the_network_s_own_size_is_the_same_in_a_batch_and_as_a_tile():
    checkpoint = refining_checkpoint()
    upscaler = Upscaler(checkpoint)
    image = np.random.default_rng(2).integers(0, 256, (8, 8, 1), np.uint8)
    whole = upscaler.batch(image[None], [5], seed=1)[0]
    lr = image.astype(np.float32) / 127.5 - 1
    # a picture beside it that mirrors it: in one tile of the larger size
    tiled = upscaler.engine.canvas(lr, 5, Sampling(seed=1))
    assert tiled.shape == whole.shape
    inner = slice(4, 10)  # the mirrored half and the zeros of a convolution's padding differ
    assert np.abs(tiled[inner, inner] - whole[inner, inner]).mean() < 0.2


def test_the_predictor_s_arithmetic_counts_once():
    config = refining_checkpoint().config
    once, twice = (model_flops(config, "sample", evaluations) for evaluations in (1, 2))
    regression = model_flops(_as(config, "regression"), "sample", 1)
    assert 0 < 2 * once - twice < 2 * regression


@pytest.mark.parametrize("gamma", [0.02, 0.5, 0.99, 0.9999])
def test_with_the_gain_of_flat_regions_the_denoiser_is_the_best_linear_estimate_there(gamma):
    checkpoint = refining_checkpoint()
    y_0 = FLATTEST * jax.random.normal(KEY, (64, 16, 16, 1))
    epsilon = jax.random.normal(jax.random.key(4), y_0.shape)
    y_t = np.sqrt(gamma) * y_0 + np.sqrt(1 - gamma) * epsilon
    v = np.sqrt(gamma) * epsilon - np.sqrt(1 - gamma) * y_0
    params = jax.tree.map(jnp.zeros_like, checkpoint.params)
    # No image, a constant gain
    params["denoiser"]["out"]["bias"] = jnp.array([0.0, 1 - FLATTEST**2])
    told = {"noise": jnp.zeros(64)}
    found = checkpoint.method.model.apply(
        {"params": params}, jnp.zeros((64, 16, 16, 3)), y_t, jnp.full(64, gamma), told=told
    )
    best = float((v * y_t).sum() / jnp.square(y_t).sum())  # least squares
    np.testing.assert_allclose(found, best * y_t, rtol=0.1, atol=0.03)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model.predict_residual": False}, "needs model.predict_residual = True"),
        ({"model.multipliers": (1, 2)}, "needs model.multipliers = (1,)"),
        ({"model.dropout": 0.1}, "no model.dropout = 0.1"),
        ({"model.kind": "resnet"}, "'unet', 'refine'"),
        ({"model.predictor_blocks": 0}, "model.predictor_blocks = 0 must lie between 1 and 256"),
    ],
)
def test_combinations_that_cannot_be_are_refused(fields, words):
    config = refining_checkpoint().config.copy_and_resolve_references()
    config.update_from_flattened_dict(fields)
    with pytest.raises(ConfigError, match=words.replace("(", r"\(").replace(")", r"\)")):
        config_lib.validate(config)


def test_the_shipped_weights_and_new_ones_of_the_same_kind_are_one_tree():
    checkpoint = refining_checkpoint()
    again = dataclasses.replace(checkpoint, params=checkpoint.method.init(KEY))
    assert jax.tree.structure(again.params) == jax.tree.structure(checkpoint.params)
