"""Whatever a file holds, the decoder gives the right values, or one sentence that is true."""

import io
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, TiffImagePlugin

from sr3_jax.images import decoding, files
from sr3_jax.images.decoding import ImageError

pytestmark = pytest.mark.fast
RNG = np.random.default_rng(5)
Y, X = np.mgrid[0:40, 0:48]
RGB = np.stack([40 + 4 * X, 200 - 4 * Y, 90 + X + Y], -1).astype(np.uint8)
UNIT = (RGB / np.float32(255)).astype(np.float32)


def saved(image, form, **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def tiff(values, **options):
    buffer = io.BytesIO()
    options.setdefault("photometric", "rgb" if values.shape[-1] in (3, 4) else "minisblack")
    tifffile.imwrite(buffer, values, metadata=None, **options)
    return buffer.getvalue()


def chunk(kind, data):
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


# -- TIFF

FLOATS = {
    "colour up to 1": (UNIT, UNIT, ()),
    "grey up to 1": (UNIT[..., 0], UNIT[..., :1], ()),
    "colour that overshoots 1": (
        np.where(X[..., None] == 0, np.float32(3), UNIT),
        np.where(X[..., None] == 0, np.float32(1), UNIT),
        ("levels outside of 0 to 1 were clipped",),
    ),
    "levels up to 255": (UNIT * 255, UNIT, ("levels taken to run from 0 to 255",)),
    "integers of 32 bits up to 255": (
        RGB[..., 0].astype(np.int32),
        UNIT[..., :1],
        ("levels taken to run from 0 to 255",),
    ),
    "one that is no number": (
        np.where((X == 3) & (Y == 3), np.nan, UNIT[..., 0]).astype(np.float32),
        np.where((X == 3) & (Y == 3), 0, UNIT[..., 0])[..., None],
        ("values that are no numbers became black",),
    ),
}


@pytest.mark.parametrize(("values", "expected", "notes"), FLOATS.values(), ids=FLOATS)
def test_floats_and_wide_integers_are_read_by_the_range_that_they_use(values, expected, notes):
    raster = decoding.decode(tiff(values), "a.tif")
    np.testing.assert_allclose(raster.values, expected, atol=1e-6)
    assert raster.notes == notes


@pytest.mark.parametrize("compression", [None, "lzw", "deflate"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_sixteen_bits_of_any_layout_are_read_to_the_bit(compression, planar):
    deep = RNG.integers(0, 65536, (40, 48, 3), np.uint16)
    given = deep if planar == "contig" else np.moveaxis(deep, -1, 0)
    data = tiff(given, compression=compression, planarconfig=planar, photometric="rgb")
    np.testing.assert_array_equal(decoding.decode(data, "a.tif").values, deep)


def test_a_deep_tiff_that_lies_on_its_side_is_turned_once():
    deep = RNG.integers(0, 65536, (40, 48, 3), np.uint16)
    data = tiff(deep, extratags=[(274, "H", 1, 6, True)])
    assert decoding.size(io.BytesIO(data), "a") == (48, 40)
    np.testing.assert_array_equal(decoding.decode(data, "a").values, np.rot90(deep, -1))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_alpha_that_is_multiplied_into_the_colours_is_divided_out(dtype):
    full = np.iinfo(dtype).max
    alpha = np.full((40, 48, 1), 0.5)
    given = np.concatenate([UNIT * alpha, alpha], -1) * full
    data = tiff(np.rint(given).astype(dtype), extrasamples=["assocalpha"])
    found = decoding.decode(data, "a.tif").values / full
    np.testing.assert_allclose(found[..., :3], UNIT, atol=0.006)


def test_of_many_pages_none_is_visited_but_the_second():
    data = bytearray(saved(Image.fromarray(RGB), "TIFF"))
    first = int.from_bytes(data[4:8], "little")
    entries = int.from_bytes(data[first : first + 2], "little")
    place = first + 2 + 12 * entries
    second = len(data) + len(data) % 2
    data[place : place + 4] = second.to_bytes(4, "little")
    data += bytes(second - len(data)) + data[first : first + 2 + 12 * entries]
    # the third page lies outside of the file: whoever counts the pages meets it
    data += (2**31).to_bytes(4, "little")
    raster = decoding.decode(bytes(data), "a.tif")
    np.testing.assert_array_equal(raster.values, RGB)
    assert raster.notes == ("first frame only",)


# -- PNG


def test_the_clear_colour_of_a_png_of_sixteen_bits_is_alpha():
    deep = RNG.integers(0, 65536, (40, 48, 3), np.uint16)
    for values, key in ((deep, deep[3, 4]), (deep[..., 0], deep[3, 4, :1])):
        data = bytes(imagecodecs.png_encode(np.ascontiguousarray(values)))
        data = data[:33] + chunk(b"tRNS", key.astype(">u2").tobytes()) + data[33:]
        found = decoding.decode(data, "a.png").values
        assert found.shape[-1] == (4 if values.ndim == 3 else 2)
        assert found[3, 4, -1] == 0
        assert (found[..., -1] > 0).mean() > 0.99
    grey = RGB[..., 0]
    data = saved(Image.fromarray(grey), "PNG", transparency=int(grey[0, 0]))
    assert decoding.decode(data, "a.png").values[0, 0].tolist() == [grey[0, 0], 0]


def test_the_size_of_a_png_whose_exif_comes_last_is_known_without_its_pixels():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(Image.fromarray(RGB), "PNG")
    at, end = data.index(b"IDAT") - 4, data.index(b"IEND") - 4
    length = end - at - 12
    broken = chunk(b"IDAT", bytes(length))  # no pixels could be decoded from it
    late = data[:at] + broken + chunk(b"eXIf", exif.tobytes()[6:]) + data[end:]
    assert decoding.size(io.BytesIO(late), "a.png") == (48, 40)
    with pytest.raises(ImageError, match=r"a\.png cannot be decoded"):
        decoding.decode(late, "a.png")


# -- JPEG


@pytest.mark.parametrize("quality", [60, 95])
def test_a_jpeg_without_its_last_bytes_is_read_and_one_without_its_last_part_is_not(quality):
    big = np.kron(RGB, np.ones((8, 8, 1), np.uint8)) ^ RNG.integers(0, 8, (320, 384, 3), np.uint8)
    data = saved(Image.fromarray(big), "JPEG", quality=quality)
    whole = decoding.decode(data, "a.jpg").values
    for cut in (1, 2, 12):
        raster = decoding.decode(data[:-cut], "a.jpg")
        assert (raster.values != whole).any(-1).mean() < 0.01
        assert any("cut off" in note for note in raster.notes)
    small = saved(Image.fromarray(big[:34, :50]), "JPEG", quality=quality)  # no whole blocks
    for file in (data, small):
        kept = (file.index(b"\xff\xda") + len(file)) // 2  # half of the pixels
        with pytest.raises(ImageError, match=r"a\.jpg cannot be decoded: .*% of the image is miss"):
            decoding.decode(file[:kept], "a.jpg")


def test_what_is_malformed_costs_itself_alone():
    bad = b"Exif\0\0II*\0\x08\0\0\0\x02\0" + b"\x0f\x01\x02\0\xff\xff\xff\x7f\xff\xff\xff\x7f" * 2
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[282] = tags[283] = TiffImagePlugin.IFDRational(0, 0)
    tags[296] = 2
    for data, word in (
        (saved(Image.fromarray(RGB), "JPEG", exif=bad, quality=95), "EXIF is malformed"),
        (saved(Image.fromarray(RGB), "TIFF", tiffinfo=tags), "resolution is malformed"),
        (saved(Image.fromarray(RGB), "PNG", icc_profile=b"no profile at all"), "profile"),
    ):
        file = files.parse(data, "a")
        assert file.picture.colour.shape == (40, 48, 3)
        assert not word or any(word in note for note in file.notes)


# -- colour


def test_lab_becomes_srgb():
    image = Image.fromarray(RGB)
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    lab = ImageCms.profileToProfile(image, *profiles, outputMode="LAB")
    raster = decoding.decode(saved(lab, "TIFF"), "a.tif")
    assert np.abs(raster.values.astype(int) - RGB).mean() < 3
    assert raster.notes == ("LAB converted to sRGB",)
    assert not raster.metadata.icc


def test_a_profile_of_other_channels_is_left_out_with_a_word():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    raster = decoding.decode(saved(Image.fromarray(RGB[..., 0]), "PNG", icc_profile=profile), "a")
    assert not raster.metadata.icc
    assert raster.notes == (decoding.PROFILE_LEFT,)


# -- what is no image of ours


def test_nothing_is_decoded_but_the_formats_of_the_list(monkeypatch):
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    for data in (eps, saved(Image.fromarray(RGB), "ICO"), saved(Image.fromarray(RGB), "PCX")):
        with pytest.raises(ImageError, match=r"photo\.png is not an image, whatever its name says"):
            decoding.decode(data, "photo.png")


def test_an_exif_entry_that_is_malformed_is_said_and_costs_nothing_before_it():
    exif = Image.Exif()
    exif[271], exif[306] = "a maker of cameras", "2026:01:01 00:00:00"
    exif[34665] = {33434: 0.01, 37386: 50.0}
    data = bytearray(exif.tobytes())
    whole = saved_with(bytes(data))
    assert not whole.notes
    place = data.index((306).to_bytes(2, "big"))  # the tag, its type, its count, where it is
    data[place + 8 : place + 12] = (60_000).to_bytes(4, "big")
    found = saved_with(bytes(data))
    assert found.notes == ("some of its EXIF is malformed and was left out",)
    kept = Image.Exif()
    kept.load(found.metadata.exif)
    assert kept[271] == "a maker of cameras"
    assert 306 not in kept


def saved_with(exif):
    """What is read of a JPEG with this EXIF."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG", exif=exif)
    return files.parse(buffer.getvalue(), "photo")
