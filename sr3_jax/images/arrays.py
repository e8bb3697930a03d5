"""Image files to uint8 arrays, for data sets and metrics, and back.

Pillow does the work. What had to be converted when a file was read comes with it, in words (notes).
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from sr3_jax.errors import UserError
from sr3_jax.runtime import paths
from sr3_jax.runtime.atomic import replacing
from sr3_jax.runtime.paths import AnyPath

Pixels = UInt8[np.ndarray, "h w c"]

SUFFIXES = frozenset(
    ".png .jpg .jpeg .jpe .webp .bmp .tif .tiff .gif .pgm .ppm .pbm .pnm .avif .jp2 .tga".split()
)
_EXIF_IN_PNG = {"exif", "Raw profile type exif", "XML:com.adobe.xmp"}


class ImageError(UserError):
    """A file that is not, or not wholly, an image."""


class Decoded(NamedTuple):
    """An image that was read."""

    pixels: Pixels  # (h, w, channels)
    notes: tuple[str, ...]  # what had to be converted, e.g. ("alpha flattened onto white",)


def is_image_name(path: AnyPath) -> bool:
    """Whether the name looks like an image's: hidden files and other suffixes do not."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def read_size(path: AnyPath | str) -> tuple[int, int]:
    """(width, height) after EXIF orientation, from the header alone; raises ImageError."""
    with open_image(path, str(path)) as image, named_errors(f"{path} cannot be opened as an image"):
        # For these the orientation is not looked up: a TIFF's size is already that after turning,
        # and a PNG without EXIF near its beginning would be decoded in search of it.
        upright = image.format == "TIFF" or (
            image.format == "PNG" and not _EXIF_IN_PNG & image.info.keys()
        )
        return image.size if upright or orientation(image) < 5 else image.size[::-1]


def read(path: AnyPath | str, channels: int | None) -> Decoded:
    """The image in a file as uint8, upright by its EXIF orientation.

    Args:
      path: of the file.
      channels: 3 (RGB), 1 (luma) or None: 1 for a grey image, 3 for any other.

    Raises:
      ImageError: it cannot be read, or not to its end.
    """
    with open_image(path, str(path)) as image:
        return convert(image, channels, str(path))


def decode(data: bytes, channels: int | None, name: str) -> Decoded:
    """As `read`, from the bytes of a file; `name` stands for it in errors."""
    with open_image(io.BytesIO(data), name) as image:
        return convert(image, channels, name)


def convert(image: Image.Image, channels: int | None, name: str = "the image") -> Decoded:
    """As `read`, from a Pillow image of any mode; `name` stands for it in errors."""
    with named_errors(f"{name} cannot be decoded"):
        return _convert(image, channels)


def _convert(image: Image.Image, channels: int | None) -> Decoded:
    notes = []
    # TIFF is the one format that Pillow turns upright itself
    turned_by_load = image.format == "TIFF" and orientation(image) > 1
    levels_are_16_bit = image.mode.startswith("I;16") or (
        image.mode == "I" and image.format == "PPM"
    )
    image.load()
    if getattr(image, "n_frames", 1) > 1:
        notes.append("first frame only")
    if turned_by_load or orientation(image) > 1:
        image = ImageOps.exif_transpose(image)
        notes.append("turned upright as its EXIF orientation says")
    if image.mode.startswith("I") or image.mode == "F":
        levels = to_unit(np.asarray(image, np.float64), 65535.0 if levels_are_16_bit else None)
        image = Image.fromarray(np.round(levels * 255).astype(np.uint8))
        notes.append("16-bit or float levels rounded to 8 bits")
    if image.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        grey = image.mode in ("1", "L", "LA")
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert(
            "L" if grey else "RGB"
        )
        notes.append("alpha flattened onto white")
    elif image.mode in ("P", "CMYK", "YCbCr", "LAB", "HSV"):
        notes.append({"P": "palette"}.get(image.mode, image.mode) + " converted to RGB")
        image = image.convert("RGB")
    grey = image.mode in ("L", "1")
    channels = channels or (1 if grey else 3)
    if image.mode == "RGB" and channels == 1:
        notes.append("colour converted to grey")
    elif grey and channels == 3:
        notes.append("grey repeated in three channels")
    wanted = "L" if channels == 1 else "RGB"
    pixels = np.asarray(image if image.mode == wanted else image.convert(wanted))
    return Decoded(
        np.ascontiguousarray(pixels if pixels.ndim == 3 else pixels[..., None]), tuple(notes)
    )


def to_pillow(pixels: Pixels) -> Image.Image:
    """(h, w, 1 or 3) uint8 as a Pillow image."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def as_channels(pixels: Pixels, channels: int) -> UInt8[np.ndarray, "h w c2"]:
    """The image with 1 or 3 channels: grey is repeated, colour becomes its luma."""
    if pixels.shape[-1] == 3 and channels == 1:
        return np.asarray(to_pillow(pixels).convert("L"))[..., None]
    return np.repeat(pixels, channels // pixels.shape[-1], axis=-1)


def format_of(path: AnyPath) -> str | None:
    """Pillow's name of the format that a suffix stands for; None if it cannot be written."""
    form = Image.registered_extensions().get(path.suffix.lower())
    return form if form in Image.SAVE else None


def write(path: AnyPath | str, pixels: Pixels) -> None:
    """Writes (h, w, 1 or 3) uint8 to `path` in the format of its suffix.

    The file appears whole, by rename, or not at all.

    Raises:
      UserError: the suffix or the folder cannot be written, or the format cannot hold the size.
    """
    path = paths.parse(path)
    if not format_of(path):
        raise UserError(
            f"{path}: images cannot be written with the suffix {path.suffix!r}; "
            "use .png, .jpg, .webp or .tiff"
        )
    image = to_pillow(pixels)
    options: dict[str, Any] = (
        {"quality": 95} if path.suffix.lower() in (".jpg", ".jpeg", ".webp") else {}
    )
    try:
        with replacing(path) as temporary:
            image.save(temporary, **options)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be written: {first_line(error)}") from error


def open_image(source: AnyPath | str | io.BytesIO, name: str) -> Image.Image:
    """The Pillow image of a file, or of its bytes, not yet decoded; raises ImageError."""
    try:
        with named_errors(f"{name} cannot be opened as an image"):
            if not isinstance(source, io.BytesIO | str | Path):
                source = io.BytesIO(source.read_bytes())
            return Image.open(source)
    except ImageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise ImageError(f"{name} does not exist") from error.__cause__
        if isinstance(error.__cause__, UnidentifiedImageError):
            empty = not (
                source.getvalue() if isinstance(source, io.BytesIO) else Path(source).stat().st_size
            )
            raise ImageError(
                f"{name} is {'empty' if empty else 'not an image, whatever its name says'}"
            ) from error.__cause__
        raise


@contextmanager
def named_errors(what: str) -> Iterator[None]:
    """Turns whatever Pillow raises into an ImageError that begins with `what`.

    Damaged files make Pillow raise errors of any kind (struct.error, KeyError).
    """
    try:
        yield
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(f"{what}: {first_line(error)}") from error


def orientation(image: Image.Image) -> int:
    """EXIF orientation: 1 (upright) to 8."""
    value = image.getexif().get(ExifTags.Base.Orientation, 1)
    return value if value in range(1, 9) else 1


def to_unit(levels: np.ndarray, full: float | None = None) -> np.ndarray:
    """Levels of a 16-bit or float image in [0, 1]; `full` is the level that becomes 1.

    If it is not known (None), it is the smallest of 1, 255 and 65,535 that holds the maximum, or
    else the maximum itself.
    """
    levels = np.nan_to_num(levels)
    highest = levels.max(initial=0)
    full = full or next((scale for scale in (1.0, 255.0, 65535.0) if highest <= scale), highest)
    return np.clip(levels / full, 0, 1)


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]
