"""The networks of FID and of table 3 equal PyTorch's, on shared random weights."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from sr3_jax.errors import UserError
from sr3_jax.metrics.networks import inception, resnet
from tests.metrics.peers.weights import images, random_weights

GOLDENS = dict(np.load(Path(__file__).parent / "peers" / "goldens.npz"))


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    """A file in the layout of the public one.

    Batch normalization counts its batches, and the classes have biases.
    """
    shapes = inception.shapes() | {"fc.bias": (1008,)}
    path = tmp_path_factory.mktemp("weights") / "inception.safetensors"
    save_file(random_weights(shapes) | {"Conv2d_1a_3x3.bn.num_batches_tracked": np.array(5)}, path)
    return path


@pytest.mark.parametrize(("height", "width"), [(64, 48), (320, 330)])
def test_inception_equals_torch_fidelitys_on_images_smaller_and_larger_than_its_input(
    inception_file, height, width
):
    features, logits = inception.load(inception_file)(images(height, width))
    wanted, wanted_logits = GOLDENS[f"inception_{height}"], GOLDENS[f"inception_logits_{height}"]
    np.testing.assert_allclose(features, wanted, rtol=1e-4, atol=1e-4 * wanted.std())
    np.testing.assert_allclose(logits, wanted_logits, rtol=1e-4, atol=1e-4 * wanted_logits.std())


def test_grey_images_are_their_own_three_channels_and_the_resize_matters(inception_file):
    grey = images(64, 48)[..., :1]
    network = inception.load(inception_file)
    np.testing.assert_allclose(
        network(grey).features, network(np.repeat(grey, 3, -1)).features, rtol=1e-5
    )
    other = inception.load(inception_file, "antialiased-bilinear")(grey).features
    assert np.abs(other - network(grey).features).max() > 1e-2


def test_the_two_resizes_are_what_they_are_called():
    ramp = np.broadcast_to(np.arange(20, dtype=np.float32)[None, None, :, None], (1, 4, 20, 3))
    old = np.asarray(inception._resize(jnp.asarray(ramp), "tf1-bilinear"))
    np.testing.assert_allclose(
        old[0, 0, :, 0], np.minimum(np.arange(299) * 20 / 299, 19), atol=1e-4
    )
    fine = np.tile(np.array([0, 255], np.float32), 598)[None, None, :, None] * np.ones(
        (1, 1196, 1, 3), np.float32
    )
    smoothed = np.asarray(inception._resize(jnp.asarray(fine), "antialiased-bilinear"))
    assert np.abs(smoothed - 127.5).max() < 16  # stripes of one pixel are gone
    assert (
        np.abs(np.asarray(inception._resize(jnp.asarray(fine), "tf1-bilinear")) - 127.5).max() > 100
    )


def test_resnet_equals_torchvisions(tmp_path):
    path = tmp_path / "resnet50.safetensors"
    save_file(random_weights(resnet.shapes(), 1), path)
    found = np.asarray(resnet.load(path)(images(224, 224)))
    np.testing.assert_allclose(
        found, GOLDENS["resnet"], rtol=1e-4, atol=1e-4 * GOLDENS["resnet"].std()
    )


@pytest.mark.fast
def test_accuracy_counts_the_best_classes():
    logits = np.array([[0, 3, 2, 1], [5, 1, 2, 0], [0, 0, 0, 1]], np.float32)
    np.testing.assert_array_equal(resnet.accuracy(logits, np.array([1, 1, 0])), [1, 0, 0])
    np.testing.assert_array_equal(resnet.accuracy(logits, np.array([2, 3, 0]), top=2), [1, 0, 1])


@pytest.mark.fast
@pytest.mark.parametrize(
    ("load", "flag", "file"),
    [(inception.load, "--inception", "2015-12-05"), (resnet.load, "--classifier", "0676ba61")],
)
def test_without_weights_the_error_says_which_file_is_needed(tmp_path, load, flag, file):
    with pytest.raises(UserError, match=f"{flag}=PATH of .*{file}"):
        load(None)
    with pytest.raises(UserError, match=f"nothing.pth does not exist; {flag} wants .*{file}"):
        load(tmp_path / "nothing.pth")
    save_file({"conv1.weight": np.zeros((1, 1))}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"other.safetensors is not of .*(has no|has the shape)"):
        load(tmp_path / "other.safetensors")
