"""The public photographs: squares of what the packages hold, and nothing to train on."""

import numpy as np
import pytest
import skimage.data
from PIL import Image

import sr3_jax.config
from sr3_jax.data.public_photos import PublicPhotos
from sr3_jax.data.source import DataError
from sr3_jax.data.sources import open_source

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(("size", "count"), [(128, 15), (256, 15)])
def test_all_whole_squares_of_seven_photographs_are_there_once(size, count):
    source = PublicPhotos(size)
    assert len(source) == len(set(source.names)) == count
    assert {name.partition("/")[0] for name in source.names} == {
        *("astronaut", "chelsea", "coffee", "motorcycle", "rocket"),
        *("china", "flower"),
    }
    assert {source[i].pixels.shape for i in range(len(source))} == {(size, size, 3)}
    seen = {source[i].pixels.tobytes() for i in range(len(source))}
    assert len(seen) == count


def test_a_square_is_cut_around_the_middle_of_the_photograph_half_as_large():
    small = Image.fromarray(skimage.data.coffee()).resize((300, 200), Image.Resampling.BICUBIC)
    source = PublicPhotos(128)
    found = source[source.names.index("coffee/0-1")]
    np.testing.assert_array_equal(found.pixels, np.asarray(small)[36:164, 150:278])
    assert found.id == "coffee/0-1"
    grey = PublicPhotos(128, channels=1)
    assert grey[0].pixels.shape == (128, 128, 1)


def test_they_are_to_test_on_and_need_their_packages(monkeypatch):
    config = sr3_jax.config.base()
    config.data.source = "photos"
    with pytest.raises(DataError, match="to test on"):
        open_source(config, "train")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        DataError, match=r"package scikit-image; run: pip install 'sr3_jax\[photos\]'"
    ):
        open_source(config, "eval")


def test_two_portraits_come_in_for_large_squares_and_what_has_no_room_for_one_is_named():
    source = PublicPhotos(512)
    assert source.names == ["astronaut/0-0", "camera/0-0", "grace_hopper/0-0"]
    assert {source[i].pixels.shape for i in range(3)} == {(512, 512, 3)}
    assert {one.id for one in source.dropped} == {
        *("chelsea", "coffee", "motorcycle", "rocket", "china", "flower")
    }
    assert source.dropped[0].reason == "is 451×300, without room for a square of 512"
