"""The parts of the network."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr3_jax.models.blocks import (
    EmbeddingSpec,
    GammaEmbedding,
    ResBlock,
    SelfAttention,
    depth_to_space,
    downsample,
    space_to_depth,
    upsample,
)

pytestmark = pytest.mark.fast

X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 6, 8)), jnp.float32)


def test_space_to_depth_makes_every_patch_a_pixel_and_depth_to_space_undoes_it():
    folded = space_to_depth(X, 2)
    assert folded.shape == (2, 2, 3, 32)
    np.testing.assert_array_equal(folded[1, 1, 2], X[1, 2:4, 4:6].ravel())
    np.testing.assert_array_equal(depth_to_space(folded, 2), X)
    np.testing.assert_array_equal(space_to_depth(depth_to_space(X, 2), 2), X)
    np.testing.assert_array_equal(space_to_depth(X, 1), X)


def test_downsample_averages_patches_and_upsample_repeats_pixels():
    x = np.asarray(X)
    mean = (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4
    np.testing.assert_allclose(downsample(X), mean, atol=1e-6)
    np.testing.assert_array_equal(upsample(X), x.repeat(2, axis=1).repeat(2, axis=2))


@pytest.mark.parametrize(
    ("resample", "change"), [("none", lambda x: x), ("down", downsample), ("up", upsample)]
)
def test_a_new_residual_block_passes_its_resampled_input_on(resample, change):
    scaled, unscaled = ResBlock(8, resample), ResBlock(8, resample, rescale_skip=False)

    @jax.jit
    def outputs(*inputs):
        new = scaled.init(jax.random.key(0), *inputs, False)
        return scaled.apply(new, *inputs, False), unscaled.apply(new, *inputs, False)

    for output, factor in zip(outputs(X, jnp.ones((2, 5))), (0.5**0.5, 1), strict=True):
        np.testing.assert_allclose(output, change(X) * factor, atol=1e-6)


def sinusoids(kind, gamma):
    """What the embedding's first dense layer is fed."""
    seen = []

    def listen(call, args, kwargs, context):
        if context.module.name == "dense_0":
            seen.append(args[0])
        return call(*args, **kwargs)

    with nn.intercept_methods(listen):
        GammaEmbedding(EmbeddingSpec(kind, 32, 128)).init(
            jax.random.key(0), jnp.asarray(gamma, jnp.float32)
        )
    return np.asarray(seen[0])


def test_neighbouring_noise_levels_are_told_apart_over_the_whole_range():
    pairs = [4e-5, 5e-5, 1e-3, 1.2e-3, 0.5, 0.6, 0.99, 0.995, 1 - 1e-5, 1 - 1e-6]
    embedded = sinusoids("log_snr", pairs)
    assert embedded.shape == (10, 32)
    assert np.all(np.abs(embedded) <= 1)
    between = np.linalg.norm(embedded[::2] - embedded[1::2], axis=1)
    assert np.all(between > 0.5)


def test_no_two_noise_levels_are_mistaken_for_each_other():
    level = np.linspace(-10, 13.8, 200)
    embedded = sinusoids("log_snr", 1 / (1 + np.exp(-level)))
    distance = np.linalg.norm(embedded[:, None] - embedded[None], axis=-1)
    apart = np.abs(level[:, None] - level[None]) > 0.5
    assert distance[apart].min() > 0.5


def test_a_clean_image_has_a_finite_embedding():
    for kind in ("log_snr", "sqrt_gamma"):
        assert np.all(np.isfinite(sinusoids(kind, [0.0, 1.0])))


def random_like(shapes, seed=1):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), shapes)


@pytest.mark.parametrize("head_channels", [0, 4])
def test_attention_does_not_know_where_a_pixel_is(head_channels):
    attention = SelfAttention(head_channels)
    params = random_like(jax.eval_shape(attention.init, jax.random.key(0), X))
    order = np.random.default_rng(2).permutation(24)
    shuffled = X.reshape(2, 24, 8)[:, order].reshape(X.shape)
    apply = jax.jit(attention.apply)
    out = apply(params, X)
    assert np.abs(out - X * 0.5**0.5).max() > 0.1
    np.testing.assert_allclose(
        apply(params, shuffled).reshape(2, 24, 8), out.reshape(2, 24, 8)[:, order], atol=1e-4
    )


def test_attention_is_softmax_of_scaled_products_in_each_head():
    """Against NumPy, with a norm that is undone by feeding normalised input."""
    attention = SelfAttention(head_channels=4, rescale_skip=False)
    params = random_like(jax.eval_shape(attention.init, jax.random.key(0), X))["params"]
    params["norm"] = {"scale": jnp.ones(8), "bias": jnp.zeros(8)}
    x = np.asarray(X, np.float64).reshape(2, 24, 2, 4)  # 2 groups of 4 channels
    normal = (x - x.mean((1, 3), keepdims=True)) / np.sqrt(x.var((1, 3), keepdims=True) + 1e-5)
    weights = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    qkv = normal.reshape(2, 24, 8) @ weights["qkv"]["kernel"][0, 0] + weights["qkv"]["bias"]
    q, k, v = np.split(qkv.reshape(2, 24, 2, 12), 3, axis=-1)
    scores = np.exp(np.einsum("bqhc,bkhc->bhqk", q, k) / np.sqrt(4))
    mixed = np.einsum("bhqk,bkhc->bqhc", scores / scores.sum(-1, keepdims=True), v).reshape(
        2, 24, 8
    )
    expected = x.reshape(2, 24, 8) + mixed @ weights["out"]["kernel"][0, 0] + weights["out"]["bias"]
    np.testing.assert_allclose(
        attention.apply({"params": params}, X).reshape(2, 24, 8), expected, atol=1e-3
    )
