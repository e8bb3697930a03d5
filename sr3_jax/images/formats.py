"""The image formats that are read and written, and what each can hold."""

from typing import NamedTuple

from sr3_jax.errors import UserError
from sr3_jax.runtime.paths import AnyPath

# What a file can hold beside its pixels; see `metadata.Metadata`
FIELDS = ("icc", "exif", "xmp", "iptc", "dpi", "text", "comment", "gamma")


class Format(NamedTuple):
    """A format, by Pillow's name, and what a file of it can hold when we write it."""

    name: str
    suffixes: tuple[str, ...]  # the first is the usual one
    fields: frozenset[str] = frozenset()  # of FIELDS
    alpha: bool = False
    deep: bool = False  # 16 bits a channel
    grey: bool = True  # pictures of one channel; else grey is stored as RGB
    longest: int = 2**31 - 1  # pixels of a side
    quality: int = 0  # by default, of 100; 0: lossless


# Nothing else is decoded: Pillow would run Ghostscript on an EPS file that is called photo.png
FORMATS = {
    form.name: form
    for form in (
        Format(
            "PNG",
            (".png",),
            frozenset({"icc", "exif", "xmp", "dpi", "text", "comment", "gamma"}),
            alpha=True,
            deep=True,
        ),
        Format(
            "JPEG",
            (".jpg", ".jpeg", ".jpe", ".jfif"),
            frozenset({"icc", "exif", "xmp", "iptc", "dpi", "comment"}),
            longest=65_500,
            quality=95,
        ),
        Format(
            "WEBP",
            (".webp",),
            frozenset({"icc", "exif", "xmp"}),
            alpha=True,
            grey=False,
            longest=16_383,
            quality=95,
        ),
        Format(
            "TIFF",
            (".tiff", ".tif"),
            frozenset({"icc", "exif", "xmp", "iptc", "dpi"}),
            alpha=True,
            deep=True,
        ),
        Format(
            "AVIF",
            (".avif",),
            frozenset({"icc", "exif", "xmp"}),
            alpha=True,
            longest=65_536,
            quality=95,
        ),
        Format("GIF", (".gif",), frozenset({"comment"}), longest=65_535),
        Format("BMP", (".bmp",), frozenset({"dpi"})),
        Format("PPM", (".ppm", ".pgm", ".pnm", ".pbm")),
        Format("JPEG2000", (".jp2",), alpha=True),
        Format("TGA", (".tga",), alpha=True, longest=65_535),
    )
}
SUFFIXES = frozenset(suffix for form in FORMATS.values() for suffix in form.suffixes)
# Images by their names, which are named when a folder's are left out
UNREAD = frozenset(
    ".heic .heif .hif .mpo .apng .j2k .jpx .dib .jxl .psd .svg .eps .ai .pdf .dng .cr2 .cr3 .nef "
    ".arw .raf .orf .rw2 .exr .hdr .ico .icns .dds .qoi .fits .pcx .xcf".split()
)


def format_of(path: AnyPath) -> Format | None:
    """The format that a path's suffix stands for; None if it is not one that can be written."""
    suffix = path.suffix.lower()
    return next((form for form in FORMATS.values() if suffix in form.suffixes), None)


def check_size(form: Format, height: int, width: int, name: str) -> None:
    """Raises UserError, naming `name`, for an image that is too large for the format."""
    if max(height, width) > form.longest:
        raise UserError(
            f"{name}: {width}×{height} pixels are too many for {form.name}, "
            f"whose sides have at most {form.longest:,}; use .png or .tiff"
        )
    if form.name == "BMP" and height * (3 * width + 3) + 100 >= 2**32:
        raise UserError(f"{name}: {width}×{height} pixels are too many for BMP; use .png or .tiff")


def is_image_name(path: AnyPath) -> bool:
    """Whether the name looks like an image's: hidden files and other suffixes do not."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
