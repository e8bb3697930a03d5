"""The bytes of an image file to an array: the one decoder of the package.

Pillow decodes 8 bits a channel, imagecodecs and tifffile what has more (which Pillow would cut to
8) and floats. Whatever a file holds ends as (height, width, 1 to 4 channels), upright: grey or RGB,
and alpha that is not multiplied into the colours. What was changed on the way is said (notes).
"""

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from sr3_jax.errors import UserError, first_line
from sr3_jax.images import metadata, png, tiff
from sr3_jax.images.formats import FORMATS
from sr3_jax.images.metadata import Metadata
from sr3_jax.images.png import Bytes

UPRIGHT = "turned upright as its orientation says"
EXIF_MALFORMED = "its EXIF is malformed and was left out"
PROFILE_LEFT = "its colour profile describes other channels and was left out"
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
_J2K_SIZ = b"\xff\x4f\xff\x51"  # start of codestream, then the marker of sizes
_END_OF_JPEG = b"\xff\xd9"
# By how they begin
_OTHER_KINDS = {
    b"ftyphei": "HEIC",
    b"ftyphev": "HEIC",
    b"ftypmif1": "HEIF",
    b"\xff\x0a": "JPEG XL",
    b"JXL \r\n": "JPEG XL",
    b"\xff\xd8\xff": "a JPEG of a rare kind, or a damaged one",
    b"8BPS": "a Photoshop file",
    b"%PDF": "a PDF",
    b"%!PS": "PostScript",
    b"\x76\x2f\x31\x01": "OpenEXR",
}
_THROUGH_PROFILE = ("CMYK", "LAB")  # modes whose colours are converted to sRGB
_BLOCK = 16  # pixels of a side of what a JPEG is made of, at most
_MOST_MISSING = 0.02  # of a JPEG's blocks: more are no picture


class ImageError(UserError):
    """A file that is not, or not wholly, an image."""


class TooManyPixels(ImageError):
    """More pixels than Pillow agrees to read: about 180 million."""

    def __init__(self, name: str, pixels: int):
        super().__init__(f"{name} has {pixels / 1e6:.0f} million pixels, too many to be read")
        self.pixels = pixels


class Raster(NamedTuple):
    """A decoded image file."""

    # (h, w, channels) of 1 (grey), 2 (and alpha), 3 (RGB) or 4 (RGBA), upright;
    # uint8, uint16, or float32 in [0, 1]
    values: np.ndarray
    metadata: Metadata
    notes: tuple[str, ...]  # what had to be changed


class _Header(NamedTuple):
    """What is known of a file before its pixels are decoded."""

    image: Image.Image | None  # None for a TIFF of a kind that Pillow does not know
    height: int  # as stored
    width: int
    orientation: int
    metadata: Metadata
    notes: tuple[str, ...]


def size(file: Bytes, name: str) -> tuple[int, int]:
    """(height, width) of the upright image in an open file, without decoding it.

    Raises:
      TooManyPixels: Pillow refuses to read so many.
      ImageError: it is not an image.
    """
    header = _header(file, name)
    sides = header.height, header.width
    return sides[::-1] if header.orientation > 4 else sides


def decode(data: bytes, name: str) -> Raster:
    """The first frame of the image in the bytes of a file, upright.

    Raises:
      ImageError: it cannot be decoded, or not to its end; `name` stands for it in the message.
    """
    mended = list[str]()
    if data.startswith(png.SIGNATURE):
        file, mended = png.mended(io.BytesIO(data))
        data = file.read() if mended else data
    header = _header(io.BytesIO(data), name)
    with named_errors(f"{name} cannot be decoded"):
        if header.image is None:
            values, *notes = tiff.read(data)
            converted = False
        else:
            values, converted, *notes = _pixels(header, data)
        notes = [*mended, *notes, *_left_out(header, data)]
        if header.orientation > 1:
            notes.append(UPRIGHT)
            values = np.ascontiguousarray(turned(values, header.orientation))
    found = header.metadata
    if converted:
        found = found._replace(icc=b"", gamma=None)
    elif found.icc and found.icc[16:20] != (b"GRAY" if values.shape[-1] < 3 else b"RGB "):
        found = found._replace(icc=b"")
        notes.append(PROFILE_LEFT)
    return Raster(values, found, (*header.notes, *notes))


def of_pillow(image: Image.Image, name: str) -> np.ndarray:
    """The values of `Raster`, of a Pillow image of any mode, which may come from a file."""
    with named_errors(f"{name} cannot be decoded"):
        turn = metadata.orientation(_exif(image))
        image.load()
        values, *_ = _of_mode(image, image.info.get("icc_profile", b""))
        # Pillow turns a TIFF by itself when it is loaded
        return values if image.format == "TIFF" else np.ascontiguousarray(turned(values, turn))


def metadata_of(image: Image.Image) -> Metadata:
    """What a Pillow image holds beside its pixels, for what `of_pillow` makes of them."""
    found, _ = metadata.of_image(image, _exif(image))
    return found._replace(icc=b"") if image.mode in _THROUGH_PROFILE else found


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


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """An array (h, w, c) turned upright, for an EXIF orientation of 1 to 8."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels[:, ::-1] if orientation in (2, 3, 6, 7) else pixels


# -- headers


def _header(file: Bytes, name: str) -> _Header:
    if file.read(len(png.SIGNATURE)) == png.SIGNATURE:
        file, _ = png.mended(file)
    file.seek(0)
    try:
        with named_errors(f"{name} cannot be opened as an image"):
            image = Image.open(file, formats=tuple(FORMATS))
    except ImageError as error:
        return _unknown_to_pillow(file, name, error)
    with named_errors(f"{name} cannot be decoded"):
        # The EXIF of a PNG may come after its pixels, which Pillow would decode to get at it
        bare = image
        if image.format == "PNG":
            bare = Image.open(io.BytesIO(png.without_pixels(file)), formats=("PNG",))
            bare.load()
        exif = _exif(bare)
        found, notes = metadata.of_image(bare, exif)
        if (given := bare.info.get("exif")) and EXIF_MALFORMED not in notes:
            if not len(exif):
                notes += (EXIF_MALFORMED,)
            elif metadata.entries_lost(given, exif):
                notes += ("some of its EXIF is malformed and was left out",)
        width, height = image.size
        if image.format == "TIFF":  # where Pillow gives the size after turning
            tags = image.tag_v2  # type: ignore[attr-defined]
            width, height = int(tags[256]), int(tags[257])
            iptc, more = tiff.iptc(file)
            found, notes = found._replace(iptc=iptc), (*notes, *more)
        return _Header(image, height, width, metadata.orientation(exif), found, notes)


def _unknown_to_pillow(file: Bytes, name: str, error: ImageError) -> _Header:
    """The header of a TIFF of a kind that Pillow does not know, or the right error."""
    cause = error.__cause__
    if isinstance(cause, Image.DecompressionBombError):
        raise TooManyPixels(name, int(re.findall(r"\d+", str(cause))[0])) from cause
    if not isinstance(cause, UnidentifiedImageError):
        raise error
    file.seek(0)
    start = file.read(4)
    if start in tiff.SIGNATURES:
        with named_errors(f"{name} cannot be decoded"):
            height, width = tiff.size(file)
            if height * width > 2 * (Image.MAX_IMAGE_PIXELS or 2**62):
                raise TooManyPixels(name, height * width)
            exif, found, notes = tiff.tags(file)
            return _Header(None, height, width, metadata.orientation(exif), found, notes)
    file.seek(0)
    start = file.read(16)
    begins = (start, start[4:])  # the boxes of HEIC and JPEG XL begin with their length
    kinds = _OTHER_KINDS.items()
    kind = next((kind for mark, kind in kinds if any(x.startswith(mark) for x in begins)), "")
    if kind:
        raise ImageError(f"{name} is {kind}, which is not read") from cause
    raise ImageError(
        f"{name} is {'not an image, whatever its name says' if start else 'empty'}"
    ) from cause


def _exif(image: Image.Image) -> Image.Exif:
    try:
        return image.getexif()
    except Exception:  # malformed EXIF costs itself alone
        return Image.Exif()


# -- pixels


def _pixels(header: _Header, data: bytes) -> tuple:
    """(values, whether they are sRGB now, *notes), as stored."""
    image = header.image
    assert image is not None
    notes = ["first frame only"] if _has_frames(image) else []
    decoders: dict[str, Callable[[Image.Image, bytes], np.ndarray | None]] = {
        "PNG": _deep_png,
        "PPM": _deep_ppm,
        "JPEG2000": _deep_jpeg2000,
        "AVIF": _deep_avif,
    }
    if decoder := decoders.get(image.format or ""):
        values = decoder(image, data)
        if values is not None:
            return values if values.ndim == 3 else values[..., None], False, *notes
    if image.format == "TIFF" and tiff.is_unusual(data):
        values, *more = tiff.read(data)
        return values, False, *notes, *more
    if image.format == "PNG" and data[25] == 0 and data[24] in (2, 4):
        # Pillow brings the levels to 8 bits, and not the one that is clear
        clear = image.info.get("transparency")
        if isinstance(clear, int):
            image.info["transparency"] = clear * 255 // (2 ** data[24] - 1)
    try:
        image.load()
    except OSError:
        if image.format not in ("JPEG", "MPO"):
            raise
        image, note = _mended_jpeg(data)
        notes.append(note)
    values, converted, *more = _of_mode(image, header.metadata.icc)
    if image.format == "TIFF":  # which Pillow has turned while loading: back to as it is stored
        values = turned(values, {6: 8, 8: 6}.get(header.orientation, header.orientation))
    return values, converted, *notes, *more


def _left_out(header: _Header, data: bytes) -> list[str]:
    """Notes on what else the file holds that does not come through."""
    image, notes = header.image, list[str]()
    kind = image.format if image is not None else "TIFF"
    if kind == "PNG":
        there = {name for name in (b"cICP", b"cHRM", b"sRGB", b"iCCP") if png.content(data, name)}
        if b"cICP" in there:
            notes.append("its colour space (cICP) was left out: the values are taken as sRGB")
        elif there == {b"cHRM"}:
            notes.append("its primaries (cHRM) were left out: the values are taken as sRGB")
        if re.search(rb"(?:z|t)TXtRaw profile type (?:iptc|xmp|icc)", data):
            notes.append("its profile in a text (Raw profile type) was left out")
    if kind == "MPO" and getattr(image, "n_frames", 1) > 1:
        notes.append("its further images (the other eye, depth or a gain map) were left out")
    if kind == "AVIF" and (at := data.find(b"colrnclx")) >= 0:
        primaries, curve = (int.from_bytes(data[at + i : at + i + 2], "big") for i in (8, 10))
        if primaries not in (1, 2) or curve not in (1, 2, 6, 13):
            notes.append("its colour space (nclx) was left out: the values are taken as sRGB")
    if kind == "JPEG2000" and b"colr\x02" in data:
        notes.append("its colour profile was left out: it is not read from JPEG 2000")
    if kind == "TIFF":
        notes += tiff.left_out(data)
    return notes


def _has_frames(image: Image.Image) -> bool:
    if image.format != "TIFF":
        return getattr(image, "n_frames", 1) > 1 and image.format != "MPO"
    # To count a TIFF's pages, all are visited; whether there is a second one is soon known
    try:
        image.seek(1)
    except EOFError:
        return False
    finally:
        image.seek(0)
    return True


def _of_mode(image: Image.Image, icc: bytes) -> tuple:
    """(values, whether they are sRGB now, *notes) of an image that Pillow has decoded."""
    mode = image.mode
    if mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)[..., None], False
    if mode in ("I", "F"):
        values, *notes = tiff.to_unit(np.asarray(image))
        return values[..., None], False, *notes
    if mode in _THROUGH_PROFILE:
        rgb, note = _through_profile(image, icc)
        return rgb, True, note
    notes = [f"{mode} converted to RGB"] if mode in ("YCbCr", "HSV") else []
    clear = mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
    colour = "L" if mode in ("1", "L", "LA", "La") else "RGB"
    if mode == "La":  # Pillow has no way from La to L
        image = image.convert("LA")
    values = np.asarray(image.convert(f"{colour}A" if clear else colour))
    if mode in ("P", "PA"):
        grey = (values[..., :1] == values[..., 1:3]).all()
        values = np.delete(values, (1, 2), axis=-1) if grey else values
        notes.append(f"palette converted to {'grey' if grey else 'RGB'}")
    return values if values.ndim == 3 else values[..., None], False, *notes


def _through_profile(image: Image.Image, icc: bytes) -> tuple:
    """(values, note): the colours of a CMYK or LAB image in sRGB."""
    mode = image.mode
    try:
        source = (
            ImageCms.createProfile("LAB")
            if mode == "LAB"
            else ImageCms.ImageCmsProfile(io.BytesIO(icc))
        )
        rgb = ImageCms.profileToProfile(
            image, source, SRGB, ImageCms.Intent.RELATIVE_COLORIMETRIC, "RGB"
        )
        note = f"{mode} converted to sRGB" + (" by its colour profile" if mode == "CMYK" else "")
    except (OSError, ImageCms.PyCMSError):  # it has no profile, or one of other channels
        rgb, note = image.convert("RGB"), f"{mode} converted to RGB without a colour profile"
    return np.asarray(rgb), note


def _mended_jpeg(data: bytes) -> tuple[Image.Image, str]:
    """The image in a JPEG that ends early, if next to nothing of it is missing.

    Its data are continued in two ways: where the two results differ, the file has nothing to say.
    """
    if not _has_all_scans(data):
        raise ValueError("the file is cut off: it holds only a coarse version of the image")
    data = data.rstrip(b"\xff")  # half of a marker
    random = np.random.default_rng(0).integers(0, 255, 2**16, np.uint8).tobytes()
    image, other = (
        Image.open(io.BytesIO(data + more + _END_OF_JPEG), formats=("JPEG",))
        for more in (b"", random)
    )
    image.load()
    other.load()
    apart = (np.asarray(image) != np.asarray(other)).reshape(image.height, image.width, -1).any(-1)
    blocks = [
        bool(_inside(apart[y : y + _BLOCK, x : x + _BLOCK]).any())
        for y in range(0, image.height, _BLOCK)
        for x in range(0, image.width, _BLOCK)
    ]
    missing = len(blocks) - blocks.index(True) if True in blocks else 0
    if missing > max(1, _MOST_MISSING * len(blocks)):
        raise ValueError(
            f"the file is cut off: {missing / len(blocks):.0%} of the image is missing"
        )
    if not missing:
        return image, "the file is cut off after its last pixel"
    return image, "the file is cut off: a few pixels at its end may be grey"


def _inside(block: np.ndarray) -> np.ndarray:
    """A block without its edges, into which the colours of its neighbours reach."""
    height, width = block.shape
    top, left = min(4, height // 2), min(4, width // 2)
    return block[top : max(height - 4, top + 1), left : max(width - 4, left + 1)]


def _has_all_scans(data: bytes) -> bool:
    """Whether a JPEG has a scan for every bit of every coefficient: a progressive one has many."""
    exact: dict[int, set[int]] = {}  # by component, the coefficients that are known to the last bit
    for found in re.finditer(rb"\xff\xda(..)(.)", data, re.DOTALL):
        length, count = int.from_bytes(found[1], "big"), found[2][0]
        body = data[found.end() : found.start() + 2 + length]
        if length != 6 + 2 * count or len(body) < 2 * count + 3:
            continue
        first, last, low = body[2 * count], body[2 * count + 1], body[2 * count + 2] & 15
        for i in range(count):
            known = exact.setdefault(body[2 * i], set())
            if low == 0:
                known |= set(range(first, last + 1))
    return bool(exact) and all(set(range(64)) <= known for known in exact.values())


# -- more than 8 bits a channel


def _deep_png(image: Image.Image, data: bytes) -> np.ndarray | None:
    import imagecodecs

    if data[24] != 16:
        return None
    values = np.asarray(imagecodecs.png_decode(data))
    key = png.content(data, b"tRNS")
    if not key or values.shape[2:] not in ((), (1,), (3,)):
        return values
    values = values if values.ndim == 3 else values[..., None]
    clear = (values == np.frombuffer(key, ">u2")[: values.shape[-1]]).all(-1, keepdims=True)
    return np.concatenate([values, np.where(clear, 0, 65535).astype(np.uint16)], axis=-1)


def _deep_ppm(image: Image.Image, data: bytes) -> np.ndarray | None:
    found = re.match(
        rb"P([2356])(?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)\s", data
    )
    most = int(found[4]) if found else 255
    if found is None or most <= 255 or most > 65535:
        return None
    channels = 3 if found[1] in b"36" else 1
    shape = (image.height, image.width, channels)
    body = data[found.end() :]
    if found[1] in b"56":
        values = np.frombuffer(body, ">u2", count=int(np.prod(shape)))
    else:
        values = np.array(body.split()[: int(np.prod(shape))], np.uint32)
    return _scaled(values.reshape(shape), most)


def _deep_jpeg2000(image: Image.Image, data: bytes) -> np.ndarray | None:
    import imagecodecs

    at = data.find(_J2K_SIZ)
    bits = (data[at + 42] & 0x7F) + 1 if at >= 0 else 8
    if bits <= 8 or image.mode not in ("I;16", "RGB", "RGBA", "LA"):
        return None
    return _scaled(np.asarray(imagecodecs.jpeg2k_decode(data)), 2**bits - 1)


def _deep_avif(image: Image.Image, data: bytes) -> np.ndarray | None:
    import imagecodecs

    at = data.find(b"av1C")
    flags = data[at + 6] if at >= 0 else 0
    if not flags & 0x40:
        return None
    values = np.asarray(imagecodecs.avif_decode(data))
    values = values if values.ndim == 3 else values[..., None]
    if values.shape[-1] in (3, 4) and image.mode in ("RGB", "L"):
        values = values[..., :3]
    return _scaled(values, 4095 if flags & 0x20 else 1023)


def _scaled(values: np.ndarray, most: int) -> np.ndarray:
    """Levels up to `most` as levels up to 65,535."""
    if most == 65535:
        return values.astype(np.uint16)
    return np.rint(np.minimum(values, most) * (65535 / most)).astype(np.uint16)
