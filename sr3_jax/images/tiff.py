"""TIFF files that Pillow reads wrongly or not at all, and the TIFF files that we write.

Read are 16 bits a channel, integers of 32 bits and floats, in grey and colour, by tifffile. Written
is what Pillow's writer cannot: 16 bits a channel with EXIF; the tags are laid out by Pillow.
"""

import io
import zlib
from typing import Any

import numpy as np
import tifffile
from PIL import ExifTags, Image, TiffImagePlugin

from sr3_jax.images import metadata
from sr3_jax.images.metadata import Metadata
from sr3_jax.images.png import Bytes

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_CMYK = 5  # of the tag PhotometricInterpretation
_PREMULTIPLIED, _STRAIGHT = 1, 2  # values of the tag ExtraSamples
_DEFLATE, _HORIZONTAL = 8, 2  # compression and predictor
_TYPES = {700: 1, 33723: 7, 34675: 7}  # XMP, IPTC, colour profile: bytes
_IPTC = 33723
_SIGNED = 2  # of the tag SampleFormat
_PER_INCH, _PER_CENTIMETRE = 2, 3


def size(file: Bytes) -> tuple[int, int]:
    """(height, width) as stored, from the first page."""
    file.seek(0)
    with tifffile.TiffFile(file) as opened:
        page = opened.pages.first
        return int(page.imagelength), int(page.imagewidth)


def is_unusual(data: bytes) -> bool:
    """Whether the first page has channels that Pillow would cut to 8 bits."""
    with tifffile.TiffFile(io.BytesIO(data)) as opened:
        page = opened.pages.first
        unusual = page.bitspersample > 8 or page.sampleformat == _SIGNED
        return unusual and page.photometric in (0, 1, 2)


def read(data: bytes) -> tuple:
    """(values, *notes) of the first page, as stored: (h, w, 1 to 4) uint8, uint16 or float32."""
    with tifffile.TiffFile(io.BytesIO(data)) as opened:
        page = opened.pages.first
        kind = page.photometric.name if hasattr(page.photometric, "name") else page.photometric
        if page.photometric not in (0, 1, 2):
            raise ValueError(f"a TIFF of {page.bitspersample} bits in {kind} is not supported")
        # planes, depth, height, width, channels
        values = page.asarray().reshape(page.shaped)[:, 0]
        extra, inverted = tuple(page.extrasamples or ()), page.photometric == 0
        bits = page.bitspersample
    if values.dtype.kind == "c":
        raise ValueError("a TIFF of complex numbers is not supported")
    values = np.moveaxis(values, 0, -2).reshape(*values.shape[1:3], -1)
    if values.dtype == np.uint16 and bits < 16:  # 10, 12 or 14
        values = np.rint(values * np.float64(65535 / (2**bits - 1))).astype(np.uint16)
    colours = values.shape[-1] - len(extra)
    alpha = bool(extra) and extra[0] in (_PREMULTIPLIED, _STRAIGHT)
    notes = []
    if values.shape[-1] > colours + alpha:
        values = values[..., : colours + alpha]
        notes.append("further channels were left out")
    if values.dtype == np.uint8 or values.dtype == np.uint16:
        full = float(np.iinfo(values.dtype).max)
    else:
        parts = [to_unit(part) for part in np.split(values, [colours], axis=-1) if part.size]
        values = np.concatenate([part[0] for part in parts], axis=-1)
        notes += dict.fromkeys(note for part in parts for note in part[1:])
        full = 1.0
    if inverted:
        colour = (full - values[..., :colours]).astype(values.dtype)
        values = np.concatenate([colour, values[..., colours:]], axis=-1)
    if alpha and extra[0] == _PREMULTIPLIED:
        values = _straight(values, full)
    return np.ascontiguousarray(values), *notes


def left_out(data: bytes) -> list[str]:
    """Notes on what a file's first page holds that is not read from it."""
    notes = []
    with tifffile.TiffFile(io.BytesIO(data)) as opened:
        page = opened.pages.first
        kinds = tuple(page.extrasamples or ())
        if page.photometric == _CMYK and page.bitspersample > 8:
            notes.append("rounded to 8 bits: CMYK has no more here")
        unread = [kind for kind in kinds if kind not in (_PREMULTIPLIED, _STRAIGHT)]
        if page.bitspersample <= 8 and (unread or len(kinds) > 1):
            notes.append("further channels were left out")
        if page.subfiletype & 1 and 330 in page.tags:
            notes.append("only the small version on its first page was read")
    return notes


def to_unit(levels: np.ndarray) -> tuple:
    """(float32 in [0, 1], *notes) of float levels, or of integers of 32 bits.

    What stands for white is not in the file: 1, 255 or 65,535 is taken, by nearly all of the
    values, since a few may overshoot.
    """
    notes = []
    levels = np.asarray(levels, np.float32)
    if not np.isfinite(levels).all():
        levels = np.nan_to_num(levels, posinf=0.0, neginf=0.0)
        notes.append("values that are no numbers became black")
    highest = float(levels.max(initial=0))
    most = float(np.quantile(levels, 0.95)) if levels.size else 0.0
    full = next(
        (white for white in (1.0, 255.0, 65535.0) if most <= white and highest <= 16 * white),
        highest,
    )
    if highest > full or levels.min(initial=0) < 0:
        notes.append(f"levels outside of 0 to {full:g} were clipped")
    elif full not in (1.0, 65535.0):
        notes.append(f"levels taken to run from 0 to {full:g}")
    return np.clip(levels / np.float32(full), 0, 1), *notes


def iptc(file: Bytes) -> tuple[bytes, tuple[str, ...]]:
    """The IPTC of the first page, and notes; many programs pad it to whole numbers of 32 bits."""
    file.seek(0)
    try:
        with tifffile.TiffFile(file) as opened:
            tag = opened.pages.first.tags.get(_IPTC)
            return bytes(tag.value if tag else b"").rstrip(b"\0"), ()
    except Exception:  # as all that is malformed beside the picture, it costs itself alone
        return b"", ("its IPTC is malformed and was left out",)


def tags(file: Bytes) -> tuple[Image.Exif, Metadata, tuple[str, ...]]:
    """EXIF, metadata and notes of a file that Pillow does not open as an image."""
    exif = Image.Exif()
    file.seek(0)
    exif.load(b"Exif\0\0" + file.read())
    info: dict[str, Any] = {}
    if ExifTags.Base.XResolution in exif:
        unit = 2.54 if exif.get(ExifTags.Base.ResolutionUnit) == _PER_CENTIMETRE else 1.0
        x, y = (exif.get(tag, 0) for tag in (ExifTags.Base.XResolution, ExifTags.Base.YResolution))
        info["dpi"] = (x * unit, y * unit)
    holder = Image.new("L", (1, 1))
    holder.info.update(info)
    found, notes = metadata.of_image(holder, exif)
    found_iptc, more = iptc(file)
    return exif, found._replace(iptc=found_iptc), (*notes, *more)


def write(values: np.ndarray, kept: Metadata) -> bytes:
    """A TIFF file of (h, w, 1 to 4) uint8 or uint16 with its metadata, deflated."""
    height, width, channels = values.shape
    alpha, bits = channels in (2, 4), values.dtype.itemsize * 8
    ifd = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
    if kept.exif:
        exif = Image.Exif()
        exif.load(kept.exif)
        for tag in exif:
            inner = tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
            ifd[tag] = exif.get_ifd(tag) if inner else exif[tag]
    for tag, content in ((700, kept.xmp), (33723, kept.iptc), (34675, kept.icc)):
        if content:
            ifd.tagtype[tag] = _TYPES[tag]
            ifd[tag] = content
    if kept.dpi:
        ifd[282], ifd[283] = (TiffImagePlugin.IFDRational(round(v * 1000), 1000) for v in kept.dpi)
        ifd[296] = _PER_INCH
    ifd[256], ifd[257], ifd[258] = width, height, (bits,) * channels
    ifd[259], ifd[317], ifd[262] = _DEFLATE, _HORIZONTAL, 2 if channels > 2 else 1
    ifd[277], ifd[278], ifd[284], ifd[339] = channels, height, 1, (1,) * channels
    if alpha:
        ifd[338] = _STRAIGHT
    # The predictor: each value as its difference from that of the pixel to the left
    before = np.concatenate([np.zeros_like(values[:, :1]), values[:, :-1]], axis=1)
    pixels = zlib.compress((values - before).astype(values.dtype.newbyteorder("<")).tobytes(), 6)
    ifd.tagtype[273] = ifd.tagtype[279] = 4  # of a fixed length, whatever the number
    ifd[273], ifd[279] = 0, len(pixels)  # the pixels follow the tags, which Pillow adds up
    header = b"II*\0" + (8).to_bytes(4, "little")
    data = header + ifd.tobytes(len(header)) + pixels
    if len(data) >= 2**32:
        raise ValueError("TIFF files end at 4 GiB; use .png")
    return data


def _straight(values: np.ndarray, full: float) -> np.ndarray:
    """Colours that alpha is multiplied into, without it."""
    alpha = values[..., -1:].astype(np.float64)
    colour = values[..., :-1] * (full / np.maximum(alpha, full / 65535 / 2))
    colour = np.clip(colour, 0, full)
    colour = colour if values.dtype.kind == "f" else np.rint(colour)
    return np.concatenate([colour.astype(values.dtype), values[..., -1:]], axis=-1)
