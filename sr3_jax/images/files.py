"""Image files to pictures and back, with what else is in them, for the upscaler.

That is colour profile, EXIF, resolution and text. Pillow does the work; OpenCV does it for colour
of 16 bits a channel, which Pillow cannot hold. What had to be changed is said in words (notes).
"""

import io
import re
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import ExifTags, ImageOps
from PIL import Image as PillowImage

from sr3_jax.errors import UserError
from sr3_jax.images.arrays import (
    ImageError,
    first_line,
    format_of,
    named_errors,
    open_image,
    orientation,
)
from sr3_jax.images.pixels import Picture, from_array, from_pillow, to_pillow
from sr3_jax.runtime.atomic import replacing

STDIO = Path("-")  # standard input or output
DEEP_FORMATS = ("PNG", "TIFF")  # those that hold 16 bits a channel
NO_ALPHA = ("JPEG", "PPM")
# TIFF tags that describe how this file stores its pixels (sizes, compression, places of strips and
# tiles), and the colour profile, which is kept separately
LAYOUT = (
    *range(254, 260),
    262,
    266,
    273,
    *range(277, 282),
    284,
    317,
    320,
    *range(322, 326),
    338,
    339,
    347,
    34675,
)
QUALITY = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95},
    "AVIF": {"quality": 95},
}
# What is kept of a file's information, by the names that Pillow's `save` knows
KEPT = ("icc_profile", "exif", "dpi", "xmp", "comment")


class TooManyPixels(ImageError):
    """More pixels than Pillow agrees to read: about 180 million."""

    def __init__(self, name: str, pixels: int):
        super().__init__(f"{name} has {pixels / 1e6:.0f} million pixels, too many to be read")
        self.pixels = pixels


class File(NamedTuple):
    """A picture, what else its file held, and what had to be changed."""

    picture: Picture
    info: dict[str, Any]
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
        return sys.stdin.buffer.read()
    with named_errors(f"{path} cannot be read"):
        return path.read_bytes()


def header(data: bytes, name: str) -> tuple[int, int]:
    """(height, width) of the upright image in the bytes of a file, without decoding it.

    Raises:
      TooManyPixels: Pillow refuses to read so many.
      ImageError: it is not an image.
    """
    try:
        with open_image(io.BytesIO(data), name) as image, named_errors(f"{name} cannot be decoded"):
            turned = orientation(image) > 4 and image.format != "TIFF"
            return image.size if turned else image.size[::-1]
    except ImageError as error:
        if isinstance(error.__cause__, PillowImage.DecompressionBombError):
            raise TooManyPixels(name, int(re.findall(r"\d+", str(error.__cause__))[0])) from error
        raise


def parse(data: bytes, name: str) -> File:
    """As `read`, from the bytes of a file; `name` stands for it in errors."""
    notes = []
    with open_image(io.BytesIO(data), name) as image, named_errors(f"{name} cannot be decoded"):
        deep, turn, mode = _is_deep(image, data), orientation(image), image.mode
        if (frames := getattr(image, "n_frames", 1)) > 1:
            notes.append(f"the first of {frames} frames")
        image.load()
        info = {key: image.info[key] for key in KEPT if image.info.get(key)}
        if turn > 1:
            notes.append("turned upright as its EXIF orientation says")
        if deep:
            picture = from_array(_turned(_decode_deep(data, name), turn), name)
        else:
            if turn > 1 and image.format != "TIFF":  # Pillow turns a TIFF by itself
                ImageOps.exif_transpose(image, in_place=True)
            picture = from_pillow(image, name)
        if exif := _upright_exif(image):
            info["exif"] = exif
        if mode in ("CMYK", "LAB", "YCbCr", "HSV"):
            notes.append(f"{mode} converted to RGB")
            if mode in ("CMYK", "LAB"):
                info.pop("icc_profile", None)  # it describes other channels
        elif mode in ("P", "PA"):
            notes.append("palette converted to RGB")
        elif mode in ("F", "I") and not picture.levels:
            notes.append("float levels scaled to their largest")
    return File(picture, info, tuple(notes))


def write(path: Path, picture: Picture, info: Mapping[str, Any] | None = None) -> list[str]:
    """Writes a picture in the format of the path's suffix, or as PNG to standard output for "-".

    The file appears whole, by rename, or not at all.

    Args:
      path: of the file.
      picture: its pixels.
      info: what else the file shall hold, as `File.info`.

    Returns:
      What the format could not keep, in words.

    Raises:
      UserError: it cannot be written.
    """
    form, info = "PNG" if path == STDIO else format_of(path), info or {}
    if form is None:
        raise UserError(
            f"{path}: no image format has the suffix {path.suffix!r}; "
            "use .png, .jpg, .webp, .tiff or .avif"
        )
    try:
        data, notes = encode(picture, info, form)
        if path == STDIO:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        else:
            with replacing(path) as temporary:
                temporary.write_bytes(data)
    except (OSError, ValueError, SystemError) as error:
        raise UserError(f"{path} cannot be written: {first_line(error)}") from error
    return notes


def encode(picture: Picture, info: Mapping[str, Any], form: str) -> tuple[bytes, list[str]]:
    """The bytes of an image file, and what its format could not keep, in words.

    `form` is Pillow's name of the format; `info` is what else the file shall hold.
    """
    notes = []
    alpha = picture.alpha
    if alpha is not None and form in NO_ALPHA:
        opacity = (alpha + 1) / 2
        picture = picture._replace(colour=picture.colour * opacity + (1 - opacity), alpha=None)
        notes.append(f"alpha flattened onto white: {form} has none")
    deep = picture.levels != 255 and form in DEEP_FORMATS
    if picture.levels != 255 and not deep:
        notes.append(f"rounded to 8 bits: {form} has no more")
    picture = picture._replace(levels=65535 if deep else 255)
    if deep and (picture.colour.shape[-1] == 3 or picture.alpha is not None):
        data = _encode_deep(picture, form)
        if form == "PNG":
            data = _with_chunks(data, info)
        elif info:
            notes.append(
                f"{', '.join(sorted(info))} left out: not supported in a {form} of 16 bits"
            )
        return data, notes
    kept = {key: info[key] for key in info if key != "comment" or form in ("JPEG", "GIF")}
    buffer = io.BytesIO()
    to_pillow(picture).save(buffer, form, **kept, **QUALITY.get(form, {}))
    return buffer.getvalue(), notes


def _upright_exif(image: PillowImage.Image) -> bytes | None:
    """The file's EXIF without its orientation, which has been applied to the pixels.

    Without the tags about how a TIFF stores its pixels, too.
    """
    exif = image.getexif()
    for tag in (ExifTags.Base.Orientation, *LAYOUT):
        exif.pop(tag, None)
    return exif.tobytes() if len(exif) else None


# -- 16 bits a channel


def _is_deep(image: PillowImage.Image, data: bytes) -> bool:
    """Whether a PNG or TIFF has several channels of 16 bits, of which Pillow would drop eight."""
    if image.format == "PNG":
        return data[24] == 16 and data[25] != 0
    if image.format == "TIFF":
        bits = getattr(image, "tag_v2", {}).get(258, ())
        return isinstance(bits, tuple) and len(bits) > 1 and set(bits) == {16}
    return False


def _decode_deep(data: bytes, name: str) -> np.ndarray:
    import cv2

    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None or found.dtype != np.uint16:
        raise ImageError(
            f"{name} cannot be decoded: its 16-bit channels are damaged or of an unknown kind"
        )
    coloured = found.ndim == 3 and found.shape[-1] > 2
    return found[..., [2, 1, 0, 3][: found.shape[-1]]] if coloured else found


def _encode_deep(picture: Picture, form: str) -> bytes:
    import cv2

    values = picture.quantized(65535)
    if values.shape[-1] == 2:  # grey and alpha, which OpenCV cannot write
        values = values[..., [0, 0, 0, 1]]
    order = [2, 1, 0, 3][: values.shape[-1]]
    done, data = cv2.imencode(
        {"PNG": ".png", "TIFF": ".tiff"}[form], np.ascontiguousarray(values[..., order])
    )
    if not done:
        raise ValueError(f"{form} of 16 bits cannot be encoded")
    return data.tobytes()


def _turned(pixels: np.ndarray, turn: int) -> np.ndarray:
    """The array turned upright, for an EXIF orientation of 1 to 8."""
    if turn in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if turn in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels[:, ::-1] if turn in (2, 3, 6, 7) else pixels


def _with_chunks(png: bytes, info: Mapping[str, Any]) -> bytes:
    """A PNG file with colour profile, EXIF and resolution put in after its header."""
    chunks = b""
    if profile := info.get("icc_profile"):
        chunks += _chunk(b"iCCP", b"profile\0\0" + zlib.compress(profile))
    if dpi := info.get("dpi"):
        per_metre = b"".join(round(float(value) / 0.0254).to_bytes(4, "big") for value in dpi)
        chunks += _chunk(b"pHYs", per_metre + b"\1")
    if exif := info.get("exif"):
        chunks += _chunk(b"eXIf", exif.removeprefix(b"Exif\0\0"))
    header_end = 8 + 25  # signature and the chunk IHDR
    return png[:header_end] + chunks + png[header_end:]


def _chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
