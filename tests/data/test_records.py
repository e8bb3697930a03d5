"""`sr3 prepare`, and what training reads back from it: the same pixels.

That holds whatever was stopped, lost or damaged in between.
"""

import contextlib
import errno
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from etils import epath
from PIL import Image

from sr3_jax import config as config_lib
from sr3_jax.data import records
from sr3_jax.data.crops import fit
from sr3_jax.data.pipeline import Batches, load_evaluation
from sr3_jax.data.source import DataError, is_held_out
from sr3_jax.data.sources import open_source
from sr3_jax.datasets import prepare
from sr3_jax.errors import UserError
from sr3_jax.evaluation import image_sets
from sr3_jax.images import arrays

SIZE, COUNT = 16, 100


def write_photographs(folder, count=COUNT):
    rng = np.random.default_rng(0)
    for i in range(count):
        height, width = rng.integers(SIZE, 3 * SIZE, 2)
        arrays.write(
            folder / f"{i % 7}" / f"{i}.png",
            rng.integers(0, 256, (height, width, 3 if i % 5 else 1), np.uint8),
        )
    return folder


def get_config(place, **data):
    config = config_lib.base()
    config.data.source, config.data.folder = "records", str(place)
    config.data.hr_size, config.data.lr_size, config.data.threads = SIZE, 4, 1
    config.model.multipliers, config.model.attention = (1, 2), ()
    config.train.batch_size = 8
    config.data.update(data)
    config_lib.validate(config)
    return config


def make(place, output, **options):
    how = {name: options.pop(name) for name in prepare.Options._fields if name in options}
    others = {"workers": 2} | options
    return prepare.prepare(str(place), output, prepare.Options(**({"size": SIZE} | how)), **others)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    return write_photographs(tmp_path_factory.mktemp("photographs"))


@pytest.fixture(scope="module")
def prepared(photographs, tmp_path_factory):
    output = tmp_path_factory.mktemp("prepared") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "SHARD_BYTES", 1)  # 64 images a shard
        result = make(photographs, output)
    assert (result.images, result.shards, len(result.dropped)) == (COUNT, 2, 0)
    return output


@pytest.mark.parametrize("split", ["train", "eval"])
def test_training_sees_the_very_pixels_that_it_would_see_from_the_folder(
    photographs, prepared, split
):
    ours = open_source(get_config(prepared), split)
    config = get_config(photographs, source="folder")
    theirs = open_source(config, split)
    assert ours.ids == theirs.names
    assert len(ours) > 0
    for index in range(len(theirs)):
        image = ours[index]
        assert image.id == theirs.names[index]
        np.testing.assert_array_equal(image.pixels, fit(theirs[index], config))
    assert (
        len(open_source(get_config(prepared), "train"))
        + len(open_source(get_config(prepared), "eval"))
        == COUNT
    )


def test_batches_and_evaluation_are_those_of_the_folder_to_the_bit(photographs, prepared):
    ours, theirs = (
        next(Batches(open_source(config, "train"), config))
        for config in (get_config(prepared), get_config(photographs, source="folder"))
    )
    np.testing.assert_array_equal(ours.image, theirs.image)
    config = get_config(prepared)
    assert load_evaluation(open_source(config, "eval"), config).total == len(
        open_source(config, "eval")
    )


def test_a_folder_of_its_own_is_held_out_whole(prepared, photographs, tmp_path):
    make(photographs / "3", tmp_path / "out")
    config = get_config(prepared, eval_folder=str(tmp_path / "out"))
    assert len(open_source(config, "train")) == COUNT
    assert len(open_source(config, "eval")) == len(list((photographs / "3").iterdir()))


def test_raw_and_png_hold_the_same_pixels_and_grey_and_colour_are_what_the_network_wants(
    photographs, prepared, tmp_path
):
    make(photographs, tmp_path / "raw", encoding="raw")
    for channels in (1, 3):
        png, raw = records.Records(prepared, channels), records.Records(tmp_path / "raw", channels)
        assert [raw[i].pixels.shape for i in range(COUNT)] == [(SIZE, SIZE, channels)] * COUNT
        for i in range(COUNT):
            np.testing.assert_array_equal(raw[i].pixels, png[i].pixels)


def test_a_source_can_be_pickled_after_reading(prepared):
    source = records.Records(prepared, 3, "train")
    first = source[0]
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(again[0].pixels, first.pixels)
    assert again.ids == source.ids


def test_what_cannot_be_used_is_dropped_named_and_counted_in_trainings_budget(
    photographs, tmp_path
):
    folder = shutil.copytree(photographs, tmp_path / "in")
    (folder / "bad.png").write_text("no image")
    Image.new("RGB", (SIZE - 1, 99)).save(folder / "small.png")
    result = make(folder, tmp_path / "out")
    assert result.images == COUNT
    assert [(bad.id, bad.reason) for bad in result.dropped] == [
        ("bad.png", f"{folder / 'bad.png'} is not an image, whatever its name says"),
        ("small.png", "is 15×99, smaller than 16"),
    ]
    config = get_config(tmp_path / "out", max_bad_fraction=0.03)
    assert len(open_source(config, "train").dropped) == 2
    with pytest.raises(DataError, match=r"2 of \d+ images cannot be used"):
        open_source(get_config(tmp_path / "out", max_bad_fraction=0.01), "train")


def test_a_stopped_run_goes_on_and_ends_as_one_that_was_not_stopped(
    photographs, prepared, tmp_path, monkeypatch
):
    monkeypatch.setattr(prepare, "SHARD_BYTES", 1)
    output, done = tmp_path / "out", []

    def stop(count):
        done.append(count)
        if sum(done) > 70:  # in the second shard
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(photographs, output, on_image=stop)
    assert not (output / records.MANIFEST).exists()
    with pytest.raises(DataError, match=r"no manifest\.json.*not to the end"):
        open_source(get_config(output), "train")
    first = next(output.glob("*.array_record"))
    before = first.stat().st_mtime_ns
    starts = []
    make(photographs, output, on_start=lambda *counts: starts.append(counts))
    assert starts == [(COUNT, 64)]
    assert first.stat().st_mtime_ns == before
    assert sorted(path.name for path in output.iterdir()) == sorted(
        path.name for path in prepared.iterdir()
    )
    assert json.loads((output / records.MANIFEST).read_text()) == json.loads(
        (prepared / records.MANIFEST).read_text()
    )
    for path in prepared.glob("*.array_record"):
        assert (output / path.name).read_bytes() == path.read_bytes()


def test_kill_9_leaves_nothing_half_written_under_a_final_name(photographs, tmp_path):
    command = [
        sys.executable,
        "-m",
        "sr3_jax",
        "prepare",
        str(photographs),
        f"--size={SIZE}",
        f"--output={tmp_path / 'out'}",
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while process.poll() is None and not any((tmp_path / "out").glob(".sr3-*.array_record")):
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "out" / records.MANIFEST).exists()
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"{COUNT} images of 16² in 1 files, 0 dropped" in result.stdout
    assert not any((tmp_path / "out").glob(".sr3-*"))


def test_a_file_that_cannot_be_read_for_a_moment_stops_the_work_and_is_not_dropped(
    photographs, tmp_path
):
    folder = shutil.copytree(photographs, tmp_path / "in")
    lost = folder / "3" / "10.png"
    with pytest.raises(
        UserError,
        match=r"10\.png cannot be read: No such file or directory; the same command goes on",
    ) as raised:
        make(folder, tmp_path / "out", on_start=lambda *_: lost.rename(tmp_path / "10.png"))
    assert "\n" not in str(raised.value)
    (tmp_path / "10.png").rename(lost)
    result = make(folder, tmp_path / "out")
    assert (result.images, result.dropped) == (COUNT, [])


def test_what_was_converted_is_counted_also_in_shards_that_were_there(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "SHARD_BYTES", 1)
    for i in range(66):
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.new("RGBA" if i % 3 == 0 else "RGB", (SIZE, SIZE)).save(
            tmp_path / "in" / f"{i:02d}.png"
        )
    expected = "22 × alpha flattened onto white"
    assert [make(tmp_path / "in", tmp_path / "out").converted for _ in range(2)] == [
        expected,
        expected,
    ]


def members(group):
    """The processes of a group that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, number = stat.read_text().rpartition(")")[2].split()[:3]
            if int(number) == group and state != "Z":
                found.append(int(stat.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc").exists(), reason="the processes are looked up in /proc")
def test_workers_end_with_the_process_that_was_killed(photographs, tmp_path):
    arguments = [
        "prepare",
        str(photographs),
        f"--size={SIZE}",
        f"--output={tmp_path / 'out'}",
        "--workers=2",
    ]
    slow = "import time, sr3_jax.datasets.prepare as p; p._write_shard = lambda *_: time.sleep(600)"
    program = f"{slow}; import sys, sr3_jax.cli; sys.exit(sr3_jax.cli.main({arguments}))"
    process = subprocess.Popen(
        [sys.executable, "-c", program], stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        # The resource tracker of multiprocessing is one of them
        while len(members(process.pid)) < 4:
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
        process.wait()
        for _ in range(1200):
            if not members(process.pid):
                break
            time.sleep(0.05)
        assert members(process.pid) == []
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_a_copy_for_which_there_is_no_room_is_blamed_on_the_disk_and_leaves_nothing(
    prepared, tmp_path, monkeypatch
):
    def full(path, data):
        with path.open("wb") as file:
            file.write(data[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    # To us, what is not pathlib's is an object store
    source = records.Records(epath.Path(prepared), 3)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(
            UserError, match=r"cannot be copied to .*: No space left on device; let XDG_CACHE_HOME"
        ) as raised:
            source[0]
    assert not isinstance(raised.value, arrays.ImageError)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    np.testing.assert_array_equal(source[0].pixels, records.Records(prepared, 3)[0].pixels)


REFUSED = {
    "other settings": (
        lambda t, p: (p, None, {"size": 8}),
        r"begun with other settings \(size: 8 here, 16 there\)",
    ),
    "a folder with something in it": (
        lambda t, p: (write_photographs(t / "mine", 2), "mine", {}),
        "mine is not empty",
    ),
    "no folder": (lambda t, p: (t / "no", "out", {}), "no is not a folder"),
    "an empty folder": (
        lambda t, p: ((t / "in").mkdir() or t / "in", "out", {}),
        "in holds no images",
    ),
    "only small images": (
        lambda t, p: (write_photographs(t / "in", 2), "out", {"size": 99}),
        "none of its 2 images",
    ),
}


@pytest.mark.parametrize(("arrange", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_done_is_refused_and_nothing_is_lost(
    photographs, prepared, tmp_path, arrange, message
):
    place, output, options = arrange(tmp_path, photographs)
    output = tmp_path / output if output else prepared
    before = (
        {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
        if output.exists()
        else {}
    )
    with pytest.raises(UserError, match=message):
        make(place, output, **options)
    assert {path: path.read_bytes() for path in before} == before


def test_damage_is_named(prepared, tmp_path):
    damaged = shutil.copytree(prepared, tmp_path / "damaged")
    shard = sorted(damaged.glob("*.array_record"))[0]
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    source = records.Records(damaged, 3)
    with pytest.raises(
        arrays.ImageError, match=rf"{source.ids[0]} cannot be read from {shard.name}"
    ):
        source[0]
    (damaged / records.MANIFEST).write_text("{")
    with pytest.raises(DataError, match=r"manifest\.json is damaged"):
        records.Records(damaged, 3)


def test_records_smaller_than_the_network_wants_are_refused(prepared):
    with pytest.raises(DataError, match=r"holds images of 16², smaller than data\.hr_size = 32"):
        open_source(get_config(prepared, hr_size=32), "train")


def test_the_known_sets_can_be_prepared_too(tmp_path):
    source, ids = prepare.open_images("orl")
    assert len(source) == len(ids) == 400
    assert [source[i].id for i in (0, 399)] == [ids[0], ids[-1]]


def test_of_few_photographs_one_is_held_out_whole():
    ids = [f"p{photo}.png#1,{row},0" for photo in range(4) for row in range(6)]
    assert not any(map(is_held_out, ids))
    held_out = records._held_out(ids, ())
    assert len({id.partition("#")[0] for id in held_out}) == 1
    assert len(held_out) == 6


def test_files_that_were_replaced_are_noticed(tmp_path):
    write_photographs(tmp_path / "in", 3)
    make(str(tmp_path / "in"), tmp_path / "out")
    again = make(str(tmp_path / "in"), tmp_path / "out")
    assert again.images == 3
    shutil.copytree(tmp_path / "in", tmp_path / "copy")  # with other times
    shutil.rmtree(tmp_path / "in")
    shutil.copytree(tmp_path / "copy", tmp_path / "in", copy_function=shutil.copyfile)
    make(str(tmp_path / "in"), tmp_path / "out")
    name = min((tmp_path / "in").rglob("*.png"))
    with Image.open(name) as image:
        image.rotate(180).save(name)
    with pytest.raises(UserError, match=r"was begun with other settings .*images: "):
        make(str(tmp_path / "in"), tmp_path / "out")


def test_a_remote_shard_that_was_prepared_anew_is_fetched_anew_into_a_private_folder(
    prepared, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    place = shutil.copytree(prepared, tmp_path / "bucket")
    first = records.Records(epath.Path(place), 3)[0].pixels
    shard = sorted(place.glob("*.array_record"))[0]
    other = sorted(place.glob("*.array_record"))[1]
    size = shard.stat().st_size
    data = other.read_bytes().ljust(size, b"\0")[:size]  # of the same size
    shard.write_bytes(data)
    os.utime(shard, (2e9, 2e9))
    copies = list((tmp_path / "cache").rglob(f"*{shard.name}"))
    assert [path.parent.stat().st_mode & 0o777 for path in copies] == [0o700]
    with contextlib.suppress(arrays.ImageError):  # it need not be readable: it is another
        assert not np.array_equal(records.Records(epath.Path(place), 3)[0].pixels, first)
    again = list((tmp_path / "cache").rglob(f"*{shard.name}"))
    assert [path.read_bytes() for path in again] == [data]


def test_what_was_prepared_in_a_bucket_is_taken_as_such(prepared, monkeypatch):
    data = config_lib.base().data
    monkeypatch.setattr(
        image_sets.paths, "parse", lambda place: epath.Path(prepared) if "gs:" in place else place
    )
    image_sets._point_at(data, "gs://bucket/prepared")
    assert data.source == "records"
