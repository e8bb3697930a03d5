"""Image files in and out: depth, alpha, and what else is in them."""

import io

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, features

from sr3_jax.errors import UserError
from sr3_jax.images import files, png
from sr3_jax.images.arrays import ImageError
from sr3_jax.images.metadata import Metadata
from sr3_jax.images.pixels import Picture

pytestmark = pytest.mark.fast
RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (6, 9, 3), np.uint8)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def encoded(image, form="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def levels(picture, count=255):
    return np.rint((picture.colour + 1) / 2 * count).astype(int)


def palette():
    return Image.fromarray(COLOUR).quantize(8)


MODES = {
    "RGB": (Image.fromarray(COLOUR), 3, False),
    "RGBA": (Image.fromarray(np.dstack([COLOUR, COLOUR[..., :1]])), 3, True),
    "grey": (Image.fromarray(COLOUR[..., 0]), 1, False),
    "grey and alpha": (Image.fromarray(COLOUR[..., :2], "LA"), 1, True),
    "black and white": (Image.fromarray(COLOUR[..., 0]).convert("1"), 1, False),
    "palette": (palette(), 3, False),
}


@pytest.mark.parametrize(("image", "channels", "clear"), MODES.values(), ids=MODES)
def test_every_mode_is_read_as_grey_or_rgb_and_alpha(image, channels, clear):
    picture = files.parse(encoded(image), "a.png").picture
    assert picture.colour.shape == (6, 9, channels)
    assert (picture.alpha is not None) == clear
    wanted = np.asarray(image.convert({1: "L", 3: "RGB"}[channels])).reshape(6, 9, channels)
    np.testing.assert_array_equal(levels(picture), wanted)
    if clear:
        np.testing.assert_array_equal(
            levels(Picture(picture.alpha))[..., 0], np.asarray(image)[..., -1]
        )


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tiff", ".bmp", ".jpg", ".avif"])
def test_every_format_is_written_and_read_back(tmp_path, suffix):
    if not features.check(suffix[1:]) and suffix == ".avif":
        pytest.skip(f"Pillow was built without {suffix}")
    picture = Picture(np.linspace(-1, 1, 6 * 9 * 3, dtype=np.float32).reshape(6, 9, 3))
    assert files.write(tmp_path / f"a{suffix}", picture) == []
    back = files.read(tmp_path / f"a{suffix}").picture
    atol = 0 if suffix in (".png", ".tiff", ".bmp") else 25
    np.testing.assert_allclose(levels(back), levels(picture), atol=atol)


def test_alpha_stays_where_it_can_and_is_flattened_onto_white_where_not(tmp_path):
    clear = Picture(np.full((6, 9, 3), -1.0), np.full((6, 9, 1), -1.0))
    assert files.write(tmp_path / "a.png", clear) == files.write(tmp_path / "a.webp", clear) == []
    assert files.read(tmp_path / "a.png").picture.alpha.max() == -1
    assert "flattened onto white" in files.write(tmp_path / "a.jpg", clear)[0]
    assert levels(files.read(tmp_path / "a.jpg").picture).min() > 250


DEEP = RNG.integers(0, 65536, (6, 9, 4), np.uint16)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_are_read_and_written(tmp_path, suffix, channels):
    values = DEEP[..., :channels]
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]
    done, data = cv2.imencode(suffix, values[..., order])
    assert done
    picture = files.parse(data.tobytes(), "deep").picture
    assert picture.levels == 65535
    np.testing.assert_array_equal(picture.quantized(), values)
    files.write(tmp_path / f"a{suffix}", picture)
    np.testing.assert_array_equal(files.read(tmp_path / f"a{suffix}").picture.quantized(), values)
    assert "rounded to 8 bits" in files.write(tmp_path / "a.webp", picture)[0]


def test_profile_exif_and_resolution_stay_and_the_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Artist] = 6, "somebody"
    options = {"icc_profile": PROFILE, "exif": exif, "dpi": (300, 300)}
    for form, suffix in (("JPEG", ".jpg"), ("PNG", ".png"), ("WEBP", ".webp"), ("TIFF", ".tiff")):
        file = files.parse(encoded(Image.fromarray(COLOUR), form, **options), "a")
        assert file.picture.colour.shape == (9, 6, 3), form
        assert any("upright" in note for note in file.notes)
        if form in ("PNG", "TIFF"):
            np.testing.assert_array_equal(levels(file.picture), np.rot90(COLOUR, -1))
        files.write(tmp_path / f"a{suffix}", file.picture, file.metadata)
        with Image.open(tmp_path / f"a{suffix}") as back:
            assert back.size == (6, 9)
            assert back.info.get("icc_profile") == PROFILE, form
            assert back.getexif().get(ExifTags.Base.Artist) == "somebody", form
            assert back.getexif().get(ExifTags.Base.Orientation, 1) == 1, form
            if form != "WEBP":  # which has no place for it
                assert round(float(back.info["dpi"][0])) == 300, form


@pytest.mark.parametrize("turn", range(1, 9))
def test_sixteen_bit_files_are_turned_as_eight_bit_ones(turn):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = turn
    wanted = files.parse(encoded(Image.fromarray(COLOUR), exif=exif), "a").picture
    _, deep = cv2.imencode(".png", COLOUR[..., ::-1].astype(np.uint16) * 257)
    data = png.with_chunks(deep.tobytes(), png.chunk(b"eXIf", exif.tobytes()[6:]))
    found = files.parse(data, "a").picture
    assert found.levels == 65535
    np.testing.assert_allclose(found.colour, wanted.colour, atol=1e-6)


def test_profile_and_resolution_are_put_into_a_deep_png(tmp_path):
    picture = Picture(np.zeros((4, 4, 3), np.float32), None, 65535)
    files.write(tmp_path / "a.png", picture, Metadata(icc=PROFILE, dpi=(300, 300)))
    with Image.open(tmp_path / "a.png") as back:
        assert back.info["icc_profile"] == PROFILE
        assert round(back.info["dpi"][0]) == 300


def test_what_is_converted_is_said(tmp_path):
    frames = [Image.fromarray(COLOUR), Image.fromarray(255 - COLOUR)]
    notes = {
        "frames": files.parse(
            encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), "a"
        ).notes,
        "CMYK": files.parse(encoded(Image.fromarray(COLOUR).convert("CMYK"), "JPEG"), "a").notes,
        "palette": files.parse(encoded(palette()), "a").notes,
    }
    assert "first frame only" in notes["frames"][0]
    assert notes["CMYK"] == ("CMYK converted to RGB without a colour profile",)
    assert notes["palette"] == ("palette converted to RGB",)


BAD = {
    "empty": b"",
    "text": b"no image",
    "cut": encoded(Image.fromarray(COLOUR))[:60],
    "a deep one, cut": None,
}


@pytest.mark.parametrize("name", BAD)
def test_damaged_files_are_one_sentence(name):
    data = BAD[name]
    if data is None:
        data = cv2.imencode(".png", DEEP[..., :3])[1].tobytes()[:100]
    with pytest.raises(ImageError, match="photo"):
        files.parse(data, "photo.png")


def test_what_cannot_be_written_is_one_sentence_and_leaves_nothing(tmp_path):
    picture = Picture(np.zeros((4, 4, 3), np.float32))
    with pytest.raises(UserError, match=r"no image format has the suffix '\.txt'"):
        files.write(tmp_path / "a.txt", picture)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        files.write(tmp_path / "file" / "a.png", picture)
    with pytest.raises(UserError, match="20000×1 pixels are too many for WEBP"):
        files.write(tmp_path / "a.webp", Picture(np.zeros((1, 20000, 3), np.float32)))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
