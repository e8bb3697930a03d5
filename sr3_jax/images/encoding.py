"""Pictures to the bytes of an image file: the one encoder of the package.

Pillow does the work; TIFF and what has 16 bits a channel goes by `tiff` and imagecodecs. What a
format cannot hold is left out or converted, and said.
"""

import io
import math
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from sr3_jax.images import png, tiff
from sr3_jax.images.formats import Format
from sr3_jax.images.metadata import Metadata
from sr3_jax.images.pixels import Picture

_WORDS = {
    "icc": "colour profile",
    "exif": "EXIF",
    "xmp": "XMP",
    "iptc": "IPTC",
    "dpi": "resolution",
    "text": "text",
    "comment": "comment",
    "gamma": "gamma",
}
_XMP_KEYWORD = "XML:com.adobe.xmp"
_GIF_COLOURS = 256
# Bytes, where a format's segments are short
_ROOM = {"JPEG": {"exif": 65_527, "xmp": 65_500, "comment": 65_533, "iptc": 65_500}}
_MOST_DPI = {"JPEG": 65_535, "BMP": 65_535, "PNG": 10**8, "TIFF": 10**6}  # that they can say


def encode(
    picture: Picture,
    form: Format,
    kept: Metadata = Metadata(),  # noqa: B008 (immutable)
    quality: int | None = None,
) -> tuple[bytes, list[str]]:
    """The bytes of an image file, and what its format could not keep, in words.

    Args:
      picture: Its pixels.
      form: The format.
      kept: What else the file shall hold.
      quality: Of 100, for formats that lose some; None: the format's usual one.
    """
    picture, notes = _fitting(picture, form)
    kept, more = _holding(kept, form, picture)
    values = picture.quantized(65535 if picture.levels != 255 and form.deep else 255)
    notes += more
    if form.name == "TIFF":
        return tiff.write(values, kept), notes
    if form.name == "PNG":
        return _png(values, kept), notes
    if form.name == "GIF" and values.shape[-1] == 3:
        used = len(np.unique(values.reshape(-1, 3), axis=0))
        notes += ["reduced to 256 colours: GIF has no more"] if used > _GIF_COLOURS else []
    return _by_pillow(values, form, kept, quality), notes


def _fitting(picture: Picture, form: Format) -> tuple[Picture, list[str]]:
    """The picture with what the format can hold of its pixels, and notes."""
    notes = []
    if picture.alpha is not None and not form.alpha:
        opacity = (picture.alpha + 1) / 2
        picture = picture._replace(colour=picture.colour * opacity + (1 - opacity), alpha=None)
        notes.append(f"alpha flattened onto white: {form.name} has none")
    if picture.levels != 255 and not form.deep:
        notes.append(f"rounded to 8 bits: {form.name} has no more")
        picture = picture._replace(levels=255)
    return picture, notes


def _holding(kept: Metadata, form: Format, picture: Picture) -> tuple[Metadata, list[str]]:
    """The metadata that the format can hold, and notes on the rest."""
    notes = []
    lost = {name for name in kept.fields if name not in form.fields}
    if "comment" in lost and "text" in form.fields:
        lost.remove("comment")
    grey = picture.colour.shape[-1] == 1
    if kept.icc and grey and not form.grey and "icc" not in lost:
        notes.append(f"colour profile left out: it is for grey, which {form.name} stores as RGB")
        kept = kept._replace(icc=b"")
    if kept.dpi and max(kept.dpi) > _MOST_DPI.get(form.name, math.inf):
        notes.append(f"resolution left out: {form.name} cannot say {max(kept.dpi):.0f} per inch")
        kept = kept._replace(dpi=None)
    for name, most in _ROOM.get(form.name, {}).items():
        content = getattr(kept, name)
        if name not in lost and len(content.encode() if name == "comment" else content) > most:
            notes.append(f"{_WORDS[name]} left out: {form.name} has room for 64 KiB of it")
            kept = kept._replace(**{name: Metadata()._asdict()[name]})
    if lost:
        words = ", ".join(_WORDS[name] for name in kept.fields if name in lost)
        notes.append(f"{words} left out: {form.name} has no place for it")
        kept = kept._replace(**{name: Metadata()._asdict()[name] for name in lost})
    return kept, notes


def _png(values: np.ndarray, kept: Metadata) -> bytes:
    """A PNG file of 8 or 16 bits a channel."""
    if values.dtype == np.uint8:
        buffer = io.BytesIO()
        _image(values).save(buffer, "PNG", **_png_options(kept))
        data = buffer.getvalue()
    else:
        import imagecodecs

        data = bytes(
            imagecodecs.png_encode(
                np.ascontiguousarray(values.squeeze(-1) if values.shape[-1] == 1 else values),
                level=6,
            )
        )
        # Pillow lays the metadata out, in a file of one pixel
        buffer = io.BytesIO()
        pixel = np.zeros((1, 1, values.shape[-1]), np.uint8)
        _image(pixel).save(buffer, "PNG", **_png_options(kept))
        data = png.with_chunks(data, b"".join(whole for _, whole in png.ancillary(buffer)))
    gamma = b"" if kept.gamma is None else round(kept.gamma * 100_000).to_bytes(4, "big")
    return png.with_chunks(data, png.chunk(b"gAMA", gamma)) if gamma else data


def _png_options(kept: Metadata) -> dict[str, Any]:
    text = PngImagePlugin.PngInfo()
    for key, value in kept.text.items():
        text.add_text(key, value) if value.isascii() else text.add_itxt(key, value)
    if kept.comment:
        text.add_itxt("Comment", kept.comment)
    if kept.xmp:
        text.add_itxt(_XMP_KEYWORD, kept.xmp.decode("utf-8", "replace"))
    return {"pnginfo": text} | _options(kept, ("icc", "exif", "dpi"))


def _options(kept: Metadata, names: tuple[str, ...]) -> dict[str, Any]:
    """Fields as arguments of Pillow's `save`."""
    return {
        {"icc": "icc_profile"}.get(name, name): getattr(kept, name)
        for name in names
        if getattr(kept, name)
    }


def _by_pillow(values: np.ndarray, form: Format, kept: Metadata, quality: int | None) -> bytes:
    options = _options(kept, tuple(name for name in kept.fields if name not in ("iptc", "text")))
    if form.quality:
        options["quality"] = form.quality if quality is None else quality
    if form.name == "JPEG":
        options["subsampling"] = 0
        if kept.comment:
            options["comment"] = kept.comment.encode()
    buffer = io.BytesIO()
    _image(values).save(buffer, form.name, **options)
    data = buffer.getvalue()
    if kept.iptc and form.name == "JPEG":
        data = data[:2] + _photoshop_segment(kept.iptc) + data[2:]
    return data


def _image(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values[..., 0] if values.shape[-1] == 1 else values)


def _photoshop_segment(iptc: bytes) -> bytes:
    """The segment of a JPEG in which Photoshop, and all others, keep IPTC."""
    body = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + len(iptc).to_bytes(4, "big") + iptc
    body += b"\0" * (len(iptc) % 2)
    return b"\xff\xed" + (len(body) + 2).to_bytes(2, "big") + body
