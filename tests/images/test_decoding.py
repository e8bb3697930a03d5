"""Whatever a file holds, the decoder gives the right values, or one sentence that is true."""

import io
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, TiffImagePlugin

from sr3_jax.images import decoding, files, png
from sr3_jax.images.decoding import ImageError
from sr3_jax.images.metadata import Metadata, upright_xmp
from sr3_jax.images.pixels import from_array, is_grey, to_pillow

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
    "one light that is far above 1": (
        np.where((X == 3) & (Y == 3), np.float32(200), UNIT[..., 0]),
        np.where((X == 3) & (Y == 3), 200 / 255, UNIT[..., 0] / 255)[..., None],
        ("levels taken to run from 0 to 255",),
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
    unknown = "not an image, whatever its name says"
    for data, kind in (
        (eps, "PostScript, which is not read"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC, which is not read"),
        (saved(Image.fromarray(RGB), "ICO"), unknown),
        (saved(Image.fromarray(RGB), "PCX"), unknown),
    ):
        with pytest.raises(ImageError, match=rf"photo\.png is {kind}"):
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


def test_a_jpeg_that_lacks_only_its_end_is_whole_though_it_ends_in_grey():
    grey = np.full((64, 64), 128, np.uint8)
    for pixels in (grey, np.concatenate([RGB[:32, :32, 0], grey[:32, :32]])):
        data = saved(Image.fromarray(pixels), "JPEG", quality=90)
        raster = decoding.decode(data[:-2], "a.jpg")
        np.testing.assert_array_equal(raster.values, decoding.decode(data, "a.jpg").values)
        assert raster.notes == ("the file is cut off after its last pixel",)


def test_a_progressive_jpeg_of_which_scans_are_missing_is_no_picture():
    big = np.kron(RGB, np.ones((4, 4, 1), np.uint8)) ^ RNG.integers(0, 64, (160, 192, 3), np.uint8)
    data = saved(Image.fromarray(big), "JPEG", quality=90, progressive=True)
    whole = decoding.decode(data, "a.jpg").values
    np.testing.assert_array_equal(decoding.decode(data[:-2], "a.jpg").values, whole)
    for share in (0.15, 0.4, 0.6, 0.8):
        with pytest.raises(ImageError, match=r"coarse version|of the image is missing"):
            decoding.decode(data[: int(share * len(data))], "a.jpg")


def test_what_follows_the_end_of_a_png_is_no_part_of_it():
    data = saved(Image.fromarray(RGB), "PNG")
    late = data + png.chunk(b"tEXt", b"Author\0somebody else")
    for more in (data + bytes(12), data + b"PK\3\4" + bytes(999), late):
        file = files.parse(more, "a.png")
        np.testing.assert_array_equal(file.picture.quantized(), RGB)
        assert not file.metadata.text


def test_a_damaged_or_huge_text_of_a_png_costs_itself_alone():
    data = saved(Image.fromarray(RGB), "PNG")
    wrong = bytearray(png.chunk(b"tEXt", b"Author\0who"))
    wrong[-1] ^= 1
    huge = png.chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * 2**21))
    cut = png.chunk(b"iTXt", b"Title\0\1\0\0\0" + zlib.compress(b"words" * 99)[:-9])
    for chunk, words in ((bytes(wrong), "damaged"), (huge, "too large"), (cut, "damaged")):
        file = files.parse(png.with_chunks(data, chunk), "a.png")
        np.testing.assert_array_equal(file.picture.quantized(), RGB)
        assert [note for note in file.notes if f"text is {words}" in note] or words == "damaged"
        assert not file.metadata.text


def test_a_packed_text_in_some_language_is_whole_or_damaged_whatever_its_keyword():
    data = saved(Image.fromarray(RGB), "PNG")
    packed = zlib.compress("Größe".encode())
    for head in (b"Title\0\1\0de\0Titel\0", b"Title\0\1\0\0\0"):
        whole = png.with_chunks(data, png.chunk(b"iTXt", head + packed))
        assert files.parse(whole, "a.png").metadata.text == {"Title": "Größe"}
        cut = png.with_chunks(data, png.chunk(b"iTXt", head + packed[:-6]))
        file = files.parse(cut, "a.png")
        assert not file.metadata.text
        assert "its text is damaged and was left out" in file.notes


@pytest.mark.parametrize("bits", [2, 4])
def test_the_clear_level_of_a_png_of_few_levels_is_clear(bits):
    """Pillow brings the levels to 8 bits, but not the one that is clear."""
    rows = b"".join(b"\0" + bytes(range(4)) for _ in range(2))
    width = 4 * 8 // bits
    head = struct.pack(">IIBBBBB", width, 2, bits, 0, 0, 0, 0)
    clear = png.chunk(b"tRNS", (1).to_bytes(2, "big"))
    data = b"".join(
        (
            png.SIGNATURE,
            png.chunk(b"IHDR", head),
            clear,
            png.chunk(b"IDAT", zlib.compress(rows)),
            png.chunk(b"IEND", b""),
        )
    )
    values = decoding.decode(data, "a.png").values
    per_byte = 8 // bits
    levels = [
        (i >> (8 - bits * (k + 1))) & (2**bits - 1) for i in range(4) for k in range(per_byte)
    ]
    assert values.shape == (2, width, 2)
    np.testing.assert_array_equal(values[0, :, 1], [0 if one == 1 else 255 for one in levels])


@pytest.mark.parametrize("shape", [(1, 9, 3), (9, 1, 3), (1, 1, 3), (1, 9, 1), (1, 1, 1)])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_a_deep_tiff_of_one_row_or_column_keeps_its_shape(shape, planar):
    values = RNG.integers(0, 65536, shape, np.uint16)
    given = values if shape[-1] == 3 else values[..., 0]
    if planar == "separate" and shape[-1] == 3:
        given = np.moveaxis(given, -1, 0)
    photometric = "rgb" if shape[-1] == 3 else "minisblack"
    data = tiff_of(given, photometric, planarconfig=planar if shape[-1] == 3 else None)
    np.testing.assert_array_equal(decoding.decode(data, "a.tif").values, values)


def tiff_of(values, photometric, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, photometric=photometric, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_a_tiff_of_10_to_14_bits_goes_to_white(bits):
    levels = np.array([[0, 2 ** (bits - 1), 2**bits - 1]], np.uint16)
    data = tiff_of(levels, "minisblack", bitspersample=bits)
    values = decoding.decode(data, "a.tif").values
    assert values.dtype == np.uint16
    np.testing.assert_allclose(values[0, :, 0], levels[0] * (65535 / (2**bits - 1)), atol=0.6)


def test_signed_and_complex_levels_are_not_taken_for_others():
    signed = np.array([[-5, 0, 100]], np.int8)
    raster = decoding.decode(tiff_of(signed, "minisblack"), "a.tif")
    assert raster.values[0, 0, 0] == raster.values[0, 1, 0] == 0 < raster.values[0, 2, 0]
    assert any("clipped" in note for note in raster.notes)
    with pytest.raises(ImageError, match="complex numbers"):
        decoding.decode(tiff_of(signed.astype(np.complex64), "minisblack"), "a.tif")


def test_alpha_of_a_float_tiff_has_its_own_white():
    values = np.zeros((4, 4, 4), np.float32)
    values[..., :3], values[..., 3] = 200.0, 1.0
    data = tiff_of(values, "rgb", extrasamples=["unassalpha"])
    found = decoding.decode(data, "a.tif").values
    np.testing.assert_allclose(found[0, 0], [200 / 255] * 3 + [1])


def test_pillow_holds_16_bits_of_grey_alone():
    for shape, mode in (
        ((4, 4, 1), "I;16"),
        ((4, 4, 2), "LA"),
        ((4, 4, 3), "RGB"),
        ((4, 4, 4), "RGBA"),
    ):
        assert to_pillow(from_array(np.full(shape, 30_000, np.uint16))).mode == mode
    assert to_pillow(from_array(np.full((4, 4, 1), 30, np.uint8))).mode == "L"


def test_a_dark_colour_of_16_bits_is_not_grey():
    dark = np.full((4, 4, 3), (240, 0, 20), np.uint16)
    assert not is_grey(from_array(dark))
    assert is_grey(from_array(np.full((4, 4, 3), (240, 240, 240), np.uint16)))
    assert is_grey(from_array(np.full((4, 4, 3), (100, 101, 100), np.uint8)))


def test_exif_keeps_other_letters_and_the_interoperability_of_cameras():
    exif = Image.Exif()
    exif[315] = "© José".encode()
    exif[34665] = {42036: "a lens", 40965: {1: "R03"}}
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "JPEG", exif=exif.tobytes())
    kept = Image.Exif()
    kept.load(files.parse(buffer.getvalue(), "a.jpg").metadata.exif)
    assert kept[315].encode("latin-1") == "© José".encode()
    kept.get_ifd(34665)
    assert kept.get_ifd(40965)[1] == "R03"


def test_sizes_of_the_picture_before_are_no_exif_of_the_one_after():
    exif = Image.Exif()
    exif[34665] = {0xA002: 48, 0xA003: 40, 33434: 0.01}
    file = files.parse(saved(Image.fromarray(RGB), "JPEG", exif=exif.tobytes()), "a.jpg")
    kept = Image.Exif()
    kept.load(file.metadata.exif)
    assert set(kept.get_ifd(34665)) == {33434}


@pytest.mark.parametrize(("colours", "noted"), [(200, False), (256, False), (257, True)])
def test_colours_that_a_gif_has_no_room_for_are_said(colours, noted):
    values = np.zeros((1, colours, 3), np.uint8)
    values[0, :, 0], values[0, :, 1] = np.arange(colours) % 256, np.arange(colours) // 256
    _, notes = files.encode(from_array(values), files.FORMATS["GIF"])
    assert any("256 colours" in note for note in notes) == noted
    assert not files.encode(from_array(values), files.FORMATS["PNG"])[1]


def test_what_no_longer_fits_an_enlarged_picture_is_left_out_and_said():
    for tag, kind, value in ((33550, "d", (10.0, 10.0, 0.0)), (34735, "H", (1, 1, 0, 0))):
        own = [(tag, kind, len(value), value, True)]
        data = tiff_of(RGB, "rgb", extratags=own, description="ImageJ=1.53")
        file = files.parse(data, "a.tif")
        assert "its place on the earth (GeoTIFF) was left out" in file.notes
        kept = Image.Exif()
        if file.metadata.exif:
            kept.load(file.metadata.exif)
        assert tag not in kept
    xmp = b'<x GPano:FullPanoWidthPixels="4000" exif:PixelXDimension="48" dc:title="t"/>'
    assert upright_xmp(xmp) == b'<x dc:title="t"/>'


def test_colour_spaces_that_are_not_read_are_said():
    data = saved(Image.fromarray(RGB), "PNG")
    hdr = png.with_chunks(data, png.chunk(b"cICP", bytes([9, 16, 0, 1])))
    assert any("cICP" in note for note in files.parse(hdr, "a.png").notes)
    plain = saved(Image.fromarray(RGB), "JPEG2000")
    assert not files.parse(plain, "a.jp2").notes
    # The same bytes say nothing elsewhere: here in a comment of a JPEG
    commented = saved(Image.fromarray(RGB), "JPEG", comment=b"colr\x02")
    assert not files.parse(commented, "a.jpg").notes
    short = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()[:-45]
    file = files.parse(saved(Image.fromarray(RGB), "JPEG", icc_profile=short), "a.jpg")
    assert not file.metadata.icc
    assert any("colour profile is malformed" in note for note in file.notes)


@pytest.mark.parametrize("field", ["exif", "xmp", "iptc", "comment"])
def test_what_jpeg_has_no_room_for_is_left_out_and_said_and_the_picture_is_written(field):
    big = "a" * 70_000 if field == "comment" else b"Exif\0\0MM\0*\0\0\0\x08\0\0" + bytes(70_000)
    picture = from_array(RGB)
    data, notes = files.encode(picture, files.FORMATS["JPEG"], Metadata(**{field: big}))
    assert Image.open(io.BytesIO(data)).size == (48, 40)
    assert any("left out: JPEG has room for 64 KiB" in note for note in notes)


def test_true_is_white():
    white = from_array(np.array([[True, False]])).colour
    np.testing.assert_array_equal(white[0, :, 0], [1, -1])
