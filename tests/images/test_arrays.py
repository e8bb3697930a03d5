"""Any image file ends as the right uint8 pixels, or as an ImageError that names the file.

What is said about the pixels is right too.
"""

import contextlib
import io
import random
import struct
import warnings
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from skimage import data as photographs

from sr3_jax.errors import UserError
from sr3_jax.images import arrays
from sr3_jax.images.arrays import ImageError

pytestmark = pytest.mark.fast

RGB = photographs.astronaut()[40:104, 160:256]  # a face, 64×96
GREY = np.ascontiguousarray(RGB[..., 1])
# An alpha channel
RAMP = np.linspace(0, 255, RGB[..., 0].size).round().astype(np.uint8).reshape(RGB.shape[:2])
WIDE = (np.arange(64 * 96, dtype=np.uint16) * 10 + 7).reshape(64, 96)  # 16 bits; maximum 61,437
PALETTE = np.array([[255, 0, 0], [0, 128, 0], [10, 20, 30]], np.uint8)
INDICES = np.arange(64 * 96, dtype=np.uint8).reshape(64, 96) % 3


def luma(rgb):
    return rgb @ np.array([[0.299], [0.587], [0.114]])


def on_white(colours, alpha):
    return colours * (alpha / 255) + 255 * (1 - alpha / 255)


def in_palette():
    image = Image.fromarray(INDICES)
    image.putpalette(PALETTE.ravel().tolist())
    return image


def cmyk():
    ramp = np.linspace(0, 255, 96).round().astype(np.uint8)
    return np.stack(np.broadcast_arrays(ramp, ramp[::-1], np.uint8(60), ramp // 4), -1)[
        None
    ].repeat(64, 0)


ALPHA = "alpha flattened onto white"
LEVELS = "16-bit or float levels rounded to 8 bits"
PALETTED = "palette converted to RGB"
TO_RGB = "grey repeated in three channels"
TO_GREY = "colour converted to grey"


class Case(NamedTuple):
    image: Image.Image
    pixels: np.ndarray  # what it should become, (64, 96) or (64, 96, 3), not rounded
    notes: tuple[str, ...] = ()  # beside the one about grey and colour
    options: dict = {"format": "PNG"}  # noqa: RUF012


TIFF = {"format": "TIFF"}
CMYK = Image.merge("CMYK", [Image.fromarray(plane) for plane in cmyk().transpose(2, 0, 1)])
PER_COLOUR = np.array([0, 128, 255])
MODES = {
    "grey": Case(Image.fromarray(GREY), GREY),
    "RGB": Case(Image.fromarray(RGB), RGB),
    "RGBA": Case(Image.fromarray(np.dstack([RGB, RAMP])), on_white(RGB, RAMP[..., None]), (ALPHA,)),
    "LA": Case(Image.fromarray(np.dstack([GREY, RAMP])), on_white(GREY, RAMP), (ALPHA,)),
    "palette": Case(in_palette(), PALETTE[INDICES], (PALETTED,)),
    "palette with a transparent colour": Case(
        in_palette(),
        np.where(INDICES[..., None] == 0, 255, PALETTE[INDICES]),
        (PALETTED, ALPHA),
        {"format": "PNG", "transparency": 0},
    ),
    "palette with an alpha per colour": Case(
        in_palette(),
        on_white(PALETTE[INDICES], PER_COLOUR[INDICES][..., None]),
        (PALETTED, ALPHA),
        {"format": "PNG", "transparency": bytes(PER_COLOUR.tolist())},
    ),
    "CMYK JPEG": Case(
        CMYK,
        255 * (1 - cmyk()[..., :3] / 255) * (1 - cmyk()[..., 3:] / 255),
        ("CMYK converted to RGB without a colour profile",),
        {"format": "JPEG", "quality": 100, "subsampling": 0},
    ),
    "16-bit grey PNG": Case(Image.fromarray(WIDE), WIDE / 257, (LEVELS,)),
    "16-bit grey PNG, nearly black": Case(
        Image.fromarray(WIDE // 300), WIDE // 300 / 257, (LEVELS,)
    ),
    "16-bit TIFF": Case(Image.fromarray(WIDE), WIDE / 257, (LEVELS,), TIFF),
    "16-bit TIFF, big-endian": Case(
        Image.fromarray(WIDE.astype(">u2")), WIDE / 257, (LEVELS,), TIFF
    ),
    "16-bit PGM, nearly black": Case(
        Image.fromarray((WIDE // 300).astype(np.int32)),
        WIDE // 300 / 257,
        (LEVELS,),
        {"format": "PPM"},
    ),
    "float TIFF up to 1": Case(Image.fromarray(GREY / np.float32(255)), GREY, (LEVELS,), TIFF),
    "float TIFF up to 255": Case(
        Image.fromarray(GREY.astype(np.float32)),
        GREY,
        ("levels taken to run from 0 to 255", LEVELS),
        TIFF,
    ),
    "1 bit": Case(Image.fromarray(INDICES > 0), 255.0 * (INDICES > 0)),
}


def encoded(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_gives_the_right_pixels_and_notes(mode):
    image, expected, notes, options = MODES[mode]
    is_grey = expected.ndim == 2
    colour = np.broadcast_to(expected[..., None] if is_grey else expected, RGB.shape)
    data = encoded(image, **options)
    for channels, wanted, last in (
        (3, colour, TO_RGB if is_grey else None),
        (1, luma(colour), None if is_grey else TO_GREY),
    ):
        decoded = arrays.decode(data, channels, "it")
        assert decoded.pixels.dtype == np.uint8
        np.testing.assert_allclose(
            decoded.pixels,
            wanted,
            atol=6 if mode == "CMYK JPEG" else 0.51 if LEVELS in notes else 1,
        )
        assert decoded.notes == (notes if last is None else (*notes, last))
    own = arrays.decode(data, None, "it")
    np.testing.assert_array_equal(own.pixels, arrays.decode(data, 1 if is_grey else 3, "it").pixels)
    assert own.notes == notes


@pytest.mark.parametrize("mode", ["grey", "RGB", "palette", "1 bit"])
def test_what_needs_no_arithmetic_is_exact(mode):
    case = MODES[mode]
    pixels = arrays.decode(encoded(case.image, **case.options), None, "it").pixels
    np.testing.assert_array_equal(pixels, case.pixels.reshape(pixels.shape))


def test_luma_is_that_of_itu_601():
    pixels = arrays.decode(encoded(Image.fromarray(RGB), format="PNG"), 1, "it").pixels
    np.testing.assert_allclose(pixels, luma(RGB), atol=0.51)


# What the camera stored, by orientation, when RGB is what stood before it (EXIF 2.3, tag 0x0112)
TURNED = {
    1: RGB,
    2: RGB[:, ::-1],
    3: RGB[::-1, ::-1],
    4: RGB[::-1],
    5: RGB.swapaxes(0, 1),
    6: RGB.swapaxes(0, 1)[::-1],
    7: RGB[::-1, ::-1].swapaxes(0, 1),
    8: RGB.swapaxes(0, 1)[:, ::-1],
}


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".webp", ".jpg"])
@pytest.mark.parametrize("orientation", TURNED)
def test_an_image_is_turned_upright_and_its_size_read_so(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"photo{suffix}"
    options = {".webp": {"lossless": True}, ".jpg": {"quality": 100, "subsampling": 0}}.get(
        suffix, {}
    )
    Image.fromarray(np.ascontiguousarray(TURNED[orientation])).save(path, exif=exif, **options)
    pixels, notes = arrays.read(path, 3)
    np.testing.assert_allclose(pixels, RGB.astype(float), atol=12 if suffix == ".jpg" else 0)
    assert notes == (("turned upright as its orientation says",) if orientation > 1 else ())
    assert arrays.read_size(path) == (96, 64)


def test_an_animation_is_its_first_frame(tmp_path):
    frames = [in_palette(), in_palette().transpose(Image.Transpose.ROTATE_180)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    pixels, notes = arrays.read(tmp_path / "moving.gif", 3)
    np.testing.assert_array_equal(pixels, PALETTE[INDICES])
    assert notes == ("first frame only", "palette converted to RGB")


def test_reading_the_size_of_a_png_does_not_decode_it(tmp_path):
    data = encoded(Image.fromarray(RGB), format="PNG")
    (tmp_path / "half.png").write_bytes(data[: len(data) // 2])
    assert arrays.read_size(tmp_path / "half.png") == (96, 64)


DAMAGED = {
    "truncated.jpg": encoded(Image.fromarray(RGB), format="JPEG")[:-700],
    "truncated.png": encoded(Image.fromarray(RGB), format="PNG")[:-3000],
    "text.jpg": b"This is not an image.\n",
    "zero-bytes.png": b"",
    "missing.png": None,
    "truncated.tiff": encoded(Image.fromarray(RGB), format="TIFF")[:40],
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_named_in_one_line(tmp_path, name):
    path = tmp_path / name
    if DAMAGED[name] is not None:
        path.write_bytes(DAMAGED[name])
    with pytest.raises(ImageError) as caught:
        arrays.read(path, 3)
    assert str(caught.value).startswith(f"{path} ")
    assert "\n" not in str(caught.value)


def test_the_error_says_what_is_wrong(tmp_path):
    for name, words in (
        ("text.jpg", "not an image"),
        ("zero-bytes.png", "empty"),
        ("missing.png", "does not exist"),
    ):
        if DAMAGED[name] is not None:
            (tmp_path / name).write_bytes(DAMAGED[name])
        with pytest.raises(ImageError, match=words):
            arrays.read_size(tmp_path / name)
    with pytest.raises(ImageError):
        arrays.read(tmp_path, 3)  # a folder


@pytest.mark.parametrize(
    "error",
    [IndexError, KeyError, TypeError, SyntaxError, EOFError, struct.error, zlib.error, MemoryError],
)
def test_whatever_pillow_raises_is_an_image_error(tmp_path, monkeypatch, error):
    def load(self):
        raise error("first line\nsecond line")

    path = tmp_path / "image.png"
    Image.fromarray(RGB).save(path)
    monkeypatch.setattr(PngImageFile, "load", load)
    with pytest.raises(ImageError) as caught:
        arrays.read(path, 3)
    assert str(caught.value).startswith(f"{path} cannot be decoded: ")
    assert "\n" not in str(caught.value)


def png_header(width, height):
    """A PNG that announces a size, with next to no data."""
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([1, 0, 0, 0, 0])
    chunks = [b"IHDR" + header, b"IDAT" + zlib.compress(b""), b"IEND"]
    parts = [
        (len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
        for chunk in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_a_decompression_bomb_is_an_error_and_a_large_image_is_not(tmp_path):
    (tmp_path / "bomb.png").write_bytes(png_header(20_000, 20_000))
    for read in (arrays.read_size, lambda path: arrays.read(path, 1)):
        with pytest.raises(ImageError, match="bomb"):
            read(tmp_path / "bomb.png")
    # Pillow warns from 89 million pixels on
    (tmp_path / "large.png").write_bytes(png_header(10_000, 10_000))
    with pytest.warns(Image.DecompressionBombWarning):
        assert arrays.read_size(tmp_path / "large.png") == (10_000, 10_000)


SMALL = Image.fromarray(RGB[:24, :32])
EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # orientation 6
ORIGINALS = [
    *(
        encoded(SMALL, format=format)
        for format in ("PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP", "PPM", "JPEG2000")
    ),
    *(encoded(SMALL, format=format, exif=EXIF) for format in ("PNG", "JPEG", "TIFF", "WEBP")),
    encoded(SMALL, format="JPEG", progressive=True),
    encoded(SMALL, format="TIFF", compression="tiff_lzw"),
    encoded(SMALL, format="TGA", compression="tga_rle"),
    encoded(in_palette().resize((32, 24)), format="PNG", transparency=1),
    encoded(
        in_palette().resize((32, 24)),
        format="GIF",
        save_all=True,
        append_images=[SMALL.convert("P")],
    ),
]


def mutated(data, rng):
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        # Headers are where it hurts
        at = rng.randrange(min(len(data), rng.choice([64, len(data)])))
        kind = rng.choice(["flip", "set", "insert", "delete", "cut"])
        if kind == "flip":
            data[at] ^= 1 << rng.randrange(8)
        elif kind == "set":
            data[at] = rng.choice([0, 1, 127, 128, 255])
        elif kind == "insert":
            data[at:at] = rng.randbytes(rng.randrange(1, 5))
        elif kind == "delete":
            del data[at + 1 : at + rng.randrange(2, 9)]
        else:
            del data[max(at, 8) :]
    return bytes(data)


def test_a_mutated_file_ends_in_pixels_or_in_an_image_error(tmp_path):
    rng = random.Random(7)  # two of these files make Pillow raise an IndexError
    path = tmp_path / "mutated.png"
    shapes, messages = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own, about odd metadata
        for round in range(240):
            path.write_bytes(mutated(ORIGINALS[round % len(ORIGINALS)], rng))
            with contextlib.suppress(ImageError):
                arrays.read_size(path)
            try:
                shapes.append(arrays.read(path, (1, 3, None)[round % 3]).pixels.shape)
            except ImageError as error:
                messages.append(str(error))
    assert all(len(shape) == 3 and shape[2] in (1, 3) for shape in shapes)
    assert all(message.startswith(f"{path} ") and "\n" not in message for message in messages)
    assert min(len(shapes), len(messages)) > 40  # the mutations are neither harmless nor all fatal


@pytest.mark.parametrize(
    "suffix", [".png", ".PNG", ".tiff", ".bmp", ".gif", ".ppm", ".webp", ".jpg"]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_what_was_written_is_read_back(tmp_path, suffix, channels):
    pixels = RGB[..., :channels]
    arrays.write(tmp_path / "new" / f"image{suffix}", pixels)
    back = arrays.read(tmp_path / "new" / f"image{suffix}", channels).pixels.astype(int)
    lossless = suffix.lower() in (".png", ".tiff", ".bmp", ".ppm") or (
        suffix == ".gif" and channels == 1
    )
    assert np.abs(back - pixels).mean() <= (0 if lossless else 12 if suffix == ".gif" else 4)
    assert [path.name for path in (tmp_path / "new").iterdir()] == [f"image{suffix}"]


def test_a_file_appears_by_rename_with_the_usual_permissions(tmp_path, monkeypatch):
    path = tmp_path / "image.png"
    path.write_bytes(b"the old one")
    seen = []
    original = Path.replace

    def replace(self, target):
        seen.append((arrays.read(self, 3), path.read_bytes()))
        return original(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    arrays.write(path, RGB)
    # At the moment of the rename the new file is whole and the old one untouched
    ((decoded, old),) = seen
    np.testing.assert_array_equal(decoded.pixels, RGB)
    assert old == b"the old one"
    (tmp_path / "ordinary").touch()
    assert path.stat().st_mode == (tmp_path / "ordinary").stat().st_mode


@pytest.mark.parametrize("failure", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, failure):
    whole = Path.write_bytes

    def write_bytes(self, data):
        whole(self, data[: len(data) // 2])
        raise failure

    path = tmp_path / "image.png"
    path.write_bytes(b"the old one")
    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(UserError if isinstance(failure, OSError) else KeyboardInterrupt):
        arrays.write(path, RGB)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"the old one"


@pytest.mark.parametrize("name", ["image", "image.xyz", "image.psd"])
def test_a_suffix_that_cannot_be_written_is_refused(tmp_path, name):
    with pytest.raises(UserError, match=r"\.png"):
        arrays.write(tmp_path / name, RGB)
    assert not list(tmp_path.iterdir())


def test_an_image_too_large_for_its_format_or_a_file_in_the_way_is_the_users_error(tmp_path):
    with pytest.raises(UserError, match=r"wide\.webp: 16384×1 pixels are too many for WEBP"):
        arrays.write(tmp_path / "wide.webp", np.zeros((1, 16_384, 3), np.uint8))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be written"):
        arrays.write(tmp_path / "file" / "image.png", RGB)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_names_of_images_are_known_by_suffix_and_hidden_files_are_not():
    assert arrays.is_image_name(Path("a/b.JPG"))
    assert not arrays.is_image_name(Path("a/._b.jpg"))
    assert not arrays.is_image_name(Path("a/b.txt"))


def test_one_channel_is_a_grey_pillow_image_and_three_are_rgb():
    grey = np.random.default_rng(0).integers(0, 256, (5, 7, 1), np.uint8)
    for pixels, mode in ((grey, "L"), (np.repeat(grey, 3, -1), "RGB")):
        image = arrays.to_pillow(pixels)
        assert (image.mode, image.size) == (mode, (7, 5))
        np.testing.assert_array_equal(np.asarray(image).reshape(pixels.shape), pixels)
