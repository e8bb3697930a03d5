"""Image files to pictures and back, with what else is in them.

`decoding` and `encoding` do the work; docs/formats.md shows what comes through for each pair of
formats. What had to be changed is said in words (notes).
"""

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, cast

from sr3_jax.errors import UserError, first_line
from sr3_jax.images import decoding, formats
from sr3_jax.images.decoding import named_errors
from sr3_jax.images.encoding import encode
from sr3_jax.images.formats import FORMATS, Format, format_of
from sr3_jax.images.metadata import Metadata
from sr3_jax.images.pixels import Picture, from_array
from sr3_jax.runtime import limits
from sr3_jax.runtime.atomic import replacing
from sr3_jax.runtime.paths import AnyPath

STDIO = Path("-")  # standard input or output


class File(NamedTuple):
    """A picture, what else its file held, and what had to be changed."""

    picture: Picture
    metadata: Metadata
    notes: tuple[str, ...]


def read(path: Path) -> File:
    """The image in a file, or in standard input for "-": its first frame, upright.

    Raises:
      ImageError: it cannot be read, or not to its end.
    """
    return parse(load(path), str(path))


def load(path: Path) -> bytes:
    """The bytes of a file, or of standard input for "-"; raises ImageError."""
    if path == STDIO:
        if sys.stdin is None:
            raise decoding.ImageError("standard input is closed")
        return _bounded(cast(io.BufferedIOBase, sys.stdin.buffer), "standard input")
    with named_errors(f"{path} cannot be read"), path.open("rb") as file:
        return _bounded(file, str(path))


def _bounded(file: io.BufferedIOBase, name: str) -> bytes:
    """All that a file gives, which may be a device without an end."""
    most = limits.memory() // 4
    parts, size = list[bytes](), 0
    while part := file.read(2**20):  # a read of `most` would allocate as much at once
        parts.append(part)
        size += len(part)
        if size > most:
            raise decoding.ImageError(f"{name} gives more than {most / 2**30:.0f} GiB")
    return b"".join(parts)


def header(data: bytes, name: str) -> tuple[int, int]:
    """(height, width) of the upright image in the bytes of a file, without decoding it.

    Raises:
      TooManyPixels: there are more than can be read.
      ImageError: it is not an image.
    """
    return decoding.size(io.BytesIO(data), name)


def parse(data: bytes, name: str) -> File:
    """As `read`, from the bytes of a file; `name` stands for it in errors."""
    values, kept, notes = decoding.decode(data, name)
    return File(from_array(values, name), kept, notes)


def named_format(path: AnyPath) -> Format:
    """The format that a file is written in, by its suffix; PNG for standard output.

    Raises:
      UserError: no format has this suffix.
    """
    form = FORMATS["PNG"] if path == STDIO else format_of(path)
    if form is None:
        raise UserError(
            f"{path}: no image format has the suffix {path.suffix!r}; "
            "use .png, .jpg, .webp, .tiff or .avif"
        )
    return form


def rehearse(path: Path, file: File, height: int, width: int) -> list[str]:
    """What `write` will say of a picture like the file's, of another size, before there is one.

    Raises:
      UserError: it cannot be written: the format has no room for so many pixels, or the folder
        cannot be written to.
    """
    form = named_format(path)
    formats.check_size(form, height, width, str(path))
    if path != STDIO:
        _check_folder(path)
    part = file.picture._replace(
        colour=file.picture.colour[:8, :8],
        alpha=None if file.picture.alpha is None else file.picture.alpha[:8, :8],
    )
    try:
        return encode(part, form, file.metadata)[1]
    except (OSError, ValueError, SystemError) as error:
        raise UserError(f"{path} cannot be written: {first_line(error)}") from error


def _check_folder(path: Path) -> None:
    """Raises UserError for a file that cannot be, or whose folder cannot be made or written to."""
    if path.is_dir() or (path.is_symlink() and not path.exists()):
        what = "a folder" if path.is_dir() else "a link that leads nowhere"
        raise UserError(f"{path} cannot be written: it is {what}")
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        what = "not a folder" if not folder.is_dir() else "a folder that cannot be written to"
        raise UserError(f"{path} cannot be written: {folder} is {what}")


def write(
    path: AnyPath,
    picture: Picture,
    kept: Metadata = Metadata(),  # noqa: B008 (immutable)
    quality: int | None = None,
    replace: bool = True,
    on_encoded: Callable[[int], object] = lambda _: None,
) -> list[str]:
    """Writes a picture in the format of the path's suffix, or as PNG to standard output for "-".

    The file appears whole, by rename, or not at all.

    Args:
      path: of the file.
      picture: its pixels.
      kept: what else the file shall hold.
      quality: of 100, for formats that lose some; None: the format's usual one.
      replace: whether a file of this name that is there by now may be replaced.
      on_encoded: called with the number of the file's bytes, just before it appears.

    Returns:
      What the format could not keep, in words.

    Raises:
      UserError: it cannot be written.
    """
    form = named_format(path)
    height, width = picture.colour.shape[:2]
    formats.check_size(form, height, width, str(path))
    try:
        data, notes = encode(picture, form, kept, quality)
        if path == STDIO:
            if sys.stdout is None:
                raise UserError("standard output is closed")
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        else:
            with replacing(path, replace) as temporary:
                temporary.write_bytes(data)
                on_encoded(len(data))
    except FileExistsError as error:
        if not path.exists():  # it is a file where a folder should be
            raise UserError(f"{path} cannot be written: {first_line(error)}") from error
        raise UserError(
            f"{path} has appeared meanwhile and was left as it is; give --overwrite to replace it"
        ) from error
    except (OSError, ValueError, SystemError) as error:
        raise UserError(f"{path} cannot be written: {first_line(error)}") from error
    return notes
