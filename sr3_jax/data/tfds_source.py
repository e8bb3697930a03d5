r"""Image sets of TensorFlow Datasets, prepared as ArrayRecord and read without TensorFlow.

    # once; this does need TensorFlow
    tfds build celeb_a_hq/256 --data_dir=/data --file_format=array_record
    sr3 train --config.data.source=tfds --config.data.name=celeb_a_hq/256 \
        --config.data.tfds_dir=/data ...

The set is found by its folder, DATA_DIR/NAME[/CONFIG]/VERSION, and not by the code that made it:
that code may need TensorFlow or the network, and reading does not.
"""

import os
import re
from collections.abc import Sequence
from typing import Any

import tensorflow_datasets as tfds

from sr3_jax.data.source import NO_LABEL, DataError, Dropped, Image
from sr3_jax.errors import first_line
from sr3_jax.images import arrays

# The command `tfds` of version 4.9.10 imports all of them, whatever it is asked to do, and its
# package requires none of them.
_COMMAND_NEEDS = "pip install tensorflow apache-beam mlcroissant importlib_resources"


class TfdsSource:
    """The images of a split of a TensorFlow data set.

    Args:
      name: of the set, such as "celeb_a_hq/256" or "mnist:3.0.1"; without a version, the newest.
      split: such as "train" or "train[:95%]".
      data_dir: the folder that sets are prepared in; empty: tfds' own default.
      channels: of the images, 1 or 3; converted if the stored ones have another number.

    Raises:
      DataError: there is no such set or split, or it is not as needed.
    """

    dropped: Sequence[Dropped] = ()

    def __init__(self, name: str, split: str, data_dir: str, channels: int):
        self.name, self.split, self.data_dir, self.channels = name, split, data_dir, channels
        if "://" in data_dir:
            raise DataError(
                f"data.tfds_dir = {data_dir!r} is an object store, and ArrayRecord reads local "
                f"files only; run, where the set is local: sr3 prepare tfds:{name} --size=… "
                f"--output={data_dir.partition('://')[0]}://…; and train with "
                "data.source=records and that as data.folder"
            )
        builder = _open(
            name, data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
        )
        _check_split(builder.info, split)
        self.total = sum(known.num_examples for known in builder.info.splits.values())
        image_features = _image_features(builder.info)
        features = builder.info.features
        self._labelled = "label" in features and isinstance(
            features["label"], tfds.features.ClassLabel
        )
        self.class_names: Sequence[str] = tuple(features["label"].names) if self._labelled else ()
        self._feature = "image" if "image" in image_features else image_features[0]
        as_bytes = {feature: tfds.decode.SkipDecoding() for feature in image_features}
        self._records = builder.as_data_source(split, decoders=as_bytes, file_format="array_record")

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Image:
        index = range(len(self))[index]
        id = f"{self.name}/{self.split}/{index}"
        try:
            record = self._records[index]
        # A damaged or missing shard: ArrayRecord and protobuf raise errors of many kinds
        except Exception as error:
            raise arrays.ImageError(f"{id} cannot be read: {first_line(error)}") from error
        decoded = arrays.decode(record[self._feature], self.channels, id)
        label = int(record["label"]) if self._labelled else NO_LABEL
        return Image(id=id, label=label, **decoded._asdict())

    def __reduce__(self) -> tuple[Any, ...]:
        # Files are opened anew
        return TfdsSource, (self.name, self.split, self.data_dir, self.channels)


def _open(name: str, data_dir: str) -> tfds.core.DatasetBuilder:
    root = tfds.core.Path(data_dir).expanduser()
    path, _, version = name.partition(":")
    versions = [known for known in _folders(root / path) if re.fullmatch(r"\d+\.\d+\.\d+", known)]
    if not versions or (version and version not in versions):
        looked_in = root / path if _folders(root / path) else root
        held = ", ".join(_folders(looked_in)[:20]) or "nothing"
        raise DataError(
            f"data.name = {name!r} is not prepared in {looked_in}, which holds {held}; "
            f"prepare it with: tfds build {name} --data_dir={root} --file_format=array_record "
            f"({_COMMAND_NEEDS})"
        )
    folder = (
        root / path / (version or max(versions, key=lambda v: [int(part) for part in v.split(".")]))
    )
    try:
        builder = tfds.builder_from_directory(folder)
    except Exception as error:
        raise DataError(f"{folder} is not a readable tfds set: {first_line(error)}") from error
    formats = {file_format.value for file_format in builder.info.available_file_formats()}
    if "array_record" not in formats:
        raise DataError(
            f"{folder} is prepared as {', '.join(sorted(formats))}, which has no random access; "
            f"convert it with: tfds convert_format --dataset_version_dir={folder} "
            f"--out_file_format=array_record ({_COMMAND_NEEDS})"
        )
    return builder


def _folders(path: Any) -> list[str]:
    found = [entry.name for entry in path.iterdir() if entry.is_dir()] if path.is_dir() else []
    return sorted(name for name in found if not name.startswith("."))


def _check_split(info: tfds.core.DatasetInfo, split: str) -> None:
    try:
        count = info.splits[split].num_examples
    # ValueError, AssertionError, KeyError: whatever was wrong, the answer is the same
    except Exception as error:
        splits = ", ".join(
            f"{name} ({known.num_examples} images)" for name, known in info.splits.items()
        )
        raise DataError(
            f"{info.full_name} has no split {split!r}; it has {splits}, "
            "or slices such as 'train[:95%]'"
        ) from error
    if not count:
        raise DataError(f"the split {split!r} of {info.full_name} is empty")


def _image_features(info: tfds.core.DatasetInfo) -> list[str]:
    """Names of the features that are images with integer levels.

    It is one, or several with "image" among them; raises DataError for anything else.
    """
    features = dict(sorted(info.features.items()))
    found = [
        name
        for name, feature in features.items()
        # not float images, which tfds packs into RGBA
        if isinstance(feature, tfds.features.Image) and feature.np_dtype.kind == "u"
    ]
    if not found or ("image" not in found and len(found) > 1):
        listed = ", ".join(
            f"{name} ({type(feature).__name__})" for name, feature in features.items()
        )
        raise DataError(
            f'{info.full_name} needs an 8 or 16-bit image feature called "image", '
            f"or a single one; it has {listed}"
        )
    return found
