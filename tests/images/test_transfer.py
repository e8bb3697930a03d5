"""What else is in an image file comes through, or is said to be lost: docs/formats.md is made here.

    python -m tests.images.test_transfer    # writes the table again

The files are made by other programs than ours wherever there are any, in every format that can hold
the thing; each is read, written in every format, and read again.
"""

import io
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms, PngImagePlugin, TiffImagePlugin

from sr3_jax.images import files
from sr3_jax.images.encoding import encode
from sr3_jax.images.formats import FORMATS

pytestmark = pytest.mark.fast
PAGE = Path(__file__).parents[2] / "docs" / "formats.md"
BEGIN, END = "<!-- table -->", "<!-- end of table -->"
Y, X = np.mgrid[0:12, 0:16]
RGB = np.stack([40 + 12 * X, 200 - 12 * Y, 90 + 5 * (X + Y)], -1).astype(np.uint8)
ALPHA = np.where(X + Y > 8, 255, 0).astype(np.uint8)
DEEP = (RGB.astype(np.uint16) << 8) + 77
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syn'
    b'tax-ns#"><rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/" dc:source="here"/>'
    b"</rdf:RDF></x:xmpmeta>"
)
IPTC = b"\x1c\x02\x05\x00\x05title"


def saved(form, pixels=RGB, **options):
    buffer = io.BytesIO()
    options = {"JPEG": {"quality": 95}, "AVIF": {"quality": 95}}.get(form, {}) | options
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def exif(**more):
    tags = Image.Exif()
    tags[ExifTags.Base.Artist] = "somebody"
    tags[0x8769] = {0x829A: TiffImagePlugin.IFDRational(1, 50)}
    for name, value in more.items():
        tags[ExifTags.Base[name]] = value
    return tags.tobytes()


def chunk(kind, data):
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def png(text=None, chunks=b"", **options):
    info = PngImagePlugin.PngInfo()
    for key, value in (text or {}).items():
        info.add_itxt(key, value)
    data = saved("PNG", pnginfo=info, **options)
    return data[:33] + chunks + data[33:]


def tiff(**tags):
    ifd = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, (kind, value) in tags.items():
        ifd.tagtype[int(tag[1:])], ifd[int(tag[1:])] = kind, value
    return saved("TIFF", tiffinfo=ifd)


def jpeg_with_iptc():
    data = saved("JPEG")
    body = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0" + len(IPTC).to_bytes(4, "big") + IPTC
    return data[:2] + b"\xff\xed" + (len(body) + 2).to_bytes(2, "big") + body + data[2:]


def animation(form):
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    buffer = io.BytesIO()
    frames[0].save(buffer, form, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def deep_tiff():
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, DEEP, photometric="rgb", metadata=None)
    return buffer.getvalue()


WITH_EXIF = ("PNG", "JPEG", "WEBP", "TIFF", "AVIF")
GREY = RGB[..., 0]
CLEAR = np.dstack([RGB, ALPHA])
# What: (files by format, what is asked of a file that was read)
THINGS = {
    "orientation": (
        {form: saved(form, exif=exif(Orientation=6)) for form in WITH_EXIF},
        lambda file: file.picture.colour.shape[:2] == (16, 12),
    ),
    "colour profile (ICC)": (
        {form: saved(form, icc_profile=ICC) for form in WITH_EXIF},
        lambda file: file.metadata.icc == ICC,
    ),
    "EXIF": (
        {form: saved(form, exif=exif()) for form in WITH_EXIF},
        lambda file: b"somebody" in file.metadata.exif and len(file.metadata.exif) > 60,
    ),
    "XMP": (
        {
            "PNG": png({"XML:com.adobe.xmp": XMP.decode()}),
            "JPEG": saved("JPEG", xmp=XMP),
            "WEBP": saved("WEBP", xmp=XMP),
            "TIFF": tiff(t700=(1, XMP)),
            "AVIF": saved("AVIF", xmp=XMP),
        },
        lambda file: file.metadata.xmp == XMP,
    ),
    "IPTC": (
        {"JPEG": jpeg_with_iptc(), "TIFF": tiff(t33723=(7, IPTC))},
        lambda file: file.metadata.iptc == IPTC,
    ),
    "resolution": (
        {form: saved(form, dpi=(300, 200)) for form in ("PNG", "JPEG", "TIFF", "BMP")},
        lambda file: file.metadata.dpi and np.allclose(file.metadata.dpi, (300, 200), atol=0.02),
    ),
    "text": (
        {"PNG": png({"Title": "a meadow", "Author": "Zoë"})},
        lambda file: dict(file.metadata.text) == {"Title": "a meadow", "Author": "Zoë"},
    ),
    "comment": (
        {
            "PNG": png({"Comment": "in May"}),
            "JPEG": saved("JPEG", comment=b"in May"),
            "GIF": saved("GIF", comment=b"in May"),
        },
        lambda file: file.metadata.comment == "in May",
    ),
    "gamma (gAMA)": (
        {"PNG": png(chunks=chunk(b"gAMA", (50_000).to_bytes(4, "big")))},
        lambda file: file.metadata.gamma == 0.5,
    ),
    "alpha": (
        {form: saved(form, CLEAR) for form in ("PNG", "WEBP", "TIFF", "AVIF", "JPEG2000", "TGA")},
        lambda file: (
            file.picture.alpha is not None
            and np.array_equal(file.picture.alpha[..., 0] > 0, ALPHA > 0)
        ),
    ),
    "more than 8 bits": (
        {
            "PNG": bytes(imagecodecs.png_encode(DEEP)),
            "PPM": b"P6\n16 12\n65535\n" + DEEP.astype(">u2").tobytes(),
            "JPEG2000": bytes(imagecodecs.jpeg2k_encode(DEEP, level=0, codecformat="JP2")),
            "AVIF": bytes(imagecodecs.avif_encode(DEEP >> 6, bitspersample=10, level=100)),
            "TIFF": deep_tiff(),
        },
        lambda file: (
            file.picture.levels == 65535
            and np.abs((file.picture.colour + 1) / 2 * 65535 - DEEP).max() < 700
        ),
    ),
    "grey": (
        {form: saved(form, GREY) for form in ("PNG", "JPEG", "TIFF", "GIF", "BMP", "PPM", "TGA")},
        lambda file: file.picture.colour.shape[-1] == 1,
    ),
    "frames after the first": (
        {form: animation(form) for form in ("GIF", "TIFF", "WEBP", "AVIF", "PNG")},
        lambda file: False,
    ),
}

# Words of which one stands in a note that a thing was lost or changed
WORDS = {
    "colour profile (ICC)": "profile",
    "resolution": "resolution",
    "gamma (gAMA)": "gamma",
    "more than 8 bits": "8 bits",
    "frames after the first": "first frame only",
    "grey": None,  # grey stored as RGB looks the same
}


def outcome(thing, source, target):
    """✓ kept, "lost" or "RGB"; raises AssertionError if it is lost without a word."""
    data, there = THINGS[thing][0][source], THINGS[thing][1]
    file = files.parse(data, f"a.{source}")
    assert thing == "frames after the first" or there(file), f"{thing} of {source} is not read"
    made, notes = encode(file.picture, FORMATS[target], file.metadata)
    if there(files.parse(made, f"b.{target}")):
        return "✓"
    if thing == "grey":
        shown = files.parse(made, "b").picture.colour
        assert np.ptp(shown, axis=-1).max() <= 0.05, "grey has become coloured"
        return "as RGB"
    word = WORDS.get(thing, thing)
    assert any(word in note for note in (*file.notes, *notes)), f"{thing}: {source} to {target}"
    return "said"


def table():
    head = ["", "read from", *FORMATS]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for thing, (given, _) in THINGS.items():
        cells = []
        for target in FORMATS:
            found = {outcome(thing, source, target) for source in given}
            assert len(found) == 1, f"{thing} in {target} depends on where it comes from: {found}"
            cells.append(found.pop())
        lines.append(f"| {thing} | {', '.join(given)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def test_what_is_in_a_file_is_kept_or_its_loss_is_said_and_the_docs_show_which():
    page = PAGE.read_text()
    assert page[page.index(BEGIN) + len(BEGIN) : page.index(END)].strip() == table()


def test_iptc_that_a_tiff_holds_as_whole_numbers_is_read():
    longs = np.frombuffer(IPTC.ljust(12, b"\0"), "<u4").tolist()
    buffer = io.BytesIO()
    tags = [(33723, "I", len(longs), longs, True)]
    tifffile.imwrite(buffer, RGB, photometric="rgb", metadata=None, extratags=tags)
    assert files.parse(buffer.getvalue(), "a").metadata.iptc == IPTC


def test_nothing_says_that_an_upright_result_lies_on_its_side():
    lying = XMP.replace(b'dc:source="here"', b'xmlns:tiff="t" tiff:Orientation="6"')
    sources = list(THINGS["orientation"][0].values())
    sources += [saved("JPEG", xmp=lying), png({"XML:com.adobe.xmp": lying.decode()})]
    only = Image.Exif()
    only[ExifTags.Base.Orientation] = 6
    sources += [saved(form, exif=only) for form in WITH_EXIF]
    for data in sources:
        file = files.parse(data, "a")
        assert file.picture.colour.shape[:2] == (16, 12)
        for form in FORMATS.values():
            made, _ = encode(file.picture, form, file.metadata)
            assert files.parse(made, "b").picture.colour.shape[:2] == (16, 12), form.name
            with Image.open(io.BytesIO(made)) as image:
                assert image.getexif().get(ExifTags.Base.Orientation, 1) == 1


if __name__ == "__main__":
    page = PAGE.read_text()
    before, after = page[: page.index(BEGIN) + len(BEGIN)], page[page.index(END) :]
    PAGE.write_text(f"{before}\n{table()}\n{after}")
