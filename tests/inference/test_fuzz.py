"""Damaged image files, thousands of them: each is enlarged, or refused in one sentence."""

import io

import numpy as np
import pytest
from PIL import Image
from skimage import data as photographs

from sr3_jax.errors import UserError
from sr3_jax.images import files
from sr3_jax.images.formats import FORMATS
from sr3_jax.images.pixels import Picture

SMALL = Image.fromarray(photographs.astronaut()[:64:4, :96:4])
CASES = 2400


def originals():
    """Real images, small, in every format that is read."""
    modes = {
        "PNG": ("RGB", "RGBA", "L", "P", "I;16"),
        "JPEG": ("RGB", "L", "CMYK"),
        "TIFF": ("RGB", "L", "CMYK"),
        "GIF": ("P",),
    }
    modes |= {"WEBP": ("RGB", "RGBA"), "BMP": ("RGB", "L")}
    for form, kinds in modes.items():
        for mode in kinds:
            image = SMALL.convert("L").convert("I;16") if mode == "I;16" else SMALL.convert(mode)
            buffer = io.BytesIO()
            exif = Image.Exif()
            exif[274] = 6
            image.save(buffer, form, **({"exif": exif} if form in ("JPEG", "PNG", "WEBP") else {}))
            yield buffer.getvalue()
    yield files.encode(Picture(np.zeros((9, 7, 3), np.float32), None, 65535), FORMATS["PNG"])[0]
    yield files.encode(Picture(np.zeros((9, 7, 3), np.float32), None, 65535), FORMATS["TIFF"])[0]


def mutated(data, rng):
    """A few bytes changed, a part cut out, doubled or zeroed, or the end missing."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(len(data)))
        length = int(rng.integers(1, 40))
        kind = rng.integers(6)
        if kind == 0:
            data[at] = rng.integers(256)
        elif kind == 1:
            data[at] ^= 1 << int(rng.integers(8))
        elif kind == 2 and len(data) > length + 1:
            del data[at : at + length]
        elif kind == 3:
            data[at:at] = data[at : at + length]
        elif kind == 4:
            data[at : at + length] = bytes(len(data[at : at + length]))
        elif len(data) > 2:
            del data[max(1, at) :]
        if not data:
            break
    return bytes(data)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about what it leaves out
def test_a_damaged_file_is_read_or_refused_in_one_sentence():
    rng, images = np.random.default_rng(0), list(originals())
    outcomes, sentences = {"read": 0, "refused": 0}, set()
    for case in range(CASES):
        data = mutated(images[case % len(images)], rng)
        try:
            height, width = files.header(data, "photo")
            if height * width > 10**7:  # as the command, which refuses by the memory it would take
                continue
            picture = files.parse(data, "photo").picture
            assert np.isfinite(picture.colour).all()
            assert picture.colour.shape[0] * picture.colour.shape[1] <= 10**7
            outcomes["read"] += 1
        except UserError as refusal:
            sentences.add(str(refusal))
            outcomes["refused"] += 1
    assert sum(outcomes.values()) > 0.9 * CASES
    assert min(outcomes.values()) > 100, outcomes
    assert all("photo" in sentence and "\n" not in sentence for sentence in sentences)
