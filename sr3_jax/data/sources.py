"""The data set that a config names.

For example:

    source = open_source(config, "train")     # or "eval", or "validation"
"""

import re

from ml_collections import ConfigDict

from sr3_jax.data.faces import OrlFaces
from sr3_jax.data.folder import open_folder
from sr3_jax.data.source import DataError, Source


def tfds_place(place: str) -> tuple[str, str] | None:
    """Name and split of `tfds:NAME[:VERSION][:SPLIT]`; None for any other text.

    The name includes the version if there is one; the split is "" if none is given.
    """
    found = re.fullmatch(r"tfds:([^:]+(?::\d+\.\d+\.\d+)?)(?::(.+))?", place)
    return (found[1], found[2] or "") if found else None


def open_source(config: ConfigDict, split: str) -> Source:
    """The images of a split of the config's data set.

    Args:
      config: its data.* and model.image_channels are used.
      split: "train"; "eval", which is held out; or "validation", to choose settings by. That is
        the held-out split too, but for the AT&T faces: people 26-30, who are trained on, because
        the held-out people are the test set of a results table.

    Raises:
      DataError: none of the images are usable, or too few.
    """
    data, channels = config.data, config.model.image_channels
    if data.source == "orl":
        people = {"train": range(1, 31), "eval": range(31, 41), "validation": range(26, 31)}
        return OrlFaces(people[split], channels)
    split = "eval" if split == "validation" else split
    if data.source == "tfds":
        if not data.name:
            raise DataError(
                'data.source = "tfds" needs data.name, e.g. --config.data.name=celeb_a_hq/256'
            )
        from sr3_jax.data.tfds_source import TfdsSource

        return TfdsSource(
            data.name,
            data.train_split if split == "train" else data.eval_split,
            data.tfds_dir,
            channels,
        )
    if data.source == "photos":
        if split == "train":
            raise DataError(
                'data.source = "photos" is to test on: everybody compares with these photographs'
            )
        from sr3_jax.data.public_photos import PublicPhotos

        return PublicPhotos(data.hr_size, channels)
    if data.source == "records":
        from sr3_jax.data.records import open_records

        return open_records(config, split)
    return open_folder(config, split)
