"""Large photographs cut into squares: `sr3 prepare --tiles`."""

import pickle

import numpy as np
import pytest

from sr3_jax.data.folder import Folder
from sr3_jax.data.records import Records
from sr3_jax.data.source import DataError, is_held_out
from sr3_jax.datasets import prepare
from sr3_jax.datasets.tiles import Tiles, detail, starts
from sr3_jax.errors import UserError
from sr3_jax.images import arrays

pytestmark = pytest.mark.fast


@pytest.fixture
def folder(tmp_path):
    """One photograph of 50×37, whose pixels are their own places, a flat one, and one too small."""
    rows, columns = np.mgrid[:37, :50].astype(np.uint8)
    arrays.write(tmp_path / "place.png", np.stack([rows, columns, rows], -1))
    arrays.write(tmp_path / "sky.png", np.full((32, 32, 3), 200, np.uint8))
    arrays.write(tmp_path / "small.png", np.zeros((15, 60, 3), np.uint8))
    return tmp_path


def test_squares_cover_a_photograph_and_none_is_left_out(folder):
    tiles = Tiles(Folder(folder, ["place.png"], 3), 16)
    assert tiles.ids == [f"place.png#1,{row},{column}" for row in (0, 1, 2) for column in (0, 1, 2)]
    for tile, (row, column) in zip((tiles[i] for i in range(9)), np.ndindex(3, 3), strict=True):
        assert tile.pixels.shape == (16, 16, 3)
        # 37 = 2 · 16 + 5
        assert tuple(tile.pixels[0, 0, :2]) == ((0, 10, 21)[row], (50 - 48) // 2 + 16 * column)
    again = pickle.loads(pickle.dumps(tiles))
    np.testing.assert_array_equal(again[4].pixels, tiles[4].pixels)


def test_reducing_averages_blocks_of_pixels(folder):
    tiles = Tiles(Folder(folder, ["place.png"], 3), 8, (2,))
    block = np.arange(2) + (18 - 16) // 2 * 2  # the first two rows of the first square
    assert tiles[0].pixels[0, 0, 0] == np.rint(block.mean())
    assert [
        place.partition("#")[2][0]
        for place in Tiles(Folder(folder, ["place.png"], 3), 8, (2, 4)).ids
    ] == ["2"] * 6 + ["4"] * 2


def test_photographs_without_room_are_dropped_and_named(folder):
    tiles = Tiles(Folder(folder, ["place.png", "small.png"], 3), 16)
    assert [(bad.id, bad.reason) for bad in tiles.dropped] == [
        ("small.png", "is 60×15, smaller than 16")
    ]
    with pytest.raises(DataError, match=r"--size=40.*reduced by 2"):
        prepare.open_tiles(str(folder), 40, (2,))
    with pytest.raises(DataError, match="--tiles is for a folder"):
        prepare.open_tiles("orl", 40, (2,))


def test_detail_is_what_a_quarter_of_the_size_loses():
    rng = np.random.default_rng(0)
    assert detail(np.full((32, 32, 3), 77, np.uint8)) == 0
    assert (
        detail(
            np.broadcast_to(np.arange(32, dtype=np.uint8)[:, None, None] * 4, (32, 32, 3)).copy()
        )
        < 2
    )
    assert detail(rng.integers(0, 256, (32, 32, 1), np.uint8)) > 50


def test_tiles_without_detail_are_not_written_and_are_no_faults(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("tiles") / "out"
    result = prepare.prepare(
        str(folder), output, prepare.Options(16, tiles=[1], detail=0.5), workers=1
    )
    assert [bad.id for bad in result.dropped] == ["small.png"]
    records = Records(output, 3)
    assert len(records) == result.images > 0
    assert {id.partition("#")[0] for id in records.ids} == {"place.png"}


def test_squares_of_a_photograph_are_held_out_together():
    names = [f"{number}.jpg" for number in range(200)]
    for name in names:
        assert is_held_out(f"{name}#2,0,1") == is_held_out(name)
    assert 0 < sum(map(is_held_out, names)) < 30


def test_a_photograph_that_the_disk_does_not_give_stops_the_work_and_is_not_dropped(folder):
    with pytest.raises(UserError, match=r"gone\.png does not exist"):
        Tiles(Folder(folder, ["place.png", "gone.png"], 3), 16)


@pytest.mark.fast
@pytest.mark.parametrize("length", [15, 16, 19, 20, 21, 33, 40, 47, 100])
def test_squares_cover_a_side_but_for_a_rest_that_is_not_worth_one(length):
    found = starts(length, 16)
    if length < 16:
        assert found == []
        return
    assert found == sorted(found)
    assert (found[0] >= 0, found[-1] + 16 <= length) == (True, True)
    covered = {pixel for start in found for pixel in range(start, start + 16)}
    assert length - len(covered) <= 16 // 4
    assert len(found) <= length // 16 + 1
