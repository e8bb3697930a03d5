"""Classes are numbered alike whatever split, folder or form an image comes from."""

import json

import numpy as np
import pytest

from sr3_jax import config as config_lib
from sr3_jax.data import labels
from sr3_jax.data.faces import OrlFaces
from sr3_jax.data.pipeline import Batches
from sr3_jax.data.records import MANIFEST, Records
from sr3_jax.data.source import NO_LABEL, DataError, is_held_out
from sr3_jax.data.sources import open_source
from sr3_jax.datasets import prepare
from sr3_jax.datasets.tiles import Tiles
from sr3_jax.errors import ConfigError
from sr3_jax.images import arrays

SIZE = 8


def save(folder, *names):
    for name in names:
        pixels = np.random.default_rng(len(name)).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
        arrays.write(folder / name, pixels)
    return folder


def get_config(folder, source="folder", **data):
    config = config_lib.base()
    config.data.source, config.data.folder = source, str(folder)
    config.data.hr_size, config.data.lr_size, config.data.threads = SIZE, 4, 1
    config.model.multipliers, config.model.attention = (1, 2), ()
    config.train.batch_size = 4
    config.data.update(data)
    config_lib.validate(config)
    return config


def labelled(source):
    return {image.id: image.label for image in (source[i] for i in range(len(source)))}


def names_in(folder, held_out, count):
    """Names of images in a folder that are all held out by their hash, or all not."""
    names = (f"{folder}/{i}.png" for i in range(1000))
    return [name for name in names if is_held_out(name) == held_out][:count]


@pytest.fixture
def animals(tmp_path):
    """Cats that are trained on, dogs that are all held out, and an image of no class."""
    cats, dogs = names_in("cat/deep", False, 6), names_in("dog", True, 2)
    return save(tmp_path / "animals", *cats, *dogs, "orca.png")


def test_the_sorted_sub_folders_are_the_classes_of_the_whole_set_in_both_splits(animals):
    train, held_out = (open_source(get_config(animals), split) for split in ("train", "eval"))
    assert train.class_names == held_out.class_names == ("cat", "dog")
    found = labelled(train) | labelled(held_out)
    assert {name.partition("/")[0]: label for name, label in found.items()} == {
        "cat": 0,
        "dog": 1,
        "orca.png": NO_LABEL,
    }
    assert set(labelled(held_out).values()) == {1}
    assert 1 not in labelled(train).values()


def test_a_folder_without_sub_folders_has_no_classes(tmp_path):
    source = open_source(get_config(save(tmp_path, *(f"{i}.png" for i in range(9)))), "train")
    assert labels.class_names(source) == ()
    assert set(labelled(source).values()) == {NO_LABEL}


@pytest.mark.parametrize("held_out", ["elsewhere", "animals/test"])
def test_a_folder_that_is_held_out_numbers_its_classes_as_the_other_does(
    animals, tmp_path, held_out
):
    save(tmp_path / held_out, "bee/0.png", "dog/0.png")
    config = get_config(animals, eval_folder=str(tmp_path / held_out))
    train, test = (open_source(config, split) for split in ("train", "eval"))
    assert train.class_names == test.class_names == ("bee", "cat", "dog")
    assert labelled(test) == {"bee/0.png": 0, "dog/0.png": 2}


def test_the_config_fixes_names_and_order_and_an_unknown_folder_is_named(animals, tmp_path):
    names = ("dog", "cat", "yak")
    source = open_source(get_config(animals, class_names=names), "train")
    assert source.class_names == names
    assert set(labelled(source).values()) == {1, NO_LABEL}
    with pytest.raises(DataError, match=r"sub-folder 'cat'.*data\.class_names"):
        open_source(get_config(animals, class_names=("dog",)), "train")
    for wrong in (("cat", "cat"), ("cat", ""), (1, 2)):
        with pytest.raises(ConfigError, match=r"data\.class_names"):
            get_config(animals, class_names=wrong)


def prepared(place, output, **options):
    prepare.prepare(place, output, prepare.Options(SIZE, **options), workers=1)
    return output


@pytest.mark.parametrize("tiles", [(), (1,)])
def test_records_keep_the_labels_and_a_batch_has_them(animals, tmp_path, tiles):
    root = prepared(str(animals), tmp_path / "out", tiles=tiles)
    ours = Records(root, 3)
    assert ours.class_names == ("cat", "dog")
    theirs = Records(root, 3, "train"), Records(root, 3, "eval")
    assert labelled(theirs[0]) | labelled(theirs[1]) == labelled(ours)
    assert {id.partition("#")[0]: label for id, label in labelled(ours).items()} == {
        path.relative_to(animals).as_posix(): {"c": 0, "d": 1, "o": NO_LABEL}[
            path.relative_to(animals).as_posix()[0]
        ]
        for path in animals.rglob("*.png")
    }
    config = get_config(root, "records")
    batch = next(Batches(open_source(config, "train"), config))
    assert set(batch.label.tolist()) <= {0, NO_LABEL}
    source = open_source(get_config(root, "records", class_names=("dog", "cat")), "train")
    assert set(labelled(source).values()) == {1, NO_LABEL}
    with pytest.raises(DataError, match="class 'cat' that is not in"):
        open_source(get_config(root, "records", class_names=("dog",)), "train")
    manifest = root / "manifest.json"  # classes need no names
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"classes": []}))
    assert Records(root, 3).class_names == ("0", "1")


def test_two_folders_of_records_number_their_classes_alike(animals, tmp_path):
    train = prepared(str(animals), tmp_path / "train")
    test = prepared(str(save(tmp_path / "b", "bee/0.png", "dog/0.png")), tmp_path / "test")
    config = get_config(train, "records", eval_folder=str(test))
    sources = [open_source(config, split) for split in ("train", "eval")]
    assert [source.class_names for source in sources] == [("cat", "dog", "bee")] * 2
    assert labelled(sources[1]) == {"bee/0.png": 2, "dog/0.png": 1}


def test_a_manifest_from_before_there_were_labels_has_none_and_wrong_ones_are_named(
    animals, tmp_path
):
    root = prepared(str(animals), tmp_path / "out")
    whole = json.loads((root / MANIFEST).read_text())
    old = {name: value for name, value in whole.items() if name not in ("labels", "classes")}
    (root / MANIFEST).write_text(json.dumps(old))
    assert set(labelled(Records(root, 3)).values()) == {NO_LABEL}
    assert Records(root, 3).class_names == ()
    [shard] = whole["labels"]
    for wrong in ([0], [2] * len(whole["labels"][shard]), [-2] * len(whole["labels"][shard])):
        (root / MANIFEST).write_text(json.dumps(whole | {"labels": {shard: wrong}}))
        with pytest.raises(DataError, match=r"is damaged: .* label"):
            Records(root, 3)


def test_a_shard_from_before_there_were_labels_is_written_again(animals, tmp_path):
    root = prepared(str(animals), tmp_path / "out")
    [shard] = root.glob("images-*.json")
    shard.write_text(
        json.dumps(
            {
                name: value
                for name, value in json.loads(shard.read_text()).items()
                if name != "labels"
            }
        )
    )
    (root / MANIFEST).unlink()
    prepared(str(animals), root)
    assert set(Records(root, 3).labels) == {0, 1, NO_LABEL}


def test_ids_in_a_folder_are_held_out_by_the_folders_name(animals, tmp_path):
    root = tmp_path / "out"
    prepare.prepare(str(animals), root, prepare.Options(SIZE), held_out=["dog/"], workers=1)
    assert json.loads((root / MANIFEST).read_text())["held_out"] == ["dog/"]
    assert {id[:3] for id in Records(root, 3, "eval").ids} == {"dog"}
    assert {id[:3] for id in Records(root, 3, "train").ids} == {"cat", "orc"}


def test_people_are_numbered_from_0_in_every_split():
    assert {OrlFaces(range(1, 41))[i].label for i in range(400)} == set(range(40))
    assert OrlFaces(range(31, 41))[0].label == 30
    assert len(OrlFaces(range(31, 41)).class_names) == 40


def test_the_faces_squares_and_records_agree_about_the_class(tmp_path):
    records = Records(prepared("orl", tmp_path / "out"), 1)
    assert labelled(records) == labelled(OrlFaces(range(1, 41)))


def test_a_network_needs_as_many_classes_as_there_are(animals, tmp_path):
    source = open_source(get_config(animals), "train")
    labels.check_classes(source, 2)
    labels.check_classes(source, 0)
    with pytest.raises(DataError, match=r"network of 3 classes .* images of 2 \(cat, dog\)"):
        labels.check_classes(source, 3)
    plain = open_source(get_config(save(tmp_path / "b", "0.png", "1.png")), "train")
    with pytest.raises(DataError, match="a folder without classes"):
        labels.check_classes(plain, 3)


def test_squares_have_the_class_of_their_photograph(animals):
    tiles = Tiles(prepare.open_images(str(animals)).source, 4)
    assert tiles.class_names == ("cat", "dog")
    assert {image.id[:3]: image.label for image in map(tiles.__getitem__, range(len(tiles)))} == {
        "cat": 0,
        "dog": 1,
        "orc": NO_LABEL,
    }
