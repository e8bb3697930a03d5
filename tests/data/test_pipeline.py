"""The stream of batches is a function of (seed, position) and of nothing else.

Restarts, processes, threads and broken files do not change it.
"""

import itertools
import shutil

import jax
import numpy as np
import pytest
from PIL import Image as PillowImage
from skimage import data as photographs

import sr3_jax.config
from sr3_jax.data import crops
from sr3_jax.data.faces import OrlFaces
from sr3_jax.data.pipeline import Batches, load_evaluation
from sr3_jax.data.source import DataError, Image, image_id
from sr3_jax.data.sources import open_source
from sr3_jax.images.arrays import ImageError
from sr3_jax.runtime import parallel

FACES = OrlFaces(range(1, 4))  # 30 images
PHOTO = photographs.chelsea()


@pytest.fixture
def config():
    config = sr3_jax.config.base()
    config.data.hr_size, config.data.lr_size, config.data.crop_jitter = 32, 8, 0.1
    config.model.image_channels, config.train.batch_size = 1, 6
    return config


def take(count, source, config, **options):
    return list(itertools.islice(Batches(source, config, **options), count))


def assert_equal(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        jax.tree.map(np.testing.assert_array_equal, one, other)


def rows_of(batch, process, processes):
    return jax.tree.map(lambda value: np.split(value, processes)[process], batch)


def test_a_batch_is_uint8_images_and_their_numbers(config):
    (batch,) = take(1, FACES, config)
    assert batch.image.shape == (6, 32, 32, 1)
    assert batch.image.dtype == np.uint8
    assert batch.number.shape == (6,)
    assert batch.number.dtype == np.int64
    assert batch.label.dtype == np.int32
    people = [FACES.people[number // 10] - 1 for number in batch.number]
    assert batch.label.tolist() == people


@pytest.mark.parametrize("position", [1, 4, 7, 10_000_000])
def test_starting_at_a_position_equals_skipping_the_batches_before_it(config, position):
    if position < 100:
        assert_equal(
            take(3, FACES, config, position=position), take(position + 3, FACES, config)[position:]
        )
    else:  # far out it costs nothing
        assert_equal(
            take(3, FACES, config, position=position)[1:],
            take(2, FACES, config, position=position + 1),
        )


@pytest.mark.parametrize("rows", [[0, 1, 2], [3, 4, 5], [0, 3, 4], [5]])
def test_a_process_reads_the_rows_of_each_batch_that_are_its_own(config, rows):
    whole = take(7, FACES, config, position=2)
    part = take(7, FACES, config, position=2, rows=rows)
    assert_equal(part, [jax.tree.map(lambda leaf: leaf[rows], batch) for batch in whole])


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_the_number_of_threads_changes_nothing(config, threads):
    reference = take(8, FACES, config)
    config.data.threads = threads
    assert_equal(take(8, FACES, config), reference)


def test_an_epoch_visits_every_image_once_and_each_epoch_in_another_order(config):
    orders = [
        np.concatenate([batch.number for batch in take(5, FACES, config, position=5 * epoch)])
        for epoch in range(4)
    ]
    for order in orders:
        assert sorted(order) == list(range(30))
    assert len({tuple(order) for order in orders}) == 4
    assert tuple(orders[0]) != tuple(range(30))


def test_an_image_is_augmented_anew_in_each_epoch(config):
    by_image = {}
    for batch in take(20, FACES, config):
        for index, image in zip(batch.number, batch.image, strict=True):
            by_image.setdefault(int(index), []).append(image.tobytes())
    assert all(len(versions) == len(set(versions)) == 4 for versions in by_image.values())


def test_another_seed_is_another_stream(config):
    before = take(5, FACES, config)
    config.seed = 1
    after = take(5, FACES, config)
    assert [tuple(batch.number) for batch in before] != [tuple(batch.number) for batch in after]


def test_half_of_the_images_are_mirrored_and_none_when_flip_is_off(config):
    config.data.crop_jitter = 0.0
    mirrored = []
    for batch in take(40, FACES, config):
        for index, image in zip(batch.number, batch.image, strict=True):
            upright = crops.fit(FACES[int(index)], config)
            np.testing.assert_array_equal(
                image[:, ::-1] if (flipped := (image != upright).any()) else image, upright
            )
            mirrored.append(flipped)
    assert 0.4 < np.mean(mirrored) < 0.6
    config.data.flip = False
    for batch in take(5, FACES, config):
        for index, image in zip(batch.number, batch.image, strict=True):
            np.testing.assert_array_equal(image, crops.fit(FACES[int(index)], config))


@pytest.fixture
def folder(config, tmp_path):
    """40 photographs, and the config that trains on them."""
    (tmp_path / "train").mkdir()
    for index in range(40):
        left, top = 10 * index, 5 * index
        PillowImage.fromarray(PHOTO[top : top + 48, left : left + 40]).save(
            tmp_path / "train" / f"{index:02d}.jpg"
        )
    shutil.copytree(tmp_path / "train", tmp_path / "test")
    config.data.source, config.data.folder, config.data.eval_folder = (
        "folder",
        str(tmp_path / "train"),
        str(tmp_path / "test"),
    )
    config.data.max_bad_fraction, config.model.image_channels, config.train.batch_size = 0.1, 3, 5
    return tmp_path / "train"


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def test_a_truncated_image_is_replaced_by_its_neighbour_and_no_other_moves(config, folder):
    before = take(24, open_source(config, "train"), config)
    source = open_source(config, "train")  # the header of the truncated file is whole
    for index in (7, 8, 39):
        truncate(folder / f"{index:02d}.jpg")
    batches = Batches(source, config)
    assert not batches.bad
    replaced = {7: 9, 8: 9, 39: 0}
    for old in before:
        new = next(batches)
        np.testing.assert_array_equal(
            new.number, [replaced.get(index, index) for index in old.number]
        )
        same = new.number == old.number
        np.testing.assert_array_equal(new.image[same], old.image[same])
        assert not any(
            (ours == theirs).all()
            for ours, theirs in zip(new.image[~same], old.image[~same], strict=True)
        )
    assert sorted(bad.reason.split(" cannot be decoded: ")[0] for bad in batches.bad) == [
        str(folder / f"{index:02d}.jpg") for index in (7, 8, 39)
    ]


def test_processes_replace_a_broken_image_by_the_same_one(config, folder):
    config.train.batch_size = 4
    source = open_source(config, "train")
    truncate(folder / "20.jpg")
    whole = take(20, source, config)
    for process in (0, 1):
        half = config.train.batch_size // 2
        own = list(range(process * half, (process + 1) * half))
        part = take(20, source, config, rows=own)
        assert_equal(
            part,
            [rows_of(batch, process, 2) for batch in whole],
        )


@pytest.mark.parametrize("threads", [1, 4])
def test_too_many_broken_images_raise_a_data_error_from_next(config, folder, threads):
    config.data.threads = threads
    source = open_source(config, "train")
    for index in range(5):
        truncate(folder / f"{index:02d}.jpg")
    batches = Batches(source, config)
    with pytest.raises(
        DataError,
        match=r"5 of 40 images cannot be used.*data\.max_bad_fraction = 0\.1 \(/.*0\d\.jpg cannot",
    ):
        list(itertools.islice(batches, 8))


def test_of_several_processes_one_that_finds_too_many_broken_images_ends_all_at_the_same_step(
    config, folder, monkeypatch
):
    """Alone it would end at once, and the others wait for it."""
    source = open_source(config, "train")
    for index in range(20):
        truncate(folder / f"{index:02d}.jpg")
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    texts = []
    monkeypatch.setattr(parallel, "first_text", lambda text: texts.append(text) or text)
    batches = Batches(source, config)
    for _ in range(5):
        assert next(batches).image.shape == (5, 32, 32, 3)
    with pytest.raises(DataError, match=r"above data\.max_bad_fraction = 0\.1"):
        batches.agree()
    monkeypatch.setattr(parallel, "first_text", lambda text: "what another has found")
    with pytest.raises(DataError, match="what another has found"):
        batches.agree()


def test_where_no_image_is_good_one_of_several_processes_goes_on_with_black_until_all_end(
    config, folder, monkeypatch
):
    source = open_source(config, "train")
    for path in folder.iterdir():
        truncate(path)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(parallel, "first_text", lambda text: text)
    batches = Batches(source, config)
    assert not next(batches).image.any()
    with pytest.raises(DataError, match="images cannot be used"):
        batches.agree()


def test_a_folder_that_vanishes_raises_a_data_error_from_next(config, folder):
    config.data.max_bad_fraction = 1.0
    source = open_source(config, "train")
    shutil.rmtree(folder)
    with pytest.raises(DataError, match="training data: none of 40 images can be used") as caught:
        list(itertools.islice(Batches(source, config), 8))
    assert "\n" not in str(caught.value)


class Coordinates:
    """Images that say where their pixels come from: the first channel is x, the second y."""

    dropped = ()

    def __init__(self, width, height, count=60):
        grid = np.mgrid[:height, :width].astype(np.uint8)
        self.pixels, self.count = np.stack([grid[1], grid[0], 0 * grid[0]], -1), count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return Image(self.pixels, f"{index}")


def test_images_that_turn_out_too_small_are_replaced_as_well(config):
    class Mixed(Coordinates):
        def __getitem__(self, index):
            return Image(self.pixels if index else self.pixels[:31], f"{index}")

    config.data.max_bad_fraction = 0.1
    batches = Batches(Mixed(40, 40), config)
    seen = np.concatenate([batch.number for batch in itertools.islice(batches, 10)])
    assert sorted(seen) == [1, 1, *range(2, 60)]
    assert [bad.reason for bad in batches.bad] == ["0 is 40×31, smaller than data.hr_size = 32"]


def test_crops_are_unscaled_and_reach_every_corner(config):
    config.data.fit, config.data.flip = "crop", False
    source = Coordinates(36, 34)
    corners = set()
    for batch in take(60, source, config):
        for image in batch.image:
            left, top = image[0, 0, :2]
            np.testing.assert_array_equal(image, source.pixels[top : top + 32, left : left + 32])
            corners.add((int(left), int(top)))
    assert corners == set(itertools.product(range(5), range(3)))


@pytest.mark.parametrize("fit", ["crop", "resize"])
def test_without_a_generator_the_fit_is_central_and_deterministic(config, fit):
    config.data.fit, config.data.hr_size = fit, 32
    pixels = crops.fit(Coordinates(96, 64)[0], config)
    np.testing.assert_array_equal(pixels, crops.fit(Coordinates(96, 64)[0], config))
    if fit == "crop":
        np.testing.assert_array_equal(pixels, Coordinates(96, 64).pixels[16:48, 32:64])
    else:  # the central 64×64, in blocks of 2×2
        blocks = Coordinates(96, 64).pixels[:, 16:80].reshape(32, 2, 32, 2, 3).mean((1, 3))
        np.testing.assert_allclose(pixels, blocks, atol=0.51)


@pytest.mark.parametrize("resample", ["area", "bicubic"])
def test_resize_takes_the_box_of_the_data_set(config, resample):
    config.data.resample, config.data.hr_size = resample, 64
    face = FACES[3]
    box = PillowImage.fromarray(face.pixels[14:106, 0:92, 0])
    method = {"area": PillowImage.Resampling.BOX, "bicubic": PillowImage.Resampling.BICUBIC}[
        resample
    ]
    ours, cut = crops.fit(face, config)[..., 0], np.asarray(box.resize((64, 64), method))
    edge = 0 if resample == "area" else 3  # bicubic looks a little beyond the box
    np.testing.assert_array_equal(
        ours[edge : 64 - edge, edge : 64 - edge], cut[edge : 64 - edge, edge : 64 - edge]
    )
    np.testing.assert_allclose(ours, cut.astype(float), atol=2)


@pytest.mark.parametrize("jitter", [0.05, 0.5, 1.0])
@pytest.mark.parametrize(
    ("width", "height", "box"), [(92, 112, (0, 14, 92, 106)), (200, 64, None), (64, 64, None)]
)
def test_jittered_squares_stay_inside_the_image(config, jitter, width, height, box):
    config.data.crop_jitter, config.data.flip = jitter, False
    image = Coordinates(width, height)[0]._replace(box=box)
    rng = np.random.default_rng(0)
    corners, sides = [], []
    for _ in range(300):
        # Pillow raises for a box that leaves the image
        pixels = crops.fit(image, config, rng).astype(int)
        assert (np.diff(pixels[..., 0], axis=1) >= 0).all()
        corners.append(pixels[0, 0, :2])
        sides.append(np.ptp(pixels[..., 0]))
    side = min(width, height)
    moved = np.abs(np.array(corners) - crops.square(image)[:2])
    # The shift, and the centre of the first cell
    assert moved.max() <= 1.5 * jitter * side + side / 32
    assert np.ptp(corners, axis=0).max() > 0.3 * jitter * side
    assert min(sides) >= (1 - jitter) * side * 31 / 32 - 2
    assert len(set(sides)) > 2


def test_an_image_too_small_for_the_config_is_an_image_error(config):
    with pytest.raises(ImageError, match=r"0 is 31×40, smaller than data\.hr_size = 32"):
        crops.fit(Coordinates(31, 40)[0], config)


def test_evaluation_takes_all_images_or_some_spread_evenly(config):
    whole = load_evaluation(FACES, config)
    assert whole.names == [FACES[index].id for index in range(30)]
    np.testing.assert_array_equal(
        whole.images, [crops.fit(FACES[index], config) for index in range(30)]
    )
    np.testing.assert_array_equal(whole.ids, [image_id(name) for name in whole.names])
    some = load_evaluation(FACES, config, limit=6)
    assert some.names == whole.names[::5]
    np.testing.assert_array_equal(some.images, whole.images[::5])
    assert load_evaluation(FACES, config, limit=99).names == whole.names


def test_evaluation_leaves_broken_images_out_within_the_budget(config, folder):
    source = open_source(config, "eval")
    for index in (3, 4):
        truncate(folder.parent / "test" / f"{index:02d}.jpg")
    assert load_evaluation(source, config).names == [
        f"{index:02d}.jpg" for index in range(40) if index not in (3, 4)
    ]
    config.data.max_bad_fraction = 0.01
    with pytest.raises(DataError, match="2 of 40 images cannot be used"):
        load_evaluation(source, config)


def test_a_broken_image_of_a_sample_is_replaced_by_the_next_good_one_that_is_not_of_the_sample(
    config, folder
):
    source = open_source(config, "eval")
    for index in (5, 6, 38, 39):
        truncate(folder.parent / "test" / f"{index:02d}.jpg")
    sample = load_evaluation(source, config, limit=8)
    assert sample.names == [f"{index:02d}.jpg" for index in (0, 7, 10, 15, 20, 25, 30, 35)]
    np.testing.assert_array_equal(sample.images[1], crops.fit(source[7], config))
    assert (sample.rows.tolist(), sample.total) == ([*range(8)], 8)
    # Places 0 ... 37, and 38, which 39 could replace
    dense = load_evaluation(source, config, limit=39)
    assert dense.names == [f"{index:02d}.jpg" for index in range(38) if index not in (5, 6)]
    assert (dense.rows.tolist(), dense.total) == ([*range(36)], 36)


def test_a_fraction_of_bad_images_is_one_of_the_whole_set_and_not_of_a_sample(config, folder):
    truncate(folder.parent / "test" / "00.jpg")
    config.data.max_bad_fraction = 1 / 40
    assert load_evaluation(open_source(config, "eval"), config, limit=4).names[0] == "01.jpg"
    config.data.max_bad_fraction = 1 / 41
    with pytest.raises(DataError, match="1 of 40 images cannot be used"):
        load_evaluation(open_source(config, "eval"), config, limit=4)


def test_what_the_headers_showed_and_what_decoding_shows_share_one_budget(config, folder):
    config.data.max_bad_fraction = 1 / 40
    (folder / "00.jpg").write_text("no image")
    source = open_source(config, "train")
    truncate(folder / "01.jpg")
    with pytest.raises(
        DataError,
        match=r"2 of 40 images cannot be used.*00\.jpg is not an image.*01\.jpg cannot be decoded",
    ):
        list(itertools.islice(Batches(source, config), 8))


def test_images_converted_are_counted_once_each_however_often_they_are_read(config, folder):
    for index in range(3):
        PillowImage.open(folder / f"{index:02d}.jpg").convert("RGBA").save(
            folder / f"{index:02d}.png"
        )
        (folder / f"{index:02d}.jpg").unlink()
    PillowImage.open(folder / "03.jpg").convert("P").save(folder / "03.png")
    batches = Batches(open_source(config, "train"), config)
    assert batches.converted == ""
    list(itertools.islice(batches, 25))  # 41 images three times
    assert batches.converted == "3 × alpha flattened onto white, 1 × palette converted to RGB"
    config.data.eval_folder = config.data.folder
    evaluation = load_evaluation(open_source(config, "eval"), config)
    assert sum(map(len, evaluation.notes)) == 4
