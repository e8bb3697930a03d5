"""A tfds set prepared as ArrayRecord is read without TensorFlow, and no pixel differs.

Any other set gives an error that says what to do.
"""

import io
import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from skimage import data as photographs

import sr3_jax.config
from sr3_jax.data.pipeline import Batches
from sr3_jax.data.source import NO_LABEL, DataError
from sr3_jax.data.sources import open_source
from sr3_jax.data.tfds_source import TfdsSource
from sr3_jax.images.arrays import ImageError

PHOTO = photographs.chelsea()
PHOTOS = [
    np.ascontiguousarray(PHOTO[10 * i : 10 * i + 40 + i, 20 * i : 20 * i + 48]) for i in range(12)
]  # all of different sizes


def image(channels, **options):
    return tfds.features.Image(shape=(None, None, channels), **options)


FEATURES = {
    "colour": {
        "image": image(3),
        "mask": image(1),
        "label": tfds.features.ClassLabel(num_classes=12),
        "caption": tfds.features.Text(),
        "objects": tfds.features.Sequence({"box": tfds.features.BBoxFeature()}),
    },
    "grey": {"picture": image(1), "label": np.int64},
    "damaged": {"image": image(3)},
    "stereo": {"left": image(3), "right": image(3)},
    "depth": {"image": image(1, dtype=np.float32), "label": np.int64},
}


class TinyPhotos(tfds.core.GeneratorBasedBuilder):
    # For a class within a package tfds needs importlib_resources, which nothing installs
    __module__ = "tiny_photos"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in FEATURES]  # noqa: RUF012

    def _info(self):
        features = tfds.features.FeaturesDict(FEATURES[self.builder_config.name])
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager):
        return {
            "train": self._generate_examples(range(10)),
            "validation": self._generate_examples(range(10, 12)),
        }

    def _generate_examples(self, indices):
        for index in indices:
            photo = PHOTOS[index]
            broken = io.BytesIO(b"not an image") if index == 3 else photo
            yield (
                index,
                {
                    "colour": {
                        "image": photo,
                        "mask": photo[..., :1],
                        "label": index,
                        "caption": "a cat",
                        "objects": {"box": [tfds.features.BBox(0.0, 0.0, 1.0, 1.0)] * (index % 3)},
                    },
                    "grey": {"picture": photo[..., :1], "label": index},
                    "damaged": {"image": broken},
                    "stereo": {"left": photo, "right": photo},
                    "depth": {"image": photo[..., :1].astype(np.float32), "label": index},
                }[self.builder_config.name],
            )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The folder of all the sets above, as ArrayRecord; "tfrecord/" has "colour" as TFRecord."""
    pytest.importorskip("tensorflow")
    root = tmp_path_factory.mktemp("tfds")
    for name in FEATURES:
        TinyPhotos(data_dir=root, config=name, file_format="array_record").download_and_prepare()
    TinyPhotos(
        data_dir=root / "tfrecord", config="colour", file_format="tfrecord"
    ).download_and_prepare()
    return root


def opened(root, name="tiny_photos/colour", split="train", channels=3):
    return TfdsSource(name, split, str(root), channels)


def test_a_prepared_set_is_read_back_pixel_by_pixel(prepared):
    source = opened(prepared)
    assert len(source) == 10
    assert not source.dropped
    for index in range(10):
        np.testing.assert_array_equal(source[index].pixels, PHOTOS[index])
        assert source[index].id == f"tiny_photos/colour/train/{index}"
        assert source[index].label == index
    assert source.class_names == tuple(map(str, range(12)))
    assert source[-1].id == source[9].id
    with pytest.raises(IndexError):
        source[10]


def test_a_number_that_is_no_class_is_no_label(prepared):
    assert opened(prepared, "tiny_photos/grey", channels=1)[3].label == NO_LABEL


def test_a_bucket_is_refused_with_what_to_do_instead(prepared):
    with pytest.raises(
        DataError,
        match=r"'gs://b/tfds' is an object store.*sr3 prepare tfds:tiny_photos/colour.*records",
    ) as raised:
        opened("gs://b/tfds")
    assert "\n" not in str(raised.value)


WITHOUT_TENSORFLOW = """
import sys
from importlib.machinery import PathFinder

class NoTensorFlow(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] == "tensorflow" else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = NoTensorFlow  # as if it were not installed

import numpy as np
from sr3_jax.data.tfds_source import TfdsSource

source = TfdsSource("tiny_photos/colour", "train[20%:]", sys.argv[1], 3)
np.savez(sys.argv[2], *[source[index].pixels for index in range(len(source))])
try:
    import tensorflow
except ModuleNotFoundError:
    print("TensorFlow was out of reach")
"""


def test_reading_needs_no_tensorflow(prepared, tmp_path):
    command = [sys.executable, "-c", WITHOUT_TENSORFLOW, prepared, tmp_path / "pixels.npz"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    assert "TensorFlow was out of reach" in done.stdout
    pixels = np.load(tmp_path / "pixels.npz")
    assert len(pixels) == 8
    for index in range(8):
        np.testing.assert_array_equal(pixels[f"arr_{index}"], PHOTOS[index + 2])


def test_grey_and_colour_sets_serve_grey_and_colour_networks(prepared):
    for index in range(10):
        red = PHOTOS[index][
            ..., :1
        ]  # what the grey set holds; its only image feature is called "picture"
        np.testing.assert_array_equal(
            opened(prepared, "tiny_photos/grey", channels=1)[index].pixels, red
        )
        np.testing.assert_array_equal(
            opened(prepared, "tiny_photos/grey", channels=3)[index].pixels, red.repeat(3, axis=-1)
        )
        luma = PHOTOS[index] @ np.array([[0.299], [0.587], [0.114]])
        np.testing.assert_allclose(opened(prepared, channels=1)[index].pixels, luma, atol=0.51)


def test_splits_can_be_slices_and_sums(prepared):
    heights = {
        split: [image.pixels.shape[0] - 40 for image in opened(prepared, split=split)]
        for split in SPLITS
    }
    assert heights == SPLITS


SPLITS = {
    "train[:75%]": list(range(8)),
    "train[75%:]": [8, 9],
    "train[2:4]": [2, 3],
    "validation": [10, 11],
    "train[8:]+validation": [8, 9, 10, 11],
}


def test_a_source_survives_pickling_and_carries_no_data(prepared):
    source = opened(prepared)
    assert source[4].id  # its files are open
    pickled = pickle.dumps(source)
    assert len(pickled) < 1000
    np.testing.assert_array_equal(pickle.loads(pickled)[4].pixels, PHOTOS[4])


@pytest.fixture
def config(prepared):
    config = sr3_jax.config.base()
    config.data.source, config.data.name, config.data.tfds_dir = (
        "tfds",
        "tiny_photos/colour",
        str(prepared),
    )
    config.data.train_split, config.data.eval_split = "train[:75%]", "train[75%:]"
    config.data.hr_size, config.data.lr_size, config.train.batch_size = 40, 10, 4
    return config


def test_the_config_opens_it(config):
    train, test = open_source(config, "train"), open_source(config, "eval")
    assert (len(train), len(test)) == (8, 2)
    np.testing.assert_array_equal(test[0].pixels, PHOTOS[8])


def test_threads_read_the_same_as_one(config):
    config.data.fit, config.data.flip = "resize", False
    config.data.threads = 1
    one = Batches(open_source(config, "train"), config)
    config.data.threads = 8
    eight = Batches(open_source(config, "train"), config)
    for _ in range(6):
        np.testing.assert_array_equal(next(one).image, next(eight).image)


def test_damaged_and_small_images_are_replaced_in_training(config):
    config.data.name, config.data.train_split, config.data.max_bad_fraction = (
        "tiny_photos/damaged",
        "train",
        0.2,
    )
    config.data.hr_size = 41  # number 0 is too small
    batches = Batches(open_source(config, "train"), config)
    seen = np.concatenate([next(batches).number for _ in range(5)])
    assert np.bincount(seen, minlength=10).tolist() == [0, 4, 2, 0, 4, 2, 2, 2, 2, 2]
    assert sorted(dropped.reason for dropped in batches.bad) == [
        "tiny_photos/damaged/train/0 is 48×40, smaller than data.hr_size = 41",
        "tiny_photos/damaged/train/3 is not an image, whatever its name says",
    ]


def shards(root, name="tiny_photos/colour"):
    return sorted((root / name / "1.0.0").glob("*-train.array_record-*"))


def test_a_damaged_record_is_an_image_error_and_the_others_are_read(prepared, tmp_path):
    shutil.copytree(prepared / "tiny_photos", tmp_path / "tiny_photos")
    (shard,) = shards(tmp_path)
    data = bytearray(shard.read_bytes())
    data[10_000] ^= 255  # within the second or third record
    shard.write_bytes(data)
    source, bad = opened(tmp_path), 0
    for index in range(10):
        try:
            np.testing.assert_array_equal(source[index].pixels, PHOTOS[index])
        except ImageError as error:
            bad += f"tiny_photos/colour/train/{index} cannot be read" in str(
                error
            ) and "\n" not in str(error)
    assert bad == 1


def test_a_missing_shard_is_an_image_error(prepared, tmp_path):
    shutil.copytree(prepared / "tiny_photos", tmp_path / "tiny_photos")
    shards(tmp_path)[0].unlink()
    with pytest.raises(ImageError, match="train/0 cannot be read"):
        opened(tmp_path)[0]


def refused(*arguments, **named):
    with pytest.raises(DataError) as caught:
        opened(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_set_that_is_not_prepared_names_the_folder_and_the_command(prepared, tmp_path):
    message = refused(tmp_path, "celeb_a_hq/256")
    assert f"'celeb_a_hq/256' is not prepared in {tmp_path}, which holds nothing" in message
    assert f"tfds build celeb_a_hq/256 --data_dir={tmp_path} --file_format=array_record" in message
    assert "which holds downloads, tfrecord, tiny_photos;" in refused(prepared, "tiny_pictures")
    assert f"{prepared}/tiny_photos, which holds colour, damaged, depth, grey, stereo;" in refused(
        prepared, "tiny_photos"
    )
    assert "which holds 1.0.0;" in refused(prepared, "tiny_photos/colour:2.0.0")


def test_an_empty_data_dir_is_the_default_of_tfds(prepared, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    assert len(opened("")) == 10
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", str(prepared / "home"))
    assert f"{prepared}/home/tensorflow_datasets" in refused("")


def test_a_set_in_tfrecord_only_gives_the_command_that_converts_it(prepared):
    folder = prepared / "tfrecord" / "tiny_photos" / "colour" / "1.0.0"
    message = refused(prepared / "tfrecord")
    assert f"{folder} is prepared as tfrecord" in message
    assert (
        f"tfds convert_format --dataset_version_dir={folder} --out_file_format=array_record"
        in message
    )


def test_a_set_converted_in_place_is_read(prepared, tmp_path):
    folder = (
        shutil.copytree(prepared / "tfrecord", tmp_path / "both")
        / "tiny_photos"
        / "colour"
        / "1.0.0"
    )
    for shard in (prepared / "tiny_photos" / "colour" / "1.0.0").glob("*.array_record-*"):
        shutil.copy(shard, folder)
    info = json.loads((folder / "dataset_info.json").read_text())
    info["alternativeFileFormats"] = ["array_record"]  # what the command above adds
    (folder / "dataset_info.json").write_text(json.dumps(info))
    np.testing.assert_array_equal(opened(tmp_path / "both")[5].pixels, PHOTOS[5])


def test_the_newest_version_is_read_unless_the_name_says_which(prepared, tmp_path):
    parent = tmp_path / "tiny_photos" / "colour"
    shutil.copytree(prepared / "tiny_photos" / "colour" / "1.0.0", parent / "1.9.0")
    shutil.copytree(prepared / "tfrecord" / "tiny_photos" / "colour" / "1.0.0", parent / "1.10.0")
    assert f"{parent / '1.10.0'} is prepared as tfrecord" in refused(tmp_path)
    np.testing.assert_array_equal(opened(tmp_path, "tiny_photos/colour:1.9.0")[5].pixels, PHOTOS[5])


@pytest.mark.parametrize("split", ["test", "train[:99]", "train[", "train[:300%]", ""])
def test_an_unknown_split_lists_the_splits(prepared, split):
    message = refused(prepared, split=split)
    assert repr(split) in message
    assert "train (10 images), validation (2 images)" in message


def test_an_empty_split_is_refused(prepared):
    assert "'train[:0%]' of tiny_photos/colour/1.0.0 is empty" in refused(
        prepared, split="train[:0%]"
    )


def test_a_set_without_one_image_feature_lists_its_features(prepared):
    assert "it has left (Image), right (Image)" in refused(prepared, "tiny_photos/stereo")
    # Floats are no picture
    assert "it has image (Image), label (Tensor)" in refused(prepared, "tiny_photos/depth")


def test_a_folder_that_is_no_tfds_set_is_refused(prepared, tmp_path):
    folder = tmp_path / "tiny_photos" / "colour" / "1.0.0"
    folder.mkdir(parents=True)
    assert f"{folder} is not a readable tfds set" in refused(tmp_path)
    shutil.copy(prepared / "tiny_photos" / "colour" / "1.0.0" / "dataset_info.json", folder)
    assert f"{folder} is not a readable tfds set" in refused(tmp_path)
