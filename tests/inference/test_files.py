"""Which file becomes which is decided before anything is loaded.

One bad file does not stop the others.
"""

import io
import re
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from sr3_jax.errors import UserError
from sr3_jax.images import arrays
from sr3_jax.inference import files
from sr3_jax.inference.sampling import Sampling
from sr3_jax.runtime.parallel import Shard

RNG = np.random.default_rng(0)
ALL = Shard()


def picture(path, size=8, channels=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays.write(path, RNG.integers(0, 256, (size, size, channels), np.uint8))
    return path


def plan(inputs, output, samples=1, overwrite=False, uncertainty=False, shard=ALL):
    return files.plan(
        [str(name) for name in inputs], output, overwrite, samples, uncertainty, shard
    )


@pytest.mark.fast
def test_one_file_becomes_the_named_file_in_the_named_format(tmp_path):
    source = picture(tmp_path / "a.png")
    assert plan([source], tmp_path / "new" / "b.jpg") == [(source, [tmp_path / "new" / "b.jpg"])]


@pytest.mark.fast
def test_one_file_and_a_folder_becomes_a_png_of_its_name_in_it(tmp_path):
    source = picture(tmp_path / "a.jpg")
    (tmp_path / "out.d").mkdir()
    assert plan([source], tmp_path / "out") == [(source, [tmp_path / "out" / "a.png"])]
    assert plan([source], tmp_path / "out.d") == [(source, [tmp_path / "out.d" / "a.png"])]


@pytest.mark.fast
def test_a_folder_keeps_its_tree_and_leaves_out_what_is_no_image(tmp_path):
    sources = [picture(tmp_path / "in" / name) for name in ("b/c.webp", "z.png")]
    (tmp_path / "in" / "notes.txt").write_text("no image")
    (tmp_path / "in" / ".hidden.png").write_bytes(b"")
    wanted = [
        (sources[0], [tmp_path / "out" / "b" / "c.png"]),
        (sources[1], [tmp_path / "out" / "z.png"]),
    ]
    assert plan([tmp_path / "in"], tmp_path / "out") == wanted


@pytest.mark.fast
def test_samples_are_numbered_from_one(tmp_path):
    source = picture(tmp_path / "a.png")
    assert plan([source], tmp_path / "b.webp", samples=2) == [
        (source, [tmp_path / "b-1.webp", tmp_path / "b-2.webp"])
    ]
    assert plan([tmp_path], tmp_path / "o", samples=2) == [
        (source, [tmp_path / "o" / "a-1.png", tmp_path / "o" / "a-2.png"])
    ]


def make(tmp_path, *names):
    return [picture(tmp_path / name) for name in names]


REFUSED = {
    "a missing input": (lambda t: ([t / "no.png"], t / "out"), "no.png does not exist"),
    "a missing input beside a good one": (
        lambda t: ([*make(t, "a.png"), t / "no.png"], t / "out"),
        "no.png does not exist",
    ),
    "an empty folder": (
        lambda t: ((t / "in").mkdir() or [t / "in"], t / "out"),
        "in holds no images",
    ),
    "two of one name": (
        lambda t: (make(t, "x/a.png", "y/a.png"), t / "out"),
        "x/a.png and .*y/a.png would both become .*a.png",
    ),
    "two that differ in the suffix": (
        lambda t: (make(t, "in/a.png", "in/a.jpg")[:0] or [t / "in"], t / "out"),
        "both become",
    ),
    "the same input twice": (lambda t: (make(t, "a.png") * 2, t / "out"), "both become"),
    "samples that meet another image": (lambda t: (make(t, "a.png", "a-1.png"), t / "out"), None),
    "an output that exists": (
        lambda t: (make(t, "a.png"), make(t, "b.png")[0]),
        "b.png exists; give --overwrite",
    ),
    "an output in a folder that exists": (
        lambda t: (make(t, "a.png"), make(t, "o/a.png")[0].parent),
        "a.png exists; give",
    ),
    "the input itself": (lambda t: (make(t, "a.png"), t / "a.png"), "a.png is an input"),
    "the input's folder": (
        lambda t: ([make(t, "in/a.png")[0].parent], t / "in"),
        "a.png is an input",
    ),
    "the input by another name": (
        lambda t: (make(t, "a.png"), t / "x" / ".." / "a.png"),
        "a.png is an input",
    ),
    "a suffix of no image": (
        lambda t: (make(t, "a.png"), t / "b.txt"),
        "no image format has the suffix '.txt'; use .png",
    ),
    "a file for a folder's images": (
        lambda t: ([make(t, "in/a.png")[0].parent], make(t, "b.png")[0]),
        "is a file; .* give a folder",
    ),
}


@pytest.mark.fast
@pytest.mark.parametrize(("arrange", "message"), REFUSED.values(), ids=REFUSED)
def test_a_plan_that_would_fail_or_lose_something_is_refused_before_anything_is_written(
    tmp_path, arrange, message
):
    (tmp_path / "x").mkdir()
    inputs, output = arrange(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    if message is None:
        plan(inputs, output)
    else:
        with pytest.raises(UserError, match=message):
            plan(inputs, output)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.fast
def test_overwrite_allows_to_replace_an_output_but_never_an_input(tmp_path):
    source, other = make(tmp_path, "a.png", "a-1.png")
    [job] = plan([source], tmp_path, samples=2, overwrite=True)
    assert job.outputs == [other, tmp_path / "a-2.png"]
    with pytest.raises(UserError, match=r"a-1\.png is an input"):
        plan([source, other], tmp_path, samples=2, overwrite=True)
    with pytest.raises(UserError, match=r"a\.png is an input"):
        plan([source], tmp_path, overwrite=True)


@pytest.mark.fast
def test_shards_plan_all_images_once_and_mind_no_outputs_but_their_own(tmp_path):
    names = [f"in/{i}.png" for i in range(5)]
    sources, out = make(tmp_path, *names), tmp_path / "out"
    shards = [Shard(index, 3) for index in range(3)]
    jobs = [plan([tmp_path / "in"], out, shard=shard) for shard in shards]
    assert [job.source for job in jobs[0]] == [sources[0], sources[3]]
    assert sorted(job for some in jobs for job in some) == plan([tmp_path / "in"], out)
    picture(out / "1.png")
    assert plan([tmp_path / "in"], out, shard=shards[0]) == jobs[0]
    with pytest.raises(UserError, match=r"1\.png exists; give --overwrite"):
        plan([tmp_path / "in"], out, shard=shards[1])
    assert plan([tmp_path / "in"], out, shard=shards[1], overwrite=True) == jobs[1]
    assert plan([tmp_path / "in"], out, shard=Shard(6, 7)) == []
    picture(tmp_path / "in" / "2.jpg")
    for shard in shards:  # 2.png and 2.jpg are of different shards, and each says so
        with pytest.raises(UserError, match="would both become"):
            plan([tmp_path / "in"], out, shard=shard)


@pytest.mark.fast
def test_shards_refuse_one_image_and_results_among_the_images(tmp_path):
    source, other = make(tmp_path, "in/a.png", "in/b/c.png")
    folder = tmp_path / "in"
    for inputs, output in (
        ([source], tmp_path / "out.png"),
        ([source], tmp_path / "out"),
        (["-"], tmp_path / "out.png"),
        (["-", other], tmp_path / "out"),
    ):
        with pytest.raises(
            UserError, match=r"--shard is for .*, not for (.*a\.png alone|standard input)"
        ):
            plan(inputs, output, shard=Shard(0, 2))
    for inputs, output in (
        ([folder], folder / "large"),
        ([folder / "*"], folder),
        ([source, other], folder),
        ([folder / "b"], folder),
    ):
        with pytest.raises(UserError, match="with --shard the images must lie outside of"):
            plan(inputs, output, samples=2, shard=Shard(0, 2))
    assert plan([source], tmp_path / "out.png", shard=ALL) != []


@pytest.mark.fast
def test_patterns_that_the_shell_left_alone_are_filled_in(tmp_path):
    sources = make(tmp_path, "a1.png", "a2.png", "b.png")
    (tmp_path / "a3.txt").write_text("no image")
    jobs = plan([tmp_path / "a*"], tmp_path / "out")
    assert [job.source for job in jobs] == sources[:2]
    with pytest.raises(UserError, match="matches no images"):
        plan([tmp_path / "c*"], tmp_path / "out")


@pytest.mark.fast
def test_the_mean_and_the_deviation_are_files_beside_the_samples(tmp_path):
    source = picture(tmp_path / "a.png")
    [job] = plan([source], tmp_path / "b.png", samples=2, uncertainty=True)
    assert [path.name for path in job.outputs] == [
        "b-1.png",
        "b-2.png",
        "b-mean.png",
        "b-deviation.png",
    ]


@pytest.mark.fast
def test_standard_output_takes_one_image(tmp_path):
    sources = make(tmp_path, "a.png", "b.png")
    assert plan(["-"], files.STDIO) == [(files.STDIO, [files.STDIO])]
    assert plan([sources[0]], files.STDIO) == [(sources[0], [files.STDIO])]
    for inputs, samples in ((sources, 1), (sources[:1], 2)):
        with pytest.raises(UserError, match="takes one image"):
            plan(inputs, files.STDIO, samples=samples)


def upscale(checkpoint, jobs, **options):
    own = {name: options.pop(name) for name in files.Options._fields if name in options}
    return files.upscale_all(
        checkpoint, jobs, files.Options(Sampling().with_options(options), **own)
    )


def test_one_bad_file_does_not_stop_the_others_and_the_exit_code_says_so(
    tmp_path, regression, capsys
):
    make(tmp_path, "in/a.png", "in/z.png")
    picture(tmp_path / "in" / "large.png", size=9)
    (tmp_path / "in" / "fake.png").write_text("no image")
    (tmp_path / "in" / "none.png").write_bytes(b"")
    whole = (tmp_path / "in" / "a.png").read_bytes()
    (tmp_path / "in" / "cut.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(RNG.integers(0, 256, (8, 8, 4), np.uint8)).save(tmp_path / "in" / "clear.png")
    jobs = plan([tmp_path / "in"], tmp_path / "out")
    code = upscale(regression.checkpoint, jobs)
    captured = capsys.readouterr()
    assert code == 2
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["a.png", "clear.png", "large.png", "z.png"]
    assert captured.out.split() == [str(tmp_path / "out" / name) for name in written]
    sizes = {path.name: arrays.read_size(path) for path in (tmp_path / "out").iterdir()}
    assert sizes == {
        "a.png": (16, 16),
        "clear.png": (16, 16),
        "large.png": (18, 18),
        "z.png": (16, 16),
    }
    errors = [line for line in captured.err.splitlines() if line.startswith("sr3: ")]
    names = ("cut", "fake", "none.*empty", "3 of 7")
    assert [bool(re.search(name, error)) for name, error in zip(names, errors, strict=True)] == [
        True
    ] * 4
    assert Image.open(tmp_path / "out" / "clear.png").mode == "RGBA"
    assert "Traceback" not in captured.err


def test_shards_write_what_one_run_writes_and_count_their_own_failures(
    tmp_path, grey, capsys, monkeypatch
):
    make(tmp_path, *(f"in/{i}.png" for i in range(4)))
    (tmp_path / "in" / "4.png").write_text("no image")
    assert upscale(grey.checkpoint, plan([tmp_path / "in"], tmp_path / "whole")) == 2
    assert "sr3: 1 of 5 images failed" in capsys.readouterr().err
    shards = [Shard(index, 2) for index in (1, 0)]
    # all plan before any writes, as machines that begin together
    planned = [plan([tmp_path / "in"], tmp_path / "out", shard=shard) for shard in shards]
    assert [upscale(grey.checkpoint, jobs) for jobs in planned] == [0, 2]
    assert "sr3: 1 of 3 images failed" in capsys.readouterr().err
    whole, parts = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("whole", "out")
    )
    assert len(whole) == 4
    assert parts == whole


def test_an_output_that_cannot_be_written_is_named(tmp_path, regression, capsys):
    source = picture(tmp_path / "a.png")
    (tmp_path / "taken").write_text("a file")
    assert upscale(regression.checkpoint, [files.Job(source, [tmp_path / "taken" / "a.png"])]) == 2
    assert re.search(r"sr3: .*taken/a\.png cannot be written", capsys.readouterr().err)
    assert (tmp_path / "taken").read_text() == "a file"


def test_samples_of_an_image_differ_and_are_those_of_the_upscaler_under_the_files_name(
    tmp_path, grey
):
    source = picture(tmp_path / "a.png")
    jobs = plan([source], tmp_path / "out", samples=2, uncertainty=True)
    assert upscale(grey.checkpoint, jobs, samples=2, seed=3, uncertainty=True) == 0
    written = [arrays.read(path, None).pixels.astype(int) for path in jobs[0].outputs]
    for sample in (0, 1):
        wanted = grey(arrays.read(source, None).pixels, name="a.png", seed=3, sample=sample)
        np.testing.assert_allclose(written[sample], wanted, atol=1)
    first, second, mean, deviation = written
    assert np.abs(first - second).max() > 5
    np.testing.assert_allclose(mean, (first + second) / 2, atol=1)
    # Of two numbers, with n - 1
    expected = np.abs(first - second) / np.sqrt(2) / 255 / files.WHITE * 255
    np.testing.assert_allclose(deviation, expected.clip(0, 255), atol=4)


def test_an_image_too_large_for_the_memory_is_refused_before_it_is_decoded(
    tmp_path, regression, capsys, monkeypatch
):
    source = picture(tmp_path / "a.png", size=100)
    monkeypatch.setattr(files.os, "sysconf", lambda name: 1000)
    assert upscale(regression.checkpoint, plan([source], tmp_path / "out")) == 2
    assert re.search(
        r"a\.png is 100×100; 200×200 takes .* of memory, and this machine has",
        capsys.readouterr().err,
    )


def test_an_image_of_more_pixels_than_can_be_read_is_refused_with_the_memory_it_would_take(
    tmp_path, regression, capsys
):
    file = io.BytesIO()
    Image.new("1", (8, 8)).save(file, "PNG")
    data = bytearray(file.getvalue())
    # a PNG's width and height, and the checksum of its header
    data[16:24] = (20_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(data)
    assert upscale(regression.checkpoint, plan([tmp_path / "a.png"], tmp_path / "out")) == 2
    words = (
        r"a\.png has 400 million pixels, too many to be read: "
        r"enlarged, they would take 4\d GiB of memory"
    )
    assert re.search(words, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_standard_input_to_standard_output(regression, capfdbinary, monkeypatch, tmp_path):
    source = picture(tmp_path / "a.png")
    monkeypatch.setattr(files.sys, "stdin", SimpleNamespace(buffer=io.BytesIO(source.read_bytes())))
    assert upscale(regression.checkpoint, plan(["-"], files.STDIO)) == 0
    written = Image.open(io.BytesIO(capfdbinary.readouterr().out))
    assert (written.format, written.size, written.mode) == ("PNG", (16, 16), "L")
