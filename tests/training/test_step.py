"""The update rule, on a network of three numbers whose loss and gradient are known by heart."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr3_jax.method import Method
from sr3_jax.training.state import (
    DiscriminatorState,
    discriminator_optimizer,
    init_state,
    learning_rate,
    make_optimizer,
)
from sr3_jax.training.step import Rows, make_train_step
from tests.tiny import assert_same_bits, get_config

pytestmark = pytest.mark.fast

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 255, (8, 16, 16, 1), np.uint8)
# One image of eight
POISON = np.where(np.arange(8)[:, None, None, None] == 3, 255, IMAGES).astype(np.uint8)


class Toy(Method):
    """loss = slope + curve² · brightness + noise · n, n ~ N(0, 1); infinite for a white image."""

    def __post_init__(self):
        pass

    def init(self, key):
        return {"slope": jnp.ones(()), "curve": jnp.full((2,), 0.5), "noise": jnp.zeros(())}

    def loss(self, params, images, key, train=True, labels=None):
        brightness = images.astype(jnp.float32).mean((1, 2, 3)) / 255
        white = jnp.where(brightness == 1, jnp.inf, 1.0)
        noise = params["noise"] * jax.random.normal(key, brightness.shape)
        return (params["slope"] + (params["curve"] ** 2).sum() * brightness + noise) * white


def setup(**train):
    """(first state, compiled step) of a config with these fields of `train`."""
    config = get_config()
    config.train.update({"clip_norm": 0.0, "warmup_steps": 0} | train)
    toy, optimizer = Toy(config), make_optimizer(config)
    return init_state(toy, optimizer), jax.jit(make_train_step(toy, optimizer))


def test_the_average_takes_one_plus_n_over_ten_plus_n_until_its_target():
    state, step = setup(ema_decay=0.21)
    for n in range(5):
        decay = min(0.21, (1 + n) / (10 + n))  # 0.1, 0.18, 0.21, ...
        new, _ = step(state, Rows(IMAGES))
        for name in ("slope", "curve"):
            assert (new.params[name] != state.params[name]).all()
            expected = decay * state.ema[name] + (1 - decay) * new.params[name]
            np.testing.assert_allclose(new.ema[name], expected, rtol=1e-6)
        state = new


def test_the_learning_rate_warms_up_linearly_and_is_what_moves_the_parameters():
    state, step = setup(warmup_steps=4, learning_rate=1e-2)
    for n in range(7):
        new, metrics = step(state, Rows(IMAGES))
        rate = 1e-2 * min(n / 4, 1)
        np.testing.assert_allclose(metrics["learning_rate"], rate, rtol=1e-6)
        # Adam moves against a gradient that never changes by the learning rate, whatever the
        # gradient
        np.testing.assert_allclose(
            state.params["slope"] - new.params["slope"], rate, rtol=1e-3, atol=1e-7
        )
        state = new


def test_the_cosine_starts_at_the_learning_rate_after_the_warm_up_and_ends_at_zero():
    config = get_config()
    config.train.learning_rate_schedule, config.train.steps = "cosine", 20
    rates = [float(learning_rate(config)(n)) for n in range(21)]
    np.testing.assert_allclose(rates[:5], np.linspace(0, 1e-3, 5), rtol=1e-6)
    assert all(a > b for a, b in itertools.pairwise(rates[4:]))
    np.testing.assert_allclose([rates[12], rates[20]], [5e-4, 0], rtol=1e-6)


def test_a_cosine_that_ends_later_than_the_run_is_the_same_up_to_there():
    config = get_config()
    config.train.learning_rate_schedule, config.train.steps = "cosine", 20
    whole = [float(learning_rate(config)(n)) for n in range(21)]
    config.train.steps, config.train.decay_steps = 10, 20
    assert [float(learning_rate(config)(n)) for n in range(21)] == whole


def test_the_gradient_is_clipped_to_its_norm_and_reported_as_it_was():
    state, step = setup(clip_norm=0.25)
    new, metrics = step(state, Rows(IMAGES))
    # Adam's first moment after one step
    gradient = jax.tree.map(lambda moment: moment / 0.1, new.opt_state[1][0].mu)
    np.testing.assert_allclose(
        np.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(gradient))), 0.25, rtol=1e-5
    )
    assert metrics["gradient_norm"] > 1


def test_randomness_is_a_function_of_seed_and_step_only():
    state, step = setup()

    def drawn(state, seed=0):
        """The gradient with respect to `noise`: the mean of the step's draws."""
        one = step
        if seed:
            config = get_config()
            config.seed = seed
            one = jax.jit(make_train_step(Toy(config), make_optimizer(config)))
        return one(state, Rows(IMAGES))[0].opt_state[1][0].mu["noise"]

    after, _ = step(state, Rows(IMAGES))
    assert drawn(state) == drawn(state._replace(ema=jax.tree.map(jnp.zeros_like, state.ema)))
    different = [
        float(drawn(s))
        for s in (state, state._replace(step=jnp.int32(1)), state._replace(step=jnp.int32(2)))
    ]
    different.append(float(drawn(state, seed=1)))
    assert len(set(different)) == 4
    # ... so that a restart at step 1 draws what the run would have drawn
    fresh = state._replace(step=after.step)
    assert float(drawn(fresh)) == different[1]


def test_an_update_that_is_not_finite_changes_nothing_and_is_counted():
    state, step = setup()
    state, _ = step(state, Rows(IMAGES))
    counts = []
    for images in (POISON, POISON, IMAGES, POISON):
        new, metrics = step(state, Rows(images))
        same = images is POISON
        for name in ("params", "ema", "opt_state"):
            before, after = getattr(state, name), getattr(new, name)
            if same:
                assert_same_bits(after, before)
            else:
                assert any(
                    (a != b).any()
                    for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=True)
                )
        assert np.isfinite(metrics["loss"]) == (not same)
        assert new.step == state.step + 1
        assert (metrics["bad_in_a_row"], metrics["bad_steps"]) == (new.bad_in_a_row, new.bad_steps)
        counts.append((int(new.bad_in_a_row), int(new.bad_steps)))
        state = new
    assert counts == [(1, 1), (2, 2), (0, 2), (1, 3)]


class WithDiscriminator(Toy):
    """The loss of `Toy`, and √x, whose gradient is infinite at x = 0 while it is finite itself."""

    def loss(self, params, images, key, train=True, discriminator=None, labels=None):
        return super().loss(params, images, key) + jnp.sqrt(discriminator["x"])


@pytest.mark.parametrize("x", [0.0, 1.0])
def test_a_discriminators_gradient_that_is_not_finite_drops_the_whole_update(x):
    config = get_config()
    config.train.update({"clip_norm": 0.0, "warmup_steps": 0})
    toy, optimizer = WithDiscriminator(config), make_optimizer(config)
    params = {"x": jnp.full((), x)}
    other = DiscriminatorState(params, discriminator_optimizer(config).init(params))
    state = init_state(toy, optimizer)._replace(discriminator=other)
    new, metrics = jax.jit(make_train_step(toy, optimizer))(state, Rows(IMAGES))
    assert np.isfinite(metrics["loss"])
    assert int(new.bad_steps) == (x == 0)
    for before, after in ((state.params, new.params), (other.params, new.discriminator.params)):
        leaves = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
        assert any((a != b).any() for a, b in leaves) == (x != 0)


@pytest.mark.parametrize("parts", [2, 4])
def test_a_batch_in_parts_has_the_mean_loss_and_gradient_of_the_whole_and_draws_anew_for_each(
    parts,
):
    (state, whole), (_, split) = setup(), setup(accumulate=parts)
    (one, metrics), (many, metrics_many) = whole(state, Rows(IMAGES)), split(state, Rows(IMAGES))
    np.testing.assert_allclose(metrics_many["loss"], metrics["loss"], rtol=1e-6)
    for name in ("slope", "curve"):  # of these the loss is deterministic
        np.testing.assert_allclose(
            many.opt_state[1][0].mu[name], one.opt_state[1][0].mu[name], rtol=1e-6
        )
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 1), 0)
    draws = [
        jax.random.normal(jax.random.fold_in(key, part), (8 // parts,)).mean()
        for part in range(parts)
    ]
    np.testing.assert_allclose(many.opt_state[1][0].mu["noise"], 0.1 * np.mean(draws), rtol=1e-5)


@pytest.mark.parametrize("parts", [1, 2])
def test_one_bad_part_drops_the_whole_update(parts):
    state, step = setup(accumulate=parts)
    new, _ = step(state, Rows(POISON))
    assert_same_bits(new.params, state.params)
    assert new.bad_steps == 1


def test_labels_reach_the_loss_and_follow_their_images_through_the_parts_of_a_batch():
    """Parts of a batch are not its halves: labels must be split as images are."""

    class Labelled(Toy):
        def loss(self, params, images, key, train=True, labels=None):
            right = labels == images[:, 0, 0, 0].astype(jnp.int32)
            return jnp.where(right, params["slope"], jnp.inf)

    config = get_config()
    config.model.classes = 256
    for parts in (1, 2):
        config.train.accumulate = parts
        toy, optimizer = Labelled(config), make_optimizer(config)
        step = jax.jit(make_train_step(toy, optimizer))
        state = init_state(toy, optimizer)
        labels = IMAGES[:, 0, 0, 0].astype(np.int32)
        assert np.isfinite(step(state, Rows(IMAGES, labels))[1]["loss"])
        assert not np.isfinite(step(state, Rows(IMAGES, labels[::-1]))[1]["loss"])
