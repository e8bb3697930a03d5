"""A folder of image files as a data set."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ml_collections import ConfigDict

from sr3_jax.config import get as config_get
from sr3_jax.data import labels
from sr3_jax.data.source import DataError, Dropped, Image, check_budget, image_id, is_held_out
from sr3_jax.images import arrays
from sr3_jax.runtime import paths
from sr3_jax.runtime.paths import AnyPath


@dataclass
class Folder:
    """Some image files below `root`, in sorted order.

    The sub-folders of `root` are classes, if `class_names` names them.
    """

    root: AnyPath
    names: list[str]
    channels: int | None  # None: each image's own
    dropped: Sequence[Dropped] = ()
    total: int = 0  # images in the whole set, of which these are one split
    class_names: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Image:
        name = self.names[index]
        label = labels.folder_label(name, self.class_names)
        return Image(id=name, label=label, **arrays.read(self.root / name, self.channels)._asdict())


def open_folder(config: ConfigDict, split: str) -> Folder:
    """The usable images of the config's folder for a split, "train" or "eval".

    Only the files' headers are read.

    Raises:
      DataError: there is no such folder, or too few of its images are usable.
    """
    folder = scan_folder(config, split)
    check_budget(folder.dropped, folder, config.data.max_bad_fraction, str(folder.root))
    return folder


def scan_folder(config: ConfigDict, split: str, decode: bool = False) -> Folder:
    """As `open_folder`, but however many images would be dropped.

    Held out for evaluation are the images of data.eval_folder, or else 5 % by a hash of the path
    (at least one image), so that an image stays in its split when others are added or removed.

    Images in sub-folders have these as their classes, which are numbered alike in both splits: the
    sorted names of all sub-folders of data.folder and data.eval_folder, or data.class_names. If
    data.folder is not there, as where somebody else's checkpoint is measured, data.eval_folder
    alone decides.

    Args:
      config: its `data` section says which folder.
      split: "train" or "eval".
      decode: read the pixels as well, not only the headers.

    Raises:
      DataError: there is no such folder, it has no images, or a sub-folder is not among
        data.class_names.
    """
    data = config.data
    separate = bool(data.eval_folder)
    field = "data.eval_folder" if separate and split == "eval" else "data.folder"
    root = paths.parse(str(config_get(config, field)))
    if not config_get(config, field):
        raise DataError(f'data.source = "folder" needs {field}: --config.{field}=FOLDER')
    if not root.is_dir():
        raise DataError(f"{field} = {str(root)!r} is not a folder")
    other = (data.folder if split == "eval" else data.eval_folder) if separate else ""
    names = _image_names(root, other)
    if not names:
        raise DataError(
            f"{field} = {str(root)!r} holds no images; known suffixes are "
            f"{' '.join(sorted(arrays.SUFFIXES))}"
        )
    total = len(names)
    classes = labels.folder_classes(names, data.class_names, f"{field} = {str(root)!r}")
    if other and not data.class_names and paths.parse(other).is_dir():
        elsewhere = labels.folder_classes(_image_names(paths.parse(other), str(root)))
        classes = tuple(sorted({*classes, *elsewhere}))
    if not separate:
        held_out = {name for name in names if is_held_out(name)} or {min(names, key=image_id)}
        names = [name for name in names if (name in held_out) == (split == "eval")]
    faults = {name: _fault(root / name, config, decode) for name in names}
    if not names:
        raise DataError(
            f"{field} = {str(root)!r} has too few images to train on and to hold one out"
        )
    usable = [name for name, fault in faults.items() if not fault]
    dropped = tuple(Dropped(name, fault) for name, fault in faults.items() if fault)
    return Folder(root, usable, config.model.image_channels, dropped, total, classes)


def _image_names(root: AnyPath, other: str) -> list[str]:
    """The paths of the image files below `root`, sorted.

    When one of the two folders lies within the other, its images belong to it alone.
    """
    names = sorted(name for name in paths.files_below(root) if arrays.is_image_name(Path(name)))
    if not other:
        return names
    inner = Path(os.path.relpath(_resolved(other), _resolved(str(root)))).as_posix()
    return [name for name in names if not name.startswith(f"{inner}/")]


def _fault(path: AnyPath, config: ConfigDict, decode: bool) -> str:
    """Why an image cannot be used; empty if it can."""
    size = config.data.hr_size
    try:
        width, height = arrays.read_size(path)
        if decode:
            arrays.read(path, config.model.image_channels)
    except arrays.ImageError as error:
        return str(error).removeprefix(f"{path} ")
    small = min(width, height) < size
    return f"is {width}×{height}, smaller than data.hr_size = {size}" if small else ""


def _resolved(folder: str) -> str:
    return folder if "://" in folder else str(Path(folder).resolve())
