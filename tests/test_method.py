"""What a config means: losses for training, images for inference.

Both come from the same degradation and schedule.
"""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr3_jax import config as config_lib
from sr3_jax.config import CHOICES
from sr3_jax.data.faces import OrlFaces
from sr3_jax.diffusion import process, samplers, schedules
from sr3_jax.errors import ConfigError
from sr3_jax.method import Method, image_key, sampling_steps
from sr3_jax.metrics import lpips
from sr3_jax.models import discriminator, perceptual
from sr3_jax.objectives.distillation import init_discriminator
from sr3_jax.objectives.levels import sampling_schedule, training_schedule
from sr3_jax.tasks import operations
from sr3_jax.tasks.task import Given

# (8, 16, 16, 1)
FACES = np.stack(
    [OrlFaces(range(1, 31))[i].pixels[20:92:4, 10:82:4][:16, :16] for i in range(0, 80, 10)]
)


def tiny_config(**fields):
    config = config_lib.base()
    config.data.hr_size, config.data.lr_size = 16, 8
    model = config.model
    model.channels, model.multipliers, model.blocks, model.attention, model.dropout = (
        8,
        (1,),
        1,
        (),
        0.0,
    )
    model.image_channels, model.space_to_depth, model.predict = 1, 2, "v"
    config.sample.steps, config.sample.schedule = 3, "log_snr"
    for name, value in fields.items():
        section, _, field = name.partition("__")
        if field:
            config[section][field] = value
        else:
            config[section] = value
    config_lib.validate(config)
    return config


def random_params(method):
    """Random everywhere: a new network's last layer is zero."""
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(method.init, jax.random.key(0))
    return jax.tree.map(
        lambda leaf: jnp.asarray(0.1 * rng.normal(size=leaf.shape), jnp.float32), shapes
    )


def with_network(config, network):
    """The method with a function (params, *inputs) -> output in the place of its network.

    So a test can choose what the network says.
    """
    method = Method(config)
    object.__setattr__(
        method,
        "model",
        SimpleNamespace(apply=lambda params, *inputs, **_: network(params["params"], *inputs)),
    )
    return method


def zero(params, condition, *noise):
    """A new network."""
    return jnp.zeros_like(condition)


def keys(ids, seed=0, sample=0):
    return jax.vmap(lambda i: image_key(seed, i, sample))(jnp.asarray(ids))


@pytest.fixture(scope="module")
def hr():
    return operations.to_float(jnp.asarray(FACES))


RESIDUAL = {"model__predict_residual": True, "model__residual_scale": 0.1}


# -- images in and out


@pytest.mark.fast
@pytest.mark.parametrize("fields", [{}, RESIDUAL], ids=["images", "residuals"])
def test_decode_inverts_encode(hr, fields):
    method = Method(tiny_config(**fields))
    condition = method.task.condition(method.task.corrupt(hr).image)
    y_0 = method.encode(hr, condition)
    np.testing.assert_allclose(method.decode(y_0, condition), hr, atol=1e-6)
    np.testing.assert_allclose(y_0, (hr - condition) / 0.1 if fields else hr, atol=1e-6)


@pytest.mark.fast
def test_the_lr_image_is_rounded_to_8_bits_exactly_if_quantize_lr_says_so(hr):
    exact, rounded = (
        Method(tiny_config(task__quantize_lr=on)).task.corrupt(hr).image for on in (False, True)
    )
    levels = (np.asarray(rounded, np.float64) + 1) * 127.5
    np.testing.assert_allclose(levels, levels.round(), atol=1e-4)
    assert 0 < np.abs(rounded - exact).max() <= 0.5 / 127.5 + 1e-6
    # As a file would hold it
    np.testing.assert_array_equal(operations.to_float(operations.to_uint8(rounded)), rounded)


# -- schedules


@pytest.mark.fast
@pytest.mark.parametrize("steps", [1, 2, 7, 33])
@pytest.mark.parametrize("sampling", sorted({*CHOICES["sample.schedule"]} - {"ddim_respacing"}))
@pytest.mark.parametrize("training", CHOICES["schedule.name"])
def test_sampling_takes_any_number_of_steps_and_ends_at_trainings_noisiest_level(
    training, sampling, steps
):
    config = tiny_config(schedule__name=training, sample__schedule=sampling)
    trained, sampled = training_schedule(config), sampling_schedule(config, steps)
    assert (trained.steps, sampled.steps) == (2000, steps)
    np.testing.assert_allclose(sampled.gamma[-1], trained.gamma[-1], rtol=1e-4)
    gamma = np.asarray(sampled.gamma)
    assert gamma[0] == 1
    assert (np.diff(gamma) < 0).all()
    assert gamma[-1] >= np.asarray(trained.gamma)[-1] * (1 - 1e-4)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("fields", "steps"),
    [
        ({"sample__schedule": "linear", "sample__beta_start": 0.5}, 100),
        ({"sample__schedule": "linear"}, 200_000),
        ({"sample__schedule": "log_snr", "sample__log_snr_start": -15.0}, 4),
        ({"sample__schedule": "respaced", "schedule__steps": 10}, 11),
        ({"sample__schedule": "ddim_respacing"}, 2),
        ({"sample__schedule": "ddim_respacing"}, 1999),
    ],
)
def test_steps_that_a_schedule_cannot_give_are_refused_in_one_sentence(fields, steps):
    with pytest.raises(ConfigError, match=rf"sample\.schedule = .* cannot give {steps} steps: .*"):
        sampling_schedule(tiny_config(**fields), steps)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("linear", lambda: schedules.linear(50, 1e-4, 0.3)),
        ("quadratic", lambda: schedules.quadratic(50, 1e-4, 0.3)),
        ("cosine", lambda: schedules.cosine(50, 8.0, -7.0)),
        ("log_snr", lambda: schedules.log_snr(50, 8.0, -7.0)),
        ("cosine_beta", lambda: schedules.cosine_beta(50)),
    ],
)
def test_the_training_schedule_is_the_one_that_is_named(name, made):
    config = tiny_config(
        schedule__name=name,
        schedule__steps=50,
        schedule__beta_start=1e-4,
        schedule__beta_end=0.3,
        schedule__log_snr_start=8.0,
        schedule__log_snr_end=-7.0,
    )
    np.testing.assert_array_equal(training_schedule(config).gamma, made().gamma)


@pytest.mark.fast
def test_a_regression_is_a_single_evaluation_whatever_is_asked_for():
    config = tiny_config(objective="regression")
    for steps in (None, 1, 100):
        assert sampling_steps(config, steps).evaluations == 1


@pytest.mark.fast
def test_a_config_whose_own_sampling_cannot_be_is_refused_before_training():
    with pytest.raises(ConfigError, match=r"sample\.schedule = 'log_snr' cannot give 3 steps"):
        Method(tiny_config(sample__schedule="log_snr", sample__log_snr_start=-12.0))


# -- training


@pytest.mark.parametrize("predict", CHOICES["model.predict"])
def test_a_new_networks_loss_is_the_size_of_its_target(hr, predict):
    method = with_network(tiny_config(model__predict=predict, train__loss="l2", **RESIDUAL), zero)
    draws = jax.random.split(jax.random.key(1), 64)
    losses = jax.jit(
        lambda: jax.lax.map(lambda key: method.loss({}, jnp.asarray(FACES), key), draws)
    )()
    assert losses.shape == (64, 8)
    # The output is zero, so the loss is the target's mean square: 1 of the noise, something of y_0,
    # between the two of v.
    size = float(
        jnp.square(method.encode(hr, method.task.condition(method.task.corrupt(hr).image))).mean()
    )
    gamma = np.asarray(training_schedule(method.config).gamma, np.float64)
    mean_gamma = ((gamma[1:] + gamma[:-1]) / 2).mean()
    wanted = {"epsilon": 1.0, "y_0": size, "v": mean_gamma + (1 - mean_gamma) * size}[predict]
    assert float(losses.mean()) == pytest.approx(wanted, rel=0.05)


def test_the_loss_of_an_image_is_finite_and_a_function_of_that_image_and_the_key():
    method = Method(tiny_config(task__blur=2.0, model__dropout=0.5, **RESIDUAL))
    params, images = random_params(method), jnp.asarray(FACES)
    loss = jax.jit(method.loss)
    losses = loss(params, images, jax.random.key(0))
    assert losses.shape == (8,)
    assert np.isfinite(losses).all()
    np.testing.assert_array_equal(losses, loss(params, images, jax.random.key(0)))
    assert (losses != loss(params, images, jax.random.key(1))).all()
    changed = loss(params, images.at[0].set(128), jax.random.key(0))
    assert changed[0] != losses[0]
    np.testing.assert_allclose(changed[1:], losses[1:], rtol=1e-5)


def test_blur_and_dropout_are_for_training_only():
    told = []

    def apply(params, condition, *, train=False, rngs=None):
        told.append(train)
        return condition

    losses = {}
    for blur, train in ((0.0, True), (2.0, True), (2.0, False)):
        method = Method(tiny_config(objective="regression", task__blur=blur))
        object.__setattr__(method, "model", SimpleNamespace(apply=apply))
        losses[blur, train] = jax.jit(method.loss, static_argnames="train")(
            {}, jnp.asarray(FACES), jax.random.key(0), train=train
        )
    assert told == [True, True, False]
    np.testing.assert_array_equal(losses[2.0, False], losses[0.0, True])
    assert 0 < (losses[2.0, True] > losses[0.0, True] + 1e-4).sum() < 8  # about half of the images


@pytest.mark.parametrize("noise", [0.0, 9.0])
@pytest.mark.parametrize("tell_blur", [False, True])
def test_in_training_the_network_is_told_how_noisy_and_how_blurred_its_input_is(noise, tell_blur):
    """Its stand-in returns nothing, and keeps what it was given."""
    given = {}

    def apply(params, condition, *, train, rngs, **told):
        given.update(told, condition=condition)
        return jnp.zeros_like(condition)

    method = Method(
        tiny_config(
            objective="regression", task__noise=noise, task__blur=2.0, task__tell_blur=tell_blur
        )
    )
    object.__setattr__(method, "model", SimpleNamespace(apply=apply))
    method.loss({}, jnp.asarray(FACES), jax.random.key(0))
    condition, signals = given.pop("condition"), given.pop("told", {})
    assert given == {}
    assert set(signals) == {name for name, told in (("noise", noise), ("blur", tell_blur)) if told}
    hr = operations.to_float(jnp.asarray(FACES))
    clean = method.task.corrupt(hr).image
    if noise:
        assert signals["noise"].shape == (8,)
        assert 0 < signals["noise"].max() <= noise
    if tell_blur:
        assert 0 < signals["blur"].max() <= 2
        reduced = operations.resize(hr, 8, 8)
        # Rounded last, as in a file
        blurred = operations.quantize(operations.gaussian_blur(reduced, signals["blur"]))
        rows = [i for i in range(8) if not noise or signals["noise"][i] == 0]
        assert len(rows) >= 2
        for i in rows:
            np.testing.assert_array_equal(condition[i], method.task.condition(blurred)[i])
    if noise and tell_blur:
        far = jnp.abs(condition - method.task.condition(clean)).max((1, 2, 3))
        np.testing.assert_array_equal(far == 0, (signals["noise"] == 0) & (signals["blur"] == 0))


def test_regressions_loss_is_the_mean_squared_error_of_its_one_output_and_knows_no_chance(hr):
    # zero: the bicubic image
    method = with_network(tiny_config(objective="regression", train__loss="l1", **RESIDUAL), zero)
    losses = method.loss({}, jnp.asarray(FACES), jax.random.key(0))
    residual = method.encode(hr, method.task.condition(method.task.corrupt(hr).image))
    np.testing.assert_allclose(losses, np.square(residual).mean((1, 2, 3)), rtol=1e-5)
    np.testing.assert_array_equal(losses, method.loss({}, jnp.asarray(FACES), jax.random.key(1)))


# -- inference


@pytest.mark.parametrize("fields", [{}, RESIDUAL], ids=["images", "residuals"])
@pytest.mark.parametrize("predict", CHOICES["model.predict"])
def test_the_denoiser_clips_the_image(hr, predict, fields):
    def loud(params, condition, y_t, gamma):
        return 60 * condition + 0.1 * y_t

    clipping, free = (
        with_network(tiny_config(model__predict=predict, sample__clip=clip, **fields), loud)
        for clip in (True, False)
    )
    condition = free.task.condition(free.task.corrupt(hr).image)
    gamma = jnp.linspace(0.05, 0.95, len(hr))
    y_t = process.q_sample(
        free.encode(hr, condition), gamma, jax.random.normal(jax.random.key(2), hr.shape)
    )
    clipped, raw = (method.denoiser({})(condition, y_t, gamma) for method in (clipping, free))
    image, unclipped = clipping.decode(clipped, condition), free.decode(raw, condition)
    assert np.abs(image).max() <= 1 + 1e-6 < 1.1 < np.abs(unclipped).max()
    np.testing.assert_allclose(image, np.clip(unclipped, -1, 1), atol=1e-5)


@pytest.fixture(scope="module")
def resolved():
    method = Method(tiny_config(**RESIDUAL))
    params = random_params(method)
    return jax.jit(lambda lr, keys: method.super_resolve(params, Given(lr), keys))


def test_the_same_keys_give_the_same_images_and_others_do_not(hr, resolved):
    lr = operations.resize(hr, 8, 8)
    before = resolved(lr, keys(range(8)))
    assert before.shape == hr.shape
    assert np.abs(before).max() <= 1
    np.testing.assert_array_equal(before, resolved(lr, keys(range(8))))
    for other in (keys(range(8, 16)), keys(range(8), seed=1), keys(range(8), sample=1)):
        assert (np.abs(before - resolved(lr, other)).max((1, 2, 3)) > 1e-2).all()


def test_an_image_does_not_depend_on_its_neighbours_or_its_place(hr, resolved):
    lr = operations.resize(hr, 8, 8)
    order = np.array([3, 0, 2, 1, 7, 6, 5, 5])
    np.testing.assert_allclose(
        resolved(lr[order], keys(order)), resolved(lr, keys(range(8)))[order], atol=1e-5
    )


def test_regression_is_one_evaluation_added_to_bicubic_whatever_the_keys(hr):
    config = tiny_config(objective="regression", **RESIDUAL)
    calls = []

    def network(params, *inputs):
        calls.append(inputs)
        return jnp.full_like(inputs[0], 10.0)

    method = with_network(config, network)
    lr = method.task.corrupt(hr).image
    out = method.super_resolve({}, Given(lr), keys(range(8)))
    assert [len(inputs) for inputs in calls] == [1]
    np.testing.assert_allclose(out, np.clip(method.task.condition(lr) + 1, -1, 1), atol=1e-6)
    assert (np.asarray(out) == 1).any()
    np.testing.assert_array_equal(out, method.super_resolve({}, Given(lr), keys(range(8, 16))))


@pytest.mark.fast
def test_image_keys_differ_by_seed_id_and_sample_and_the_order_matters():
    found = {tuple(np.asarray(jax.random.key_data(image_key(*at)))) for at in np.ndindex(4, 4, 4)}
    assert len(found) == 64


# -- a student


def test_a_student_learns_its_teachers_answers_without_dropout_and_starts_with_no_loss():
    fields = {
        "train__teacher": "somewhere",
        "train__teacher_steps": 1,
        "train__loss": "l2",
        "model__dropout": 0.5,
    }
    fields |= {"task__noise": 50.0, "task__blur": 2.0, "task__tell_blur": True}
    method = Method(tiny_config(objective="distill", sample__clip=False, **fields, **RESIDUAL))
    params = random_params(method)
    loss = method.loss(params, jnp.asarray(FACES), jax.random.key(0), True, params)
    np.testing.assert_allclose(loss, 0, atol=1e-6)
    other = jax.tree.map(lambda leaf: 1.1 * leaf, params)
    assert np.all(method.loss(params, jnp.asarray(FACES), jax.random.key(0), True, other) > 1e-5)


def test_a_student_samples_by_ddim_at_its_own_levels_and_at_no_others():
    config = tiny_config(objective="distill", train__teacher="somewhere")
    table = sampling_steps(config)
    for column, wanted in zip(table, samplers.ddim(sampling_schedule(config, 3)), strict=True):
        np.testing.assert_array_equal(column, wanted)
    np.testing.assert_array_equal(sampling_steps(config, 3, {"sampler": "ddim"}).gamma, table.gamma)
    for change in ({"evaluations": 4}, {"changes": {"sampler": "heun"}}):
        with pytest.raises(ConfigError, match=r"distilled for sample\.steps = 3 evaluations"):
            sampling_steps(config, **change)
    with pytest.raises(ConfigError, match=r"needs a teacher: train\.teacher, or --teacher"):
        tiny_config(objective="distill")


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_the_perceptual_loss_of_a_student_is_lpips_of_its_image_times_its_weight(weight):
    fields = {"train__teacher": "somewhere", "train__loss": "l2", "sample__steps": 1}
    plain = tiny_config(objective="distill", **fields, **RESIDUAL)
    config = tiny_config(objective="distill", train__perceptual_weight=weight, **fields, **RESIDUAL)
    params, key, images = random_params(Method(plain)), jax.random.key(0), jnp.asarray(FACES)
    vgg = jax.tree.map(jnp.asarray, lpips.load("vgg"))
    without = Method(plain).loss(params, images, key, True, params)
    with_it = jax.jit(lambda p: Method(config).loss(p, images, key, True, params, vgg))(params)
    # In one evaluation, the image that was judged is the one that the student would make
    image = one_evaluation(Method(plain), params, key)
    wanted = lpips.lpips(np.asarray(image), FACES)
    np.testing.assert_allclose(with_it - without, weight * wanted, rtol=2e-3)
    gradient = jax.grad(lambda p: Method(config).loss(p, images, key, True, params, vgg).mean())(
        params
    )
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_student_and_discriminator_learn_from_one_loss_each_its_own_part():
    fields = {"train__teacher": "somewhere", "train__loss": "l2", "sample__steps": 1}
    plain = Method(tiny_config(objective="distill", **fields, **RESIDUAL))
    method = Method(
        tiny_config(objective="distill", train__adversarial_weight=3.0, **fields, **RESIDUAL)
    )
    params, key, images = random_params(plain), jax.random.key(0), jnp.asarray(FACES)
    vgg = jax.tree.map(jnp.asarray, lpips.load("vgg"))
    judge, teacher = init_discriminator(images.shape[1], jax.random.key(1)), params

    def loss(params, judge):
        return method.loss(params, images, key, True, teacher, vgg, judge)

    def judged(judge, images):
        rgb = jnp.broadcast_to(images, (*images.shape[:3], 3))
        return discriminator.logits_of(judge, perceptual.features(vgg, rgb))

    def made(params, judge):
        return judged(judge, one_evaluation(plain, params, key))

    def students(params):
        return plain.loss(params, images, key, True, teacher) - 3.0 * discriminator.looks_real(
            made(params, judge)
        )

    def discriminators(judge):
        return discriminator.hinge(judged(judge, operations.to_float(images)), made(params, judge))

    np.testing.assert_allclose(
        jax.jit(loss)(params, judge), students(params) + discriminators(judge), rtol=1e-3, atol=1e-3
    )
    # The network is not to help the discriminator, nor the other way round
    both = jax.jit(jax.grad(lambda p, j: loss(p, j).mean(), (0, 1)))(params, judge)
    alone = (
        jax.grad(lambda p: students(p).mean())(params),
        jax.grad(lambda j: discriminators(j).mean())(judge),
    )
    for found, wanted in zip(*map(jax.tree.leaves, (both, alone)), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2e-2, atol=1e-3 * np.abs(wanted).max())


def one_evaluation(method, params, key):
    """The image of a student's single step, from the noise that its loss draws."""
    given = method.task.corrupt(
        operations.to_float(jnp.asarray(FACES)), jax.random.split(key, 4)[2], train=True
    )
    condition = method.task.condition(given.image)
    y_0 = method.encode(operations.to_float(jnp.asarray(FACES)), condition)
    table = method.objective.table()
    gamma = jnp.full(len(FACES), table.gamma[0])
    epsilon = jax.random.normal(jax.random.split(jax.random.split(key, 4)[0])[1], y_0.shape)
    y_t = process.q_sample(y_0, gamma, epsilon)
    output = method.network(params)(condition, y_t, gamma)
    y_0, _ = process.to_y_0_and_epsilon(method.config.model.predict, output, y_t, gamma)
    return jnp.clip(method.decode(y_0, condition), -1, 1)
