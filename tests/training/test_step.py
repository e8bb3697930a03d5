"""One update: what it draws, what it keeps, what it refuses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr3_jax.data.pipeline import load_evaluation
from sr3_jax.data.sources import open_source
from sr3_jax.method import Method
from sr3_jax.training.state import init_state, learning_rate, make_optimizer
from sr3_jax.training.step import make_train_step


@pytest.fixture(scope="module")
def faces():
    from sr3_jax import config

    base = config.base()
    base.data.hr_size, base.model.image_channels = 64, 1
    return jnp.asarray(load_evaluation(open_source(base, "train"), base, 8).images)


def compiled(config):
    method, optimizer = Method(config), make_optimizer(config)
    state = jax.jit(lambda: init_state(method, optimizer))()
    return state, jax.jit(make_train_step(method, optimizer))


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_an_update_is_a_function_of_seed_and_step_alone(tiny, faces):
    state, step = compiled(tiny(train__warmup_steps=0))
    once, again = step(state, faces), step(state, faces)
    assert same(once, again)
    later, _ = step(state._replace(step=state.step + 1), faces)
    assert not same(once[0].params, later.params)


def test_the_ema_warms_up_and_follows_the_parameters(tiny, faces):
    state, step = compiled(tiny(train__ema_decay=0.12, train__warmup_steps=0))
    expected = jax.tree.map(np.asarray, state.ema)
    for n in range(3):
        state, _ = step(state, faces)
        decay = np.float32(min(0.12, (1 + n) / (10 + n)))
        expected = jax.tree.map(lambda e, p, d=decay: d * e + (1 - d) * np.asarray(p), expected, state.params)
    for ours, theirs in zip(jax.tree.leaves(state.ema), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_parameters_ema_and_moments_are_float32_under_bfloat16_compute(tiny):
    config = tiny(model__dtype="bfloat16")
    method, optimizer = Method(config), make_optimizer(config)
    state = jax.eval_shape(lambda: init_state(method, optimizer))
    assert {leaf.dtype for leaf in jax.tree.leaves((state.params, state.ema))} == {jnp.dtype("float32")}
    assert jnp.dtype("bfloat16") not in {leaf.dtype for leaf in jax.tree.leaves(state.opt_state)}


def test_a_loss_that_is_not_finite_changes_nothing_and_is_counted(tiny, faces, monkeypatch):
    loss = Method.loss

    def sometimes_nan(self, params, images, key, train=True):
        bad = images[0, 0, 0, 0] == 0  # the test blackens this pixel
        return jnp.where(bad, jnp.nan, loss(self, params, images, key, train))

    monkeypatch.setattr(Method, "loss", sometimes_nan)
    state, step = compiled(tiny(train__warmup_steps=0))
    good, bad = faces.at[0, 0, 0, 0].set(9), faces.at[0, 0, 0, 0].set(0)
    state, _ = step(state, good)
    for count in (1, 2):
        before, (state, metrics) = state, step(state, bad)
        assert same((before.params, before.ema, before.opt_state), (state.params, state.ema, state.opt_state))
        assert (int(state.bad_in_a_row), int(state.bad_steps), int(metrics["bad_steps"])) == (count, count, count)
    state, _ = step(state, good)
    assert (int(state.bad_in_a_row), int(state.bad_steps), int(state.step)) == (0, 2, 4)
    assert not same(before.params, state.params)


def test_accumulating_over_parts_gives_the_gradient_of_the_whole_batch(tiny, faces):
    """Without noise and dropout the loss of a batch is the mean of its parts'."""
    plain = {"objective": "regression", "model__dropout": 0.0, "train__warmup_steps": 0}
    results = []
    for parts in (1, 2, 4):
        state, step = compiled(tiny(train__accumulate=parts, **plain))
        state = state._replace(params=jax.tree.map(lambda p: p + 0.01, state.params))
        results.append(step(state, faces))
    for state, metrics in results[1:]:
        np.testing.assert_allclose(metrics["loss"], results[0][1]["loss"], rtol=1e-5)
        np.testing.assert_allclose(metrics["gradient_norm"], results[0][1]["gradient_norm"], rtol=1e-4)
        moments, whole = (jax.tree.leaves(s.opt_state) for s in (state, results[0][0]))
        for a, b in zip(moments, whole, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


def test_the_learning_rate_warms_up_linearly_then_stays_or_falls(tiny):
    rate = learning_rate(tiny(train__warmup_steps=10, train__learning_rate=1.0))
    np.testing.assert_allclose([rate(n) for n in (0, 5, 10, 1000)], [0, 0.5, 1, 1])
    cosine = learning_rate(
        tiny(train__warmup_steps=10, train__learning_rate=1.0, train__learning_rate_schedule="cosine", train__steps=110)
    )
    np.testing.assert_allclose([cosine(n) for n in (0, 10, 60, 110)], [0, 1, 0.5, 0], atol=1e-6)


def test_one_device_equals_eight_and_two_times_four(tiny, faces, monkeypatch):
    from sr3_jax import parallel

    monkeypatch.setattr(parallel, "SMALLEST_SHARDED", 64)
    config = tiny(train__warmup_steps=0)
    method, optimizer = Method(config), make_optimizer(config)
    init, step = functools.partial(init_state, method, optimizer), make_train_step(method, optimizer)

    alone, alone_step = compiled(config)
    losses = []
    for _ in range(2):
        alone, metrics = alone_step(alone, faces)
        losses.append(float(metrics["loss"]))
    for data, fsdp in ((8, 1), (2, 4)):
        config.mesh.data, config.mesh.fsdp = data, fsdp
        mesh = parallel.make_mesh(config)
        sharding = parallel.shardings(jax.eval_shape(init), mesh)
        state = jax.jit(init, out_shardings=sharding)()
        images = jax.device_put(faces, parallel.batch_sharding(mesh))
        run = jax.jit(step, out_shardings=(sharding, parallel.replicated(mesh)))
        for wanted in losses:
            state, metrics = run(state, images)
            np.testing.assert_allclose(metrics["loss"], wanted, rtol=1e-5)
        for ours, theirs in zip(jax.tree.leaves(state.params), jax.tree.leaves(alone.params), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=2e-5)
        if fsdp > 1:
            kernel = state.params["up_1_0"]["conv_0"]["kernel"]
            moment = state.opt_state[1][0].mu["up_1_0"]["conv_0"]["kernel"]
            ema = state.ema["up_1_0"]["conv_0"]["kernel"]
            for array in (kernel, moment, ema):
                assert array.addressable_shards[0].data.size * fsdp == array.size
