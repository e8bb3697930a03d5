"""Blind super-resolution: what photographs of unknown origin suffered, and what is told of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage import data

import sr3_jax.config
from sr3_jax.errors import ConfigError
from sr3_jax.tasks import build_task, operations
from sr3_jax.tasks.blind import SHAPES

LEVEL = 1 / 127.5
STRONG = {"blur": 1.5, "noise": 12.0, "jpeg": 60.0, "tell_blur": True}


def task_of(**fields):
    config = sr3_jax.config.base()
    config.data.hr_size, config.data.lr_size, config.model.image_channels = 96, 24, 3
    config.task.kind, config.model.attention = "blind", ()
    for name, value in (STRONG | fields).items():
        config.task[name] = value
    sr3_jax.config.validate(config)
    return build_task(config)


@pytest.fixture(scope="module")
def hr():
    corners = np.random.default_rng(0).integers(0, 512 - 96, (64, 2))
    crops = [data.astronaut()[y : y + 96, x : x + 96] for y, x in corners]
    return operations.to_float(jnp.asarray(np.stack(crops)))


def corrupt(task, hr, seed=0):
    return jax.jit(lambda key: task.corrupt(hr, key, train=True))(jax.random.key(seed))


def test_lr_images_are_8_bits_and_a_quarter_of_the_size(hr):
    lr = corrupt(task_of(), hr).image
    assert lr.shape == (64, 24, 24, 3)
    np.testing.assert_array_equal(lr, operations.quantize(lr))


def test_without_a_key_and_where_all_is_clean_it_is_the_bicubic_reduction(hr):
    wanted = operations.quantize(operations.resize(hr, 24, 24))
    np.testing.assert_array_equal(task_of().corrupt(hr).image, wanted)
    clean = corrupt(task_of(clean=1.0, unknown=0.0), hr)
    assert np.abs(np.asarray(clean.image - wanted)).max() < 1.01 * 2 * LEVEL
    assert (np.abs(np.asarray(clean.image - wanted)) > 0.5 * LEVEL).mean() < 0.02
    assert all((np.asarray(values) == 0).all() for values in clean.signals.values())


def test_each_signal_is_unknown_as_often_as_the_config_says(hr):
    many = jnp.tile(hr[:, :24, :24], (32, 1, 1, 1))
    config = sr3_jax.config.base()
    config.data.hr_size, config.data.lr_size, config.model.image_channels = 24, 8, 3
    config.task.update(STRONG | {"kind": "blind", "unknown": 0.4})
    signals = corrupt(build_task(config), many).signals
    unknown = np.stack([np.isnan(values) for values in signals.values()])
    assert unknown.all(axis=0).mean() == pytest.approx(0.4 + 0.6 * 0.2**3, abs=0.04)
    np.testing.assert_allclose(unknown.mean(axis=1), 0.4 + 0.6 * 0.2, atol=0.04)


def test_the_noise_that_is_told_is_the_noise_that_is_there(hr):
    grey = jnp.zeros_like(hr)
    for fields in ({"first_order": 0.0}, {"first_order": 1.0, "methods": (1.0, 0.0, 0.0, 0.0)}):
        task = task_of(
            **fields, blur=0.0, jpeg=0.0, tell_blur=False, unknown=0.0, clean=0.0, often=1.0
        )
        image, signals = corrupt(task, grey)
        measured = np.asarray(image).std(axis=(1, 2, 3)) / LEVEL
        strong = np.asarray(signals["noise"]) > 3
        assert strong.sum() > 5
        np.testing.assert_allclose(
            measured[strong], np.asarray(signals["noise"])[strong], rtol=0.35
        )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["blur", "jpeg", "noise"])
def test_the_stronger_it_is_told_to_be_the_further_from_the_reduction(hr, name, shape):
    weights = tuple(float(shape == each) for each in SHAPES)
    others = {each: 0.0 for each in ("blur", "noise", "jpeg") if each != name}
    task = task_of(
        **others, unknown=0.0, clean=0.0, shapes=weights, tell_blur=name == "blur", skew=1.0
    )
    image, signals = corrupt(task, hr)
    error = np.abs(np.asarray(image - operations.resize(hr, 24, 24))).mean(axis=(1, 2, 3))
    order = np.argsort(np.asarray(signals[name]))
    assert error[order[-20:]].mean() > 1.2 * error[order[:20]].mean()


def test_weak_corruptions_are_more_likely_than_strong_ones(hr):
    strength = np.asarray(corrupt(task_of(unknown=0.0, clean=0.0, often=1.0), hr).signals["jpeg"])
    assert np.median(strength) < 0.35 * 60


def test_draws_do_not_depend_on_one_another(hr):
    plain, other = (corrupt(task_of(unknown=0.0, noise=noise), hr) for noise in (12.0, 0.0))
    for name in ("blur", "jpeg"):
        np.testing.assert_array_equal(plain.signals[name], other.signals[name])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("shapes", (1.0, 1.0)),
        ("methods", (0.0, 0.0, 0.0, 0.0)),
        ("methods", (1.0, -1.0, 0.0, 0.0)),
        ("first_size", (0.8, 0.5)),
        ("first_size", (0.5, 1.5)),
    ],
)
def test_lists_that_make_no_sense_are_named(field, value):
    with pytest.raises(ConfigError, match=rf"task\.{field}"):
        task_of(**{field: value})


def test_no_more_is_told_than_the_signals_say(hr):
    task = task_of(unknown=0.0, clean=0.0, skew=0.3, often=1.0, shapes=(0.2, 0.2, 0.3, 0.3, 0.0))
    signals = corrupt(task, jnp.tile(hr, (2, 1, 1, 1))).signals
    for signal in task.signals:
        values = np.asarray(signals[signal.name])
        assert 0 <= values.min() <= values.max() <= signal.high + 1e-5


def test_the_blur_that_is_told_is_that_of_the_kernel(hr):
    """Of isotropic Gaussians of both orders, each up to 1 LR pixel, and nothing else."""
    only = {"noise": 0.0, "jpeg": 0.0, "skew": 1.0, "clean": 0.0, "unknown": 0.0, "often": 1.0}
    task = task_of(
        **only, blur=1.0, first_order=0.0, shapes=(1.0, 0, 0, 0, 0), methods=(1, 0, 0, 0)
    )
    step = jnp.concatenate([-jnp.ones((64, 96, 48, 3)), jnp.ones((64, 96, 48, 3))], axis=2) / 2
    given = corrupt(task, step)
    edge = np.diff(np.asarray(given.image)[:, 12, :, 0], axis=1)
    place = np.arange(23)
    mean = (edge * place).sum(1) / edge.sum(1)
    spread = np.sqrt((edge * (place - mean[:, None]) ** 2).sum(1) / edge.sum(1))
    told = np.asarray(given.signals["blur"])
    # The reduction by area blurs by a box of one LR pixel, and so does a difference of neighbours;
    # for less blur than this, there are too few pixels for a variance
    some = told > 0.5
    assert some.sum() > 10
    np.testing.assert_allclose(spread[some], np.sqrt(told[some] ** 2 + 1 / 6), atol=0.05)
