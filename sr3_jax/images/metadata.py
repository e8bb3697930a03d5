"""What an image file holds beside its pixels: read from any format, and cleaned.

Pillow does the work. What is malformed costs itself alone: it is left out with a note, never the
picture. What the file says about how it stores its pixels (orientation, strips, thumbnails) is not
metadata: it has been applied, or is no longer true.
"""

import math
import re
import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from PIL import ExifTags, Image

ORIENTATION = ExifTags.Base.Orientation
_XMP_ORIENTATION = re.compile(rb"""(tiff:Orientation\s*(?:=\s*["']|>\s*))[0-9]+""")
_XMP_SIZE = re.compile(
    rb"""\s(?:exif:Pixel[XY]Dimension|tiff:Image(?:Width|Length)|GPano:\w*Pixels)=(?:"[^"]*"|'[^']*')"""
    rb"""|<(exif:Pixel[XY]Dimension|tiff:Image(?:Width|Length)|GPano:\w*Pixels)>[^<]*</\1>"""
)
# TIFF tags about how this file stores its pixels (sizes, compression, places of strips and tiles,
# thumbnails), and those kept elsewhere in `Metadata`: resolution, XMP, IPTC, the colour profile
_LAYOUT = {ORIENTATION, *range(254, 260), 262, 266, 273, *range(277, 285), 292, 293, 296, 297}
_LAYOUT |= {317, 320, *range(322, 326), 330, 332, 333, 336, 338, 339, 347, *range(512, 522)}
_LAYOUT |= {*range(529, 533), 700, 33723, 34377, 34675}
# What is of the picture before it was enlarged, or of a program's own way to store it
_STALE = {37724: "Photoshop's layers"} | dict.fromkeys(
    (33550, 33922, 34264, 34735, 34736, 34737), "its place on the earth (GeoTIFF)"
)
_PROGRAMS = ("ImageJ=", '{"shape":')  # of descriptions that say how the pixels are stored
_IMAGE_DESCRIPTION, _INTEROP = 270, 0xA005
_PIXEL_SIZES = (0xA002, 0xA003)  # of the image before it was enlarged
_NOT_TEXT = re.compile(r"XML:com\.adobe\.xmp|Raw profile type (exif|xmp|iptc|icc|APP1)|exif")
_IPTC = 0x0404  # the resource in Photoshop's block
_TIFF_XMP, _TIFF_ICC = 700, 34675


class Metadata(NamedTuple):
    """What a file holds beside its pixels; what it does not have is empty or None."""

    icc: bytes = b""  # the colour profile
    exif: bytes = b""  # without orientation
    xmp: bytes = b""  # whose orientation is upright
    iptc: bytes = b""  # IPTC-IIM
    dpi: tuple[float, float] | None = None  # horizontal, vertical
    text: Mapping[str, str] = {}  # PNG's keywords
    comment: str = ""
    gamma: float | None = None  # PNG's gAMA: the exponent from light to values, 1 / 2.2 for sRGB

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of those that are there."""
        return tuple(name for name in self._fields if getattr(self, name))

    @property
    def info(self) -> dict[str, Any]:
        """Those that Pillow knows, as it keeps them in an image's `info`."""
        names = {"icc": "icc_profile", "exif": "exif", "xmp": "xmp", "dpi": "dpi"}
        return {key: getattr(self, name) for name, key in names.items() if getattr(self, name)}


def of_image(image: Image.Image, exif: Image.Exif) -> tuple[Metadata, tuple[str, ...]]:
    """The metadata of an opened image, and notes on what was left out.

    Args:
      image: as Pillow opens it; it need not be decoded.
      exif: its EXIF, or the tags of the whole file for a TIFF.
    """
    info = image.info
    found: dict[str, Any] = {}
    notes: list[str] = []
    readers: dict[str, tuple[str, Callable[[], Any]]] = {
        "icc": (
            "colour profile",
            lambda: _profile(info.get("icc_profile") or _bytes(exif, _TIFF_ICC)),
        ),
        "exif": ("EXIF", lambda: clean_exif(exif)),
        "xmp": ("XMP", lambda: upright_xmp(_xmp(info) or _bytes(exif, _TIFF_XMP))),
        "iptc": ("IPTC", lambda: _iptc(info)),
        "dpi": ("resolution", lambda: _dpi(info)),
        "text": ("text", lambda: _text(image)),
        "comment": ("comment", lambda: _comment(info)),
        "gamma": ("gamma", lambda: _gamma(info)),
    }
    for name, (what, read) in readers.items():
        try:
            found[name] = read()
        except Exception:  # Pillow's readers raise errors of any kind on malformed entries
            notes.append(f"its {what} is malformed and was left out")
    try:
        notes += stale(exif)
    except Exception:  # as above
        notes.append("some of its EXIF is malformed and was left out")
    return Metadata(**{name: value for name, value in found.items() if value}), tuple(notes)


def orientation(exif: Image.Exif) -> int:
    """EXIF orientation: 1 (upright) to 8; 1 if it says nothing that makes sense."""
    try:
        value = exif.get(ORIENTATION, 1)
    except Exception:  # as above
        return 1
    return value if value in range(1, 9) else 1


def clean_exif(exif: Image.Exif) -> bytes:
    """EXIF without orientation, thumbnail, sizes and tags about how a TIFF stores its pixels."""
    kept = Image.Exif()
    for tag in exif:
        if tag in _LAYOUT or tag in _STALE or tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            continue
        if not (tag == _IMAGE_DESCRIPTION and str(exif[tag]).startswith(_PROGRAMS)):
            kept[tag] = _as_stored(exif[tag])
    for tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        inner = {
            key: _as_stored(value)
            for key, value in exif.get_ifd(tag).items()
            if key not in _PIXEL_SIZES
        }
        if _INTEROP in inner:  # where it was; here is what it holds
            inner[_INTEROP] = dict(exif.get_ifd(_INTEROP))
        if inner:
            kept[tag] = inner
    return kept.tobytes() if len(kept) else b""


def stale(exif: Image.Exif) -> list[str]:
    """Notes on entries that no longer fit an enlarged picture."""
    found = dict.fromkeys(what for tag, what in _STALE.items() if tag in exif)
    if str(exif.get(_IMAGE_DESCRIPTION, "")).startswith(_PROGRAMS):
        found["a program's description of its pixels"] = None
    return [f"{what} was left out" for what in found]


def _as_stored(value: Any) -> Any:
    """A text as the bytes in the file: Pillow reads Latin-1, but would write ASCII."""
    return value.encode("latin-1") if isinstance(value, str) and not value.isascii() else value


def entries_lost(data: bytes, exif: Image.Exif) -> bool:
    """Whether EXIF has entries that Pillow has dropped, as it does with malformed ones.

    Args:
      data: the EXIF as it is in the file.
      exif: what Pillow made of it.
    """
    data = data.removeprefix(b"Exif\0\0")
    order = "<" if data[:2] == b"II" else ">"
    try:
        main = _directory(data, order, struct.unpack_from(f"{order}I", data, 4)[0])
        if main.keys() - set(exif):
            return True
        for tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            if tag in main and _directory(data, order, main[tag]).keys() - set(exif.get_ifd(tag)):
                return True
    except Exception:  # a directory that is cut off, or that Pillow does not read
        return True
    return False


def _directory(data: bytes, order: str, at: int) -> dict[int, int]:
    """The tags of a directory of a TIFF structure, each with its value, or where that is."""
    (count,) = struct.unpack_from(f"{order}H", data, at)
    places = (at + 2 + 12 * i for i in range(count))
    return dict(struct.unpack_from(f"{order}H6xI", data, place) for place in places)


def upright_xmp(xmp: bytes) -> bytes:
    """XMP that says the image is upright, since it has been turned, and nothing of its size."""
    return _XMP_SIZE.sub(b"", _XMP_ORIENTATION.sub(rb"\g<1>1", xmp))


def _profile(icc: bytes) -> bytes:
    if icc and not 128 <= int.from_bytes(icc[:4], "big") <= len(icc):
        raise ValueError("it is cut off")
    return icc


def _xmp(info: Mapping[Any, Any]) -> bytes:
    found = info.get("xmp") or info.get("XML:com.adobe.xmp") or b""
    return found.encode() if isinstance(found, str) else bytes(found)


def _iptc(info: Mapping[Any, Any]) -> bytes:
    return bytes((info.get("photoshop") or {}).get(_IPTC, b""))


def _bytes(exif: Image.Exif, tag: int) -> bytes:
    value = exif.get(tag, b"")
    return value if isinstance(value, bytes) else b""


def _dpi(info: Mapping[Any, Any]) -> tuple[float, float] | None:
    if "dpi" not in info:
        return None
    x, y = (float(value) for value in info["dpi"])
    if not all(math.isfinite(value) and value > 0 for value in (x, y)):
        raise ValueError(x, y)
    return x, y


def _text(image: Image.Image) -> dict[str, str]:
    found = getattr(image, "text", {})
    return {
        key: str(value)
        for key, value in found.items()
        if key != "Comment" and not _NOT_TEXT.match(key)
    }


def _comment(info: Mapping[Any, Any]) -> str:
    found = info.get("comment") or info.get("Comment") or ""
    if not isinstance(found, bytes):
        return str(found)
    try:
        return found.decode("utf-8")
    except UnicodeDecodeError:
        return found.decode("latin-1")


def _gamma(info: Mapping[Any, Any]) -> float | None:
    gamma = info.get("gamma")
    if gamma is not None and not 0 < gamma < 100:
        raise ValueError(gamma)
    return gamma
