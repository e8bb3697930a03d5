"""A small classifier: it learns what can be seen, is saved whole, and gives features."""

import json

import jax
import numpy as np
import pytest

from sr3_jax import cli
from sr3_jax.errors import UserError
from sr3_jax.images import arrays
from sr3_jax.metrics import classification, distributions
from sr3_jax.metrics.networks import classifier
from sr3_jax.metrics.networks.inception import FeatureNetwork

SIZE = 12


def pictures(count, seed=0, channels=1):
    """Noise with a bright bar, which lies (class 0) or stands (class 1)."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 120, (count, SIZE, SIZE, channels), np.uint8)
    labels = np.arange(count) % 2
    for image, label, place in zip(images, labels, rng.integers(2, SIZE - 2, count), strict=True):
        bar = (slice(None), place) if label else (place,)
        image[bar] = 255
    return images, labels


@pytest.fixture(scope="module", autouse=True)
def _standard_promotion():
    with jax.numpy_dtype_promotion("standard"):  # optax needs it
        yield


@pytest.fixture(scope="module")
def params():
    return classification.fit(*pictures(256), 2, epochs=16)


def test_what_can_be_seen_is_learned_and_known_in_new_images(params):
    assert classification.accuracy(params, *pictures(200, seed=1)) > 0.9
    images, labels = pictures(200, seed=1)
    assert classification.accuracy(params, images, 1 - labels) < 0.1
    assert classification.accuracy(params, images, labels, batch=7) == pytest.approx(
        classification.accuracy(params, images, labels)
    )


def test_the_same_seed_gives_the_same_classifier_and_another_one_does_not():
    data = pictures(40)
    one, same, other = (
        jax.tree.leaves(classification.fit(*data, 2, epochs=1, seed=seed)) for seed in (0, 0, 1)
    )
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_steps_are_counted():
    counted = []
    classification.fit(
        *pictures(130), 2, epochs=2, on_step=lambda done, steps: counted.append((done, steps))
    )
    assert counted == [(1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("labels", "side", "message"),
    [
        ([0, 2], SIZE, "not those of 2 classes"),
        ([-1, 0], SIZE, "not those of 2 classes"),
        ([0, 1], 9, "square images"),
        ([], SIZE, "without labelled images"),
    ],
)
def test_what_cannot_be_learned_is_refused(labels, side, message):
    images = np.zeros((len(labels), SIZE, side, 1), np.uint8)
    with pytest.raises(UserError, match=message):
        classification.fit(images, np.array(labels, int), 2)


@pytest.fixture
def saved(params, tmp_path):
    about = classifier.About(SIZE, 1, ["lying", "standing"], "bars", 256, 200, 0.9, 16, 0)
    classifier.save(tmp_path / "bars.safetensors", params, about, "# Data\n")
    return tmp_path / "bars.safetensors"


def test_a_file_gives_back_the_network_with_all_that_is_known_of_it(params, saved):
    network = classifier.load(saved)
    assert isinstance(network, FeatureNetwork)
    assert network.about.classes == ["lying", "standing"]
    assert network.data_card == "# Data\n"
    for words in ("bars", "0.9", "200"):
        assert words in network.name
    images, labels = pictures(50, seed=2)
    found = network(images)
    assert found.features.shape == (50, 128)
    assert found.logits.shape == (50, 2)
    assert np.mean(np.argmax(found.logits, 1) == labels) == pytest.approx(
        classification.accuracy(params, images, labels)
    )


def test_images_of_other_sizes_and_colours_come_to_the_networks_own(saved):
    network = classifier.load(saved)
    images, _ = pictures(20, seed=3)
    grey = np.asarray(network(images).features)
    colour = np.asarray(network(np.repeat(images, 3, axis=-1)).features)
    np.testing.assert_allclose(colour, grey, atol=1e-3)
    large = np.repeat(np.repeat(images, 2, axis=1), 2, axis=2)
    assert network(large).features.shape == grey.shape


def test_sets_of_the_same_images_are_nearer_than_sets_of_others(saved):
    network = classifier.load(saved)

    def statistics(images):
        found = distributions.Statistics(128)
        found.add(np.asarray(network(images).features))
        return found

    ours = distributions.Reference.of("bars", statistics(pictures(200, seed=4)[0]))
    same, noise = pictures(200, seed=5)[0], pictures(200, seed=5)[0]
    noise = np.random.default_rng(0).permutation(noise.reshape(-1)).reshape(noise.shape)
    near, far = (distributions.fid(statistics(images), ours) for images in (same, noise))
    assert near < far / 2


def test_another_file_a_cut_one_and_none_are_named(saved, tmp_path):
    (tmp_path / "cut.safetensors").write_bytes(saved.read_bytes()[:-100])
    (tmp_path / "text.safetensors").write_text("text")
    for name in ("cut", "text"):
        with pytest.raises(UserError, match=rf"{name}\.safetensors is damaged"):
            classifier.load(tmp_path / f"{name}.safetensors")
    for path in (None, tmp_path / "none.safetensors"):
        with pytest.raises(UserError, match="sr3 train-classifier"):
            classifier.load(path)
    about = classifier.About(SIZE, 1, ["a", "b", "c"], "bars", 1, 1, 0.5, 1, 0)
    classifier.save(tmp_path / "other.safetensors", classifier.load(saved).params, about)
    with pytest.raises(UserError, match="its parameters are not"):
        classifier.load(tmp_path / "other.safetensors")


def run(capsys, *arguments):
    code = cli.main(["train-classifier", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_command_trains_on_a_folder_of_classes_tests_on_its_held_out_images_and_notes_it(
    tmp_path, capsys
):
    images, labels = pictures(300)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        arrays.write(tmp_path / "bars" / ("lying", "standing")[label] / f"{i}.png", image)
    (tmp_path / "bars" / "DATA.md").write_text("# Data\n\nBars.\n")
    output = tmp_path / "out.safetensors"
    flags = [f"--data={tmp_path / 'bars'}", f"--output={output}", f"--size={SIZE}", "--epochs=8"]
    code, out, err = run(capsys, *flags, "--json")
    assert code == 0, err
    network = classifier.load(output)
    assert json.loads(out) == network.about._asdict() | {"output": str(output)}
    assert network.about.images + network.about.held_out == 300
    assert network.about.held_out > 5
    assert network.about.channels == 1
    assert network.about.accuracy > 0.8
    assert (network.about.data, network.data_card) == ("bars", "# Data\n\nBars.\n")
    code, _, err = run(capsys, *flags)
    assert (code, "--overwrite" in err) == (2, True)


def test_data_without_classes_and_a_wrong_suffix_are_refused_in_a_sentence(tmp_path, capsys):
    for i, image in enumerate(pictures(40)[0]):
        arrays.write(tmp_path / "plain" / f"{i}.png", image)
    place, output = f"--data={tmp_path / 'plain'}", f"--output={tmp_path / 'out.safetensors'}"
    for flags, message in (
        ([place, output, f"--size={SIZE}"], "has 0 classes"),
        ([place, f"--output={tmp_path / 'out.npz'}"], "must end in .safetensors"),
        ([f"--data={tmp_path / 'none'}", output], "is not a folder"),
        ([place, output], "images can be used (0.png is 12×12, smaller than"),
        ([place, output, "--size=4"], "--size=4 must lie between 8 and 128"),
    ):
        code, _, err = run(capsys, *flags)
        assert (code, err.count("sr3: "), "Traceback" in err) == (2, 1, False)
        assert message in err
    assert not (tmp_path / "out.safetensors").exists()
