"""Shards of an evaluation: many machines, one folder, the numbers of a single run."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from sr3_jax import cli
from sr3_jax.errors import UserError
from sr3_jax.evaluation import image_sets, measure, parts, runs, small_files
from sr3_jax.evaluation.measure import Unfinished
from sr3_jax.evaluation.protocols import PROTOCOLS, Options
from sr3_jax.images import arrays
from sr3_jax.metrics.networks.inception import Outputs
from sr3_jax.runtime import parallel
from sr3_jax.runtime.atomic import write_new_text
from sr3_jax.runtime.parallel import Shard
from tests.tiny import random_checkpoint, tiny_config

RNG = np.random.default_rng(0)
SIZES = (12, 16, 12, 16, 16, 16, 12, 16)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Chunks of two images, JAX that runs already, and no LPIPS, which is slow."""
    monkeypatch.setattr(image_sets, "CHUNK", 2)
    monkeypatch.setattr(parallel, "start", lambda config=None: None)
    monkeypatch.setattr("sr3_jax.cli.evaluate.find_spec", lambda name: None)


@pytest.fixture
def place(tmp_path):
    """Eight images of two sizes, five chunks: references, and two methods' noisy versions."""
    for i, side in enumerate(SIZES):
        real = RNG.integers(0, 256, (side, side, 3))
        for name, noise in (("real", 0), ("ours", 9), ("theirs", 40)):
            noisy = real + RNG.integers(-noise, noise + 1, real.shape)
            arrays.write(tmp_path / name / f"{i}.png", noisy.clip(0, 255).astype(np.uint8))
    return tmp_path


def evaluate(capsys, place, *flags):
    """(standard output, standard error) of comparing two methods with their references."""
    methods = [f"--images={name}={place / name}" for name in ("ours", "theirs")]
    code = cli.main(["evaluate", *methods, f"--reference={place / 'real'}", "--quiet", *flags])
    assert code == 0
    return capsys.readouterr()


def numbers(folder):
    """What results.json holds, but for the command."""
    results = json.loads((folder / "results.json").read_text())
    return {name: value for name, value in results.items() if name != "command"}


def test_the_shard_that_finds_all_chunks_writes_the_results_of_a_single_run(place, capsys):
    evaluate(capsys, place, f"--output={place / 'whole'}")
    folder = f"--output={place / 'shared'}"
    out, err = evaluate(capsys, place, folder, "--shard=3/3")
    assert out == ""
    assert err == (
        "sr3: 4 chunks are not measured yet, of --shard=1/3, 2/3; when all are, this command "
        "writes the results, called again with any --shard or without one\n"
    )
    files = {path: path.stat().st_mtime_ns for path in (place / "shared/chunks").iterdir()}
    assert {path.name for path in files} == {"run.json", "000002.npz"}
    out, err = evaluate(capsys, place, folder, "--shard=1/3", "--json")
    assert (out, err.count("2 chunks are not measured yet, of --shard=2/3;")) == ("", 1)
    assert [path.name for path in (place / "shared").iterdir()] == ["chunks"]
    out, err = evaluate(capsys, place, folder, "--shard=2/3")
    assert "8 images" in out
    assert err == ""
    assert numbers(place / "shared") == numbers(place / "whole")
    assert all(path.stat().st_mtime_ns == time for path, time in files.items())
    assert len(numbers(place / "shared")["per_image"]["ours"]) == len(SIZES)


def test_any_shard_and_the_command_without_one_put_the_results_together(place, capsys):
    folder = place / "out"
    for shard in ("1/2", "2/2"):
        evaluate(capsys, place, f"--output={folder}", f"--shard={shard}")
    written = numbers(folder)
    for flags in (["--shard=1/2"], ["--shard=7/9"], []):
        assert (folder / "chunks").exists()  # a shard that comes again does nothing twice
        (folder / "results.json").unlink()
        evaluate(capsys, place, f"--output={folder}", *flags)
        assert numbers(folder) == written
    assert not (folder / "chunks").exists()


def test_a_shard_of_another_evaluation_is_refused(place, capsys):
    folder = f"--output={place / 'out'}"
    evaluate(capsys, place, folder, "--shard=1/2")
    methods = [f"--images=ours={place / 'ours'}", f"--reference={place / 'real'}"]
    assert cli.main(["evaluate", *methods, folder, "--shard=2/2"]) == 2
    assert "holds chunks of another evaluation" in capsys.readouterr().err


class StandIn:
    """In FID's place: colours and their variation."""

    name, resize = "stand-in", "none"

    def __call__(self, pixels):
        values = np.asarray(pixels, np.float32) / 255
        features = np.concatenate([values.mean((1, 2)), values.std((1, 2))], 1)
        return Outputs(features, features[:, :5] * 10)


def test_sets_of_generated_images_and_the_statistics_they_are_compared_with_are_shared_too(
    tmp_path,
):
    for name, level, count in (("ours", 120, 9), ("theirs", 60, 5), ("real", 99, 7)):
        for i in range(count):
            pixels = RNG.integers(0, 2 * level, (16, 16, 3)).astype(np.uint8)
            arrays.write(tmp_path / name / f"{i}.png", pixels)
    images = {name: tmp_path / name for name in ("ours", "theirs")}
    seen = {}

    def run(folder, shard):
        counts = seen[shard] = []
        reference = runs.statistics(
            tmp_path / "real", folder / "reference", StandIn(), lambda count: None, shard
        )
        assert reference.n == 7
        options = Options(images=images, inception=StandIn(), reference=reference, shard=shard)
        return runs.run(PROTOCOLS["table4"], [], folder, options, counts.append, counts.append)

    whole, _ = run(tmp_path / "whole", Shard())
    with pytest.raises(Unfinished, match="5 chunks are not measured yet, of --shard=1/2;"):
        run(tmp_path / "out", Shard(1, 2))
    results, _ = run(tmp_path / "out", Shard(0, 2))
    assert results["methods"] == whole["methods"]
    assert results["n"] == whole["n"] == 14
    for counts in seen.values():  # the total, then the images
        assert counts[0] == sum(counts[1:])
    assert sum(seen[Shard(1, 2)][1:]) == 6


def test_tables_of_one_chunk_go_to_different_shards_and_nothing_is_written_before_all_are_there(
    tmp_path, monkeypatch
):
    real = PROTOCOLS["photos-real"]
    protocol = replace(real, parts=real.parts[:2])
    monkeypatch.setattr(small_files, "FILES", {"skimage": {"rocket.jpg": (280, 130)}})
    monkeypatch.setattr(small_files, "SIDE", 32)
    config = tiny_config(channels=3, objective="regression")
    config.data.hr_size, config.data.lr_size = 16, 4
    config.model.middle_attention = False
    checkpoint = random_checkpoint(config)

    def run(folder, shard=Shard()):  # noqa: B008 (immutable)
        options = Options(limit=1, perceptual=False, shard=shard)
        return parts.run(protocol, [checkpoint], folder, options)

    run(tmp_path / "whole")
    out = tmp_path / "out"
    with pytest.raises(Unfinished, match="1 chunk is not measured yet, of --shard=1/2;"):
        run(out, Shard(1, 2))
    assert len(list(out.rglob("*.npz"))) == 1
    assert [*out.rglob("results.json"), *out.rglob("*.md"), *out.rglob("*.png")] == []
    assert run(out, Shard(0, 2))

    def files(folder):
        return sorted(folder.rglob("results.json"))

    def values(folder):
        """All but the seconds, which no two runs have in common."""
        return {
            file.relative_to(folder): without_seconds(numbers(file.parent))
            for file in files(folder)
        }

    assert len(files(out)) == 3
    assert values(out) == values(tmp_path / "whole")
    assert len(list(out.rglob("*.npz"))) == 2
    assert list((tmp_path / "whole").rglob("*.npz")) == []


def without_seconds(tree):
    if isinstance(tree, dict):
        return {
            key: without_seconds(value)
            for key, value in tree.items()
            if key != "seconds_per_megapixel"
        }
    return tree


@pytest.mark.fast
def test_of_shards_that_begin_together_one_writes_what_is_measured_and_the_others_agree_or_stop(
    tmp_path, monkeypatch
):
    place = tmp_path / "new" / "run.json"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: write_new_text(place, f"{i}" * 1000), range(8)))
    assert len(set(place.read_text())) == 1
    assert [path.name for path in place.parent.iterdir()] == ["run.json"]

    class Empty:
        about, scale = {"n": 0}, 1

        def chunks(self):
            return [[0], [1]]

        def load(self, places):
            return measure.Images([], None, None, [], ["gone"])

    # Another shard is about to write it, and does so before this one
    (tmp_path / "out" / "chunks").mkdir(parents=True)
    (tmp_path / "out" / "chunks" / ".sr3-0.json").write_text("{")
    with pytest.raises(Unfinished):
        measure.measure(Empty(), [], [], tmp_path / "out", shard=Shard(0, 2))
    with pytest.raises(UserError, match="no image could be measured: gone"):
        measure.measure(Empty(), [], [], tmp_path / "out", shard=Shard(1, 2))

    def too_late(path, text):
        write_new_text(path, '{"data": "another"}')
        write_new_text(path, text)

    monkeypatch.setattr(measure, "write_new_text", too_late)
    with pytest.raises(UserError, match="holds chunks of another evaluation"):
        measure.measure(Empty(), [], [], tmp_path / "other", shard=Shard(0, 2))
    assert len(list((tmp_path / "other" / "chunks").iterdir())) == 1
