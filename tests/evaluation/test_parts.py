"""photos-real: several tables at once, networks that are told, seconds, small files."""

import functools
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from sr3_jax import cli
from sr3_jax.checkpoints.exported import export
from sr3_jax.errors import UserError
from sr3_jax.evaluation import contenders, damage, parts, rows, runs, small_files
from sr3_jax.evaluation.contenders import Made, Network, Timed
from sr3_jax.evaluation.measure import interval
from sr3_jax.evaluation.protocols import PROTOCOLS, Options
from sr3_jax.images import arrays
from sr3_jax.inference.upscaler import Upscaler
from sr3_jax.runtime import parallel
from tests.tiny import random_checkpoint, tiny_config

REAL = PROTOCOLS["photos-real"]
PARTS = {part.name.partition("/")[2]: part for part in REAL.parts}
FEW = Options(limit=2, perceptual=False)  # of two photographs


@pytest.fixture(scope="module")
def blind():
    """4×, of unknown quality; its blur and noise are weaker than those of the level strong."""
    config = tiny_config(channels=3)
    config.data.hr_size, config.data.lr_size = 16, 4
    config.model.middle_attention = False
    task = config.task
    task.kind, task.blur, task.noise, task.jpeg = "blind", 0.5, 5.0, 60.0
    task.tell_blur, task.augment = True, 10.0
    return random_checkpoint(config)


def test_there_is_a_table_for_each_size_and_level():
    assert list(PARTS) == [
        f"{size}-{level}" for size in (256, 512) for level in ("clean", "mild", "medium", "strong")
    ]
    assert all(part.hr_size == 4 * part.lr_size for part in PARTS.values())


@pytest.mark.parametrize("size", [4, 8], ids=["the network's own size", "another"])
@pytest.mark.parametrize("level", ["strong", "mild", ""])
def test_a_network_that_is_told_gets_each_images_own_recipe(blind, monkeypatch, size, level):
    """At most as strong as it knows, and alike by itself and in a batch."""
    seen = {}

    def call(self, image, sampling=None, *, name="", signals, **options):
        seen[name] = dict(signals)
        return np.repeat(np.repeat(image, 4, 0), 4, 1)

    def batch(self, lr, ids, sampling=None, *, signals, **options):
        for i, name in enumerate(names):
            seen[name] = {key: float(values[i]) for key, values in signals.items()}
        return np.zeros((len(lr), 16, 16, 3), np.float32)

    monkeypatch.setattr(Upscaler, "__call__", call)
    monkeypatch.setattr(Upscaler, "batch", batch)
    names = [f"astronaut/0-{i}" for i in range(3)]
    one = Network(blind, "SR3, told", told=functools.partial(damage.told, level))
    one.make(np.zeros((3, size, size, 3), np.uint8), names, (4 * size, 4 * size))
    high = {signal.name: signal.high for signal in blind.method.task.signals}
    assert set(high) == {"blur", "noise", "jpeg", "augment"}
    del high["augment"]
    for name in names:
        how = damage.recipe(level, name) if level else None
        wanted = (
            {"blur": how.blur, "noise": how.noise, "jpeg": 100 - how.quality}
            if how
            else dict.fromkeys(high, 0)
        )
        assert seen[name] == {key: min(value, high[key]) for key, value in wanted.items()}
    assert set(one.about["told"]) == set(high)


def test_only_networks_that_know_signals_have_a_row_that_is_told(blind):
    plain = random_checkpoint(tiny_config(channels=3, objective="regression"))
    made = rows.own(PARTS["256-mild"], [plain, blind], Options())
    assert [one.rows[0] for one in made] == ["bicubic", "regression", "SR3", "SR3, told"]
    made = rows.own(PROTOCOLS["photos-mild"], [plain, blind], Options())
    assert [one.rows[0] for one in made] == ["bicubic", "nearest", "regression", "SR3"]


def test_intervals_are_over_photographs_and_not_over_their_squares(tmp_path):
    part = PARTS["256-clean"]
    runs.export(part, tmp_path, Options())
    options = Options(images={"same": tmp_path / "reference"}, perceptual=False)
    results, _ = runs.run(part, [], tmp_path / "out", options)
    values = {id: scores["psnr"] for id, scores in results["per_image"]["bicubic"].items()}
    groups = [id.partition("/")[0] for id in values]
    assert (len(values), len(set(groups))) == (15, 7)
    squares = np.array(list(values.values()))
    low, high = results["intervals"]["bicubic"]["psnr"]
    assert (low, high) == interval(squares, groups=groups)
    rng = np.random.default_rng(5)
    of = [squares[np.array(groups) == name] for name in dict.fromkeys(groups)]
    means = [np.concatenate([of[i] for i in rng.integers(7, size=7)]).mean() for _ in range(4000)]
    assert (low, high) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.15)
    by_square = interval(squares)
    assert high - low > 1.1 * (by_square[1] - by_square[0])
    assert results["intervals_over"] == "photographs"


@pytest.mark.fast
def test_squares_of_one_photograph_tell_of_it_alone():
    values = np.repeat([1.0, 2.0, 4.0, 8.0], 100)
    groups = np.repeat(list("abcd"), 100).tolist()
    assert interval(values, groups=groups) == interval(values[::100])
    assert interval(values, groups=["a"] * 400) == (3.75, 3.75)


def test_photographs_too_small_for_512_are_left_out_and_named(tmp_path):
    part = PARTS["512-mild"]
    count = runs.export(part, tmp_path, Options())
    assert count == 3
    options = Options(images={"same": tmp_path / "reference"}, perceptual=False)
    results, _ = runs.run(part, [], tmp_path / "out", options)
    assert set(results["recipes"]) == {"astronaut/0-0", "camera/0-0", "grace_hopper/0-0"}
    said = "coffee is 600×400, without room for a square of 512"
    assert said in results["left_out"]
    assert len(results["left_out"]) == 6


class Stub:
    """Doubles pixels, and counts how often."""

    def __init__(self):
        self.about, self.rows, self.seen = {"stub": True}, ["stub"], []

    def make(self, lr, ids, size):
        self.seen.append(list(ids))
        return Made({"stub": np.repeat(np.repeat(lr, 2, 1), 2, 2)})


@pytest.mark.fast
def test_a_timed_contender_makes_the_same_images_one_by_one_and_the_first_of_a_size_twice():
    stub, lr = Stub(), np.arange(3 * 16 * 3, dtype=np.uint8).reshape(3, 4, 4, 3)
    timed = Timed(stub)
    for _ in range(2):
        made = timed.make(lr, ["a", "b", "c"], (8, 8))
    assert stub.seen == [["a"], ["a"], ["b"], ["c"], ["a"], ["b"], ["c"]]
    np.testing.assert_array_equal(made.images["stub"], np.repeat(np.repeat(lr, 2, 1), 2, 2))
    assert made.seconds["stub"].shape == (3,)
    assert (made.seconds["stub"] > 0).all()


@pytest.mark.fast
def test_a_methods_seconds_are_read_beside_or_above_its_images(tmp_path):
    files = {"a/0-0": tmp_path / "mild" / "a" / "0-0.png"}
    arrays.write(files["a/0-0"], np.zeros((8, 8, 3), np.uint8))
    assert contenders.seconds(tmp_path / "mild", files) is None
    (tmp_path / "seconds.json").write_text(json.dumps({"mild/a/0-0.png": 0.25}))
    found = contenders.seconds(tmp_path / "mild", files)
    assert found == {"a/0-0": 0.25}
    made = contenders.Folder("x", files, found).make(
        np.zeros((1, 2, 2, 3), np.uint8), ["a/0-0"], (8, 8)
    )
    assert made.seconds["x"].tolist() == [0.25]
    missing = files | {"b": tmp_path / "mild" / "b.png"}
    assert contenders.seconds(tmp_path / "mild", missing) is None
    for text in ("{", "[1]", '{"mild/a/0-0.png": "long"}'):
        (tmp_path / "seconds.json").write_text(text)
        with pytest.raises(UserError, match=r"seconds\.json must hold the seconds of each image"):
            contenders.seconds(tmp_path / "mild", files)


def test_the_command_writes_every_table_a_summary_and_the_sheet_of_small_files(
    blind, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(parallel, "start", lambda config=None: None)
    monkeypatch.chdir(tmp_path)
    few = (PARTS["256-clean"], PARTS["256-medium"])
    monkeypatch.setitem(PROTOCOLS, "photos-real", replace(REAL, parts=few))
    monkeypatch.setattr(small_files, "FILES", {"skimage": {"rocket.jpg": (280, 130)}})
    monkeypatch.setattr(small_files, "SIDE", 32)
    monkeypatch.setattr("sr3_jax.cli.evaluate.find_spec", lambda name: None)  # of LPIPS: slow
    mine = tmp_path / "mine"
    mine.mkdir()
    Image.new("P", (20, 28), 7).save(mine / "tiny.gif")
    flags = ["evaluate", "--protocol=photos-real", "--limit=2", f"--data={mine}"]

    assert cli.main([*flags, "--export=given"]) == 0
    lr_files = (tmp_path / "given/lr").rglob("*.png")
    given = sorted(path.relative_to(tmp_path / "given/lr").as_posix() for path in lr_files)
    assert [name for name in given if name.startswith("small")] == [
        "small/rocket.png",
        "small/tiny.png",
    ]
    times = {}
    for name in given:
        lr = arrays.read(tmp_path / "given/lr" / name, 3).pixels
        arrays.write(tmp_path / "theirs" / name, np.repeat(np.repeat(lr, 4, 0), 4, 1))
        times[name] = 0.5
    (tmp_path / "theirs/seconds.json").write_text(json.dumps(times))
    capsys.readouterr()

    export(blind, tmp_path / "tiny.safetensors")
    command = [*flags, "--checkpoint=tiny.safetensors", "--output=out", "--quiet"]
    assert cli.main([*command, "--images=theirs=theirs"]) == 0
    out = capsys.readouterr().out
    assert "64 → 256, medium blur, noise and JPEG" in out
    summary = json.loads((tmp_path / "out/results.json").read_text())
    assert list(summary["parts"]) == ["256-clean", "256-medium"]
    assert summary["small"]["files"] == ["rocket", "tiny"]
    for name, table in summary["parts"].items():
        own = json.loads((tmp_path / "out" / name / "results.json").read_text())
        assert list(table["methods"]) == ["bicubic", "SR3", "SR3, told", "theirs", "HR"]
        times = {row: values for row, values in own["methods"].items() if row != "HR"}
        speed = {row: values["seconds_per_megapixel"] for row, values in times.items()}
        assert speed.pop("theirs") == pytest.approx(0.5 / 0.065536)
        assert all(seconds > 0 for seconds in speed.values())
        assert table["differences"]["of"] == "SR3"
        assert set(table["differences"]["minus"]) == {"bicubic", "SR3, told", "theirs", "HR"}
        assert set(own["recipes"]) == (set(own["per_image"]["SR3"]) if "medium" in name else set())
        assert not (tmp_path / "out" / name / "chunks").exists()
    text = (tmp_path / "out/table.md").read_text()
    assert "## public photographs 64 → 256, clean" in text
    assert (
        "SR3 minus its best rival, image by image, with 95 % intervals (bootstrap over photogr"
        in text
    )
    assert "against SR3, told" not in text
    # The file and three methods, 128 pixels each, beside 64 for the names
    assert arrays.read(tmp_path / "out/small.png", 3).pixels.shape == (
        24 + 2 * 128,
        64 + 4 * 128,
        3,
    )


def test_a_methods_folder_without_a_tables_images_is_refused_before_anything_is_measured(
    tmp_path, blind
):
    (tmp_path / "theirs" / "256-clean").mkdir(parents=True)
    with pytest.raises(UserError, match=r"has no 256-mild, .* --protocol=photos-real --export"):
        parts.run(REAL, [blind], tmp_path, replace(FEW, images={"theirs": tmp_path / "theirs"}))


def test_small_files_are_looked_at_before_anything_is_measured(tmp_path, blind):
    theirs = tmp_path / "theirs"
    for name in PARTS:
        (theirs / name).mkdir(parents=True)
    arrays.write(theirs / "small" / "rocket.png", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(UserError, match=r"has no small/china.*--export=DIR"):
        parts.run(REAL, [blind], tmp_path, replace(FEW, images={"theirs": theirs}))
    arrays.write(tmp_path / "mine" / "rocket.gif.png", np.zeros((8, 8, 3), np.uint8))
    arrays.write(tmp_path / "mine" / "rocket.png", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(UserError, match=r"rocket\.png has the name of a file that is shown"):
        parts.run(REAL, [blind], tmp_path, replace(FEW, data=str(tmp_path / "mine")))
    with pytest.raises(UserError, match=r"is of colour images, and grey is not"):
        parts.run(REAL, [random_checkpoint(tiny_config(), "grey")], tmp_path, FEW)
