"""What a training of images from noise measures and shows on the way."""

import numpy as np
import pytest

import sr3_jax.config
from sr3_jax.evaluation import held_out, samples
from tests.tiny import random_checkpoint, tiny_config


def config(classes):
    found = tiny_config()
    found.task.kind, found.data.lr_size, found.model.predict_residual = "generation", 16, False
    found.model.classes, found.train.label_dropout = classes, 0.1 if classes else 0.0
    found.train.evaluate_images, found.train.sample_images = 20, 20
    sr3_jax.config.validate(found)
    return found


@pytest.mark.parametrize(("classes", "columns", "rows"), [(40, 10, 2), (0, 20, 1)])
def test_the_loss_is_of_the_same_noise_every_time_and_the_picture_shows_classes(
    classes, columns, rows
):
    evaluate = held_out.during_training(config(classes))
    params = random_checkpoint(config(classes), size=0.1).params
    (first, picture), (again, same) = evaluate(params), evaluate(params)
    assert first == again
    np.testing.assert_array_equal(picture, same)
    assert picture.shape == (24 + 64 * rows, 64 * columns, 3)
    other, _ = evaluate(random_checkpoint(config(classes), size=0.5).params)
    assert np.isfinite(other["loss"])
    assert other["loss"] != first["loss"]


def test_the_loss_of_an_image_does_not_depend_on_how_many_are_computed_at_a_time(monkeypatch):
    params = random_checkpoint(config(40), size=0.1).params
    losses = []
    for count in (1, 7, 16):
        monkeypatch.setattr(samples, "AT_A_TIME", count)
        losses.append(samples.during_training(config(40))(params)[0]["loss"])
    np.testing.assert_allclose(losses, losses[0], rtol=1e-5)
