"""What a user would have brought of an image, and what the network is told of it.

It is reduced, perhaps blurred and noisy, and rounded last.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sr3_jax.config
from sr3_jax.data.faces import OrlFaces
from sr3_jax.tasks import build_task, operations
from sr3_jax.tasks.corruptions import CORRUPTIONS

# (60, 64, 64, 1)
FACES = np.stack([OrlFaces(range(1, 31))[i].pixels[14:78, 14:78] for i in range(0, 300, 5)])
LEVEL = 2 / 255  # one 8-bit level in the units of [-1, 1]


def task_of(**fields):
    config = sr3_jax.config.base()
    config.data.hr_size, config.data.lr_size = 64, 16
    for name, value in fields.items():
        config.task[name] = value
    sr3_jax.config.validate(config)
    return build_task(config)


@pytest.fixture(scope="module")
def hr():
    return operations.to_float(jnp.asarray(np.tile(FACES, (4, 1, 1, 1))))


def test_the_lr_image_has_8_bits_unless_asked_otherwise(hr):
    exact, rounded = (task_of(quantize_lr=on).corrupt(hr).image for on in (False, True))
    levels = (np.asarray(rounded, np.float64) + 1) * 127.5
    np.testing.assert_allclose(levels, levels.round(), atol=1e-4)
    np.testing.assert_allclose(rounded, exact, atol=0.501 * LEVEL)
    assert (exact != rounded).mean() > 0.9
    checkers = jnp.where(jnp.indices((64, 64)).sum(0)[None, ..., None] // 8 % 2, 1.0, -1.0)
    # Bicubic overshoots
    assert jnp.abs(task_of(quantize_lr=False).corrupt(checkers).image).max() <= 1
    assert jnp.abs(operations.resize(checkers, 48, 48)).max() > 1.01


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_corruption_happens_to_half_of_the_images_by_the_strength_that_is_told(hr, name):
    high = 2.0 if name == "blur" else 20.0
    task = task_of(**{name: high, f"tell_{name}": True, "quantize_lr": False})
    clean = task.corrupt(hr)
    image, signals = jax.jit(lambda key: task.corrupt(hr, key, train=True))(jax.random.key(0))
    strength = signals[name]
    assert not clean.signals[name].any()
    assert 0.4 < (strength == 0).mean() < 0.6
    np.testing.assert_allclose(image[strength == 0], clean.image[strength == 0], atol=1e-6)
    told = strength[strength > 0]
    assert 0.4 * high < told.mean() < 0.6 * high
    assert told.min() < 0.1 * high
    assert 0.9 * high < told.max() <= high
    change = jnp.abs(image - clean.image).mean((1, 2, 3))
    assert (
        change[strength > 0.5 * high].min()
        > change[(strength > 0) & (strength < 0.05 * high)].max()
    )
    again = task.corrupt(hr, jax.random.key(1), train=True).signals[name]
    assert 0.3 < ((again == 0) != (strength == 0)).mean() < 0.7


def test_noise_has_the_deviation_that_is_told_and_blur_the_sigma(hr):
    task = task_of(noise=20.0, quantize_lr=False)
    image, signals = task.corrupt(hr * 0.5, jax.random.key(0))
    sigma = signals["noise"]
    deviation = (image - task.corrupt(hr * 0.5).image).std((1, 2, 3)) * 127.5
    np.testing.assert_allclose(deviation[sigma > 0], sigma[sigma > 0], rtol=0.25)  # of 256 pixels
    assert abs((deviation / sigma)[sigma > 0].mean() - 1) < 0.02
    task = task_of(blur=2.0, tell_blur=True, quantize_lr=False)
    image, signals = task.corrupt(hr, jax.random.key(0))
    wanted = operations.gaussian_blur(operations.resize(hr, 16, 16), signals["blur"])
    np.testing.assert_allclose(image, wanted.clip(-1, 1), atol=1e-6)


def test_what_is_not_told_happens_in_training_alone(hr):
    task = task_of(blur=2.0)
    assert task.signals == ()
    key = jax.random.key(0)
    np.testing.assert_array_equal(task.corrupt(hr, key).image, task.corrupt(hr).image)
    trained = task.corrupt(hr, key, train=True)
    assert trained.signals == {}
    assert (trained.image != task.corrupt(hr).image).any()


@pytest.mark.parametrize(
    "fields", [{}, {"blur": 2.0}, {"noise": 9.0}, {"noise": 9.0, "blur": 2.0, "tell_blur": True}]
)
def test_rounding_comes_last_whatever_happened_before(hr, fields):
    image = task_of(**fields).corrupt(hr, jax.random.key(0), train=True).image
    np.testing.assert_array_equal(image, operations.quantize(image))


def test_one_corruption_is_drawn_alike_whether_there_are_others_or_not(hr):
    key = jax.random.key(3)
    alone, beside = (
        task_of(noise=9.0, **more).corrupt(hr, key).signals
        for more in ({}, {"blur": 1.0, "tell_blur": True})
    )
    np.testing.assert_array_equal(alone["noise"], beside["noise"])


def test_the_condition_is_the_lr_image_enlarged_whatever_its_size(hr):
    task = task_of()
    for image in (hr[:2], hr[:2, :40, :32]):
        lr = task.corrupt(image).image
        assert task.output_size(*lr.shape[1:3]) == image.shape[1:3]
        np.testing.assert_array_equal(task.condition(lr), operations.resize(lr, *image.shape[1:3]))


def test_composing_gives_the_input_back_and_changes_nothing_that_agrees(hr):
    task, rng = task_of(), np.random.default_rng(0)
    lr = np.asarray(task.corrupt(hr[:1]).image)[0, :12]
    output = np.clip(
        operations.resize_canvas(lr, 48, 64) + 0.1 * rng.normal(size=(48, 64, 1)), -0.9, 0.9
    ).astype(np.float32)
    composed = task.compose(lr, output)
    assert np.abs(operations.resize_canvas(output, 12, 16) - lr).mean() > 1 / 127.5
    assert np.abs(operations.resize_canvas(composed, 12, 16) - lr).mean() < 0.2 / 127.5
    agreeing = task.compose(operations.resize_canvas(composed, 12, 16), composed)
    np.testing.assert_array_equal(agreeing, composed)
