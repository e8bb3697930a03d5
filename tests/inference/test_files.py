"""What goes wrong with one image does not stop the others, and nothing is lost."""

import io
import os
import re
import shutil
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from sr3_jax.errors import UserError
from sr3_jax.images import arrays
from sr3_jax.images import files as image_files
from sr3_jax.images.files import STDIO
from sr3_jax.inference import files, journal
from sr3_jax.inference.plan import Job
from sr3_jax.inference.sampling import Sampling
from sr3_jax.inference.upscaler import Upscaler
from sr3_jax.runtime import limits
from sr3_jax.runtime.parallel import Shard
from tests.inference.pictures import RNG, make, picture, plan


def upscale(checkpoint, jobs, folder=None, **options):
    own = {name: options.pop(name) for name in files.Options._fields if name in options}
    options = files.Options(Sampling().with_options(options), **own)
    return files.upscale_all(checkpoint, jobs, options, folder)


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
    assert upscale(regression.checkpoint, [Job(source, [tmp_path / "taken" / "a.png"])]) == 2
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
    monkeypatch.setattr(limits, "memory", lambda: 1_000_000)
    assert upscale(regression.checkpoint, plan([source], tmp_path / "out")) == 2
    assert re.search(
        r"a\.png is 100×100; 200×200 takes .* of memory, and there are",
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
        r"it would take 4\d GiB of memory"
    )
    assert re.search(words, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_standard_input_to_standard_output(regression, capfdbinary, monkeypatch, tmp_path):
    source = picture(tmp_path / "a.png")
    monkeypatch.setattr(files.sys, "stdin", SimpleNamespace(buffer=io.BytesIO(source.read_bytes())))
    assert upscale(regression.checkpoint, plan(["-"], STDIO)) == 0
    written = Image.open(io.BytesIO(capfdbinary.readouterr().out))
    assert (written.format, written.size, written.mode) == ("PNG", (16, 16), "L")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (MemoryError(), 2, "there is not enough memory"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory"), 2, "there is not enough memory"),
        (ZeroDivisionError("of ours"), 1, "ZeroDivisionError: of ours"),
        (OSError(28, "No space left on device"), 2, "No space left on device"),
    ],
)
def test_whatever_happens_to_one_image_the_others_are_made(
    tmp_path, grey, capsys, monkeypatch, error, code, words
):
    make(tmp_path, "in/a.png", "in/b.png", "in/c.png")
    made = Upscaler.picture

    def failing(self, given, name, *rest):
        if name == "a.png":
            raise error
        return made(self, given, name, *rest)

    monkeypatch.setattr(Upscaler, "picture", failing)
    assert upscale(grey.checkpoint, plan([tmp_path / "in"], tmp_path / "out")) == code
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["b.png", "c.png"]
    assert re.search(rf"sr3: .*a\.png: {words}", capsys.readouterr().err)


def test_what_cannot_be_written_is_found_before_the_network_is_run(
    tmp_path, grey, capsys, monkeypatch
):
    monkeypatch.setattr(Upscaler, "picture", lambda *_: pytest.fail("the network was run"))
    wide, small = tmp_path / "wide.png", picture(tmp_path / "a.png")
    arrays.write(wide, np.zeros((1, 8192, 1), np.uint8))
    (tmp_path / "file").touch()
    for source, output, words in (
        (wide, tmp_path / "b.webp", r"b\.webp: 16384×2 pixels are too many for WEBP"),
        (small, tmp_path / "file" / "b.png", r"b\.png cannot be written: .*file is not a folder"),
    ):
        assert upscale(grey.checkpoint, plan([source], output)) == 2
        assert re.search(words, capsys.readouterr().err)


def test_a_file_that_appears_meanwhile_stays_unless_it_may_be_replaced(
    tmp_path, grey, capsys, monkeypatch
):
    source, target = picture(tmp_path / "a.png"), tmp_path / "b.png"
    made = Upscaler.picture

    def meanwhile(self, *given):
        target.write_text("somebody else's")
        return made(self, *given)

    monkeypatch.setattr(Upscaler, "picture", meanwhile)
    assert upscale(grey.checkpoint, plan([source], target)) == 2
    assert target.read_text() == "somebody else's"
    assert "b.png has appeared meanwhile and was left as it is" in capsys.readouterr().err
    jobs = plan([source], target, overwrite=True)
    assert upscale(grey.checkpoint, jobs, overwrite=True) == 0
    assert arrays.read_size(target) == (16, 16)


def test_a_run_goes_on_after_a_kill_and_leaves_out_only_what_was_made_alike(tmp_path, grey, capsys):
    make(tmp_path, "in/a.png", "in/b.png", "in/c.png", "in/d.png")
    out = tmp_path / "out"
    jobs = plan([tmp_path / "in"], out)
    assert upscale(grey.checkpoint, jobs[:3], out, skip_existing=True) == 0
    before = {path: path.read_bytes() for path in out.glob("*.png")}
    (out / "b.png").write_bytes(before[out / "b.png"][:-5])  # cut by something else
    picture(tmp_path / "in" / "c.png", size=9)  # another image by now
    capsys.readouterr()
    assert upscale(grey.checkpoint, jobs, out, skip_existing=True) == 2
    said = capsys.readouterr()
    assert said.out.split() == [str(out / "d.png")]
    assert "1 of 4 images were there already" in said.err
    for name in "bc":
        assert re.search(rf"{name}\.png exists, and was not made from this image by", said.err)
    assert (out / "a.png").read_bytes() == before[out / "a.png"]
    # what is the default may be said
    said = {"scale": grey.scale, "steps": grey.checkpoint.config.sample.steps}
    assert upscale(grey.checkpoint, jobs[:1], out, skip_existing=True, **said) == 0
    # with other settings nothing counts as made
    assert upscale(grey.checkpoint, jobs[:1], out, skip_existing=True, seed=1) == 2
    assert "a.png exists, and was not made" in capsys.readouterr().err


def test_a_kill_at_any_moment_of_a_file_or_between_two_samples_loses_and_refuses_nothing(
    tmp_path, grey, capsys, monkeypatch
):
    make(tmp_path, "in/a.png", "in/b.png")
    out = tmp_path / "out"
    jobs = plan([tmp_path / "in"], out, samples=2)
    whole, original = {}, os.link
    for number in range(4):  # killed after so many files, before and after the last one's name
        for moment in ("os.replace", "after"):
            shutil.rmtree(out, ignore_errors=True)
            written = []
            with monkeypatch.context() as patch:

                def link(source, target, written=written, number=number, moment=moment):
                    if len(written) == number and moment == "os.replace":
                        raise KeyboardInterrupt  # nothing catches it, as a kill
                    original(source, target)
                    written.append(target)
                    if len(written) == number + 1 and moment == "after":
                        raise KeyboardInterrupt

                patch.setattr(os, "link", link)
                with pytest.raises(KeyboardInterrupt):
                    upscale(grey.checkpoint, jobs, out, samples=2, skip_existing=True)
            assert upscale(grey.checkpoint, jobs, out, samples=2, skip_existing=True) == 0
            found = {path.name: path.read_bytes() for path in out.glob("*.png")}
            whole = whole or found
            assert found == whole
            assert len(found) == 4
    with (out / journal.NAME).open("a") as file:
        file.write('{"file": "a-1.png", "by')  # a line that was cut off
    assert upscale(grey.checkpoint, jobs, out, samples=2, skip_existing=True) == 0


def test_two_runs_into_one_folder_share_the_work(tmp_path, grey, capsys, monkeypatch):
    make(tmp_path, *(f"in/{i}.png" for i in range(4)))
    out = tmp_path / "out"
    jobs = plan([tmp_path / "in"], out)
    made, seen = Upscaler.picture, []

    def beside(self, given, name, *rest):
        seen.append(name)
        if len(seen) == 2:  # in the middle of the second image a second run begins, and ends
            monkeypatch.setattr(journal, "claimed", lambda job, wait=False: claimed(job))
            second = upscale(grey.checkpoint, [*jobs[:1], *jobs[2:]], out, skip_existing=True)
            monkeypatch.setattr(journal, "claimed", claimed)
            assert second == 0
        return made(self, given, name, *rest)

    claimed = journal.claimed
    monkeypatch.setattr(Upscaler, "picture", beside)
    assert upscale(grey.checkpoint, jobs, out, skip_existing=True) == 0
    assert sorted(seen) == [f"{i}.png" for i in range(4)]
    assert len(list(out.glob("*.png"))) == 4
    assert not list(out.glob(".*.lock"))


def test_a_job_is_had_by_one_run_at_a_time(tmp_path):
    job = Job(tmp_path / "a.png", [tmp_path / "out" / "a.png"])
    with journal.claimed(job.outputs[0]) as own:
        assert own
        with journal.claimed(job.outputs[0]) as other:
            assert not other
    with journal.claimed(job.outputs[0]) as again:
        assert again


def test_frames_of_one_name_come_out_equal(tmp_path, grey):
    pixels = RNG.integers(0, 256, (8, 8, 1), np.uint8)
    for name in ("f1", "f2"):
        (tmp_path / "in").mkdir(exist_ok=True)
        arrays.write(tmp_path / "in" / f"{name}.png", pixels)
    for name, equal in ((None, False), ("film", True)):
        out = tmp_path / f"out {name}"
        assert upscale(grey.checkpoint, plan([tmp_path / "in"], out), name=name) == 0
        first, second = (arrays.read(out / f"f{i}.png", None).pixels for i in (1, 2))
        assert np.array_equal(first, second) == equal


def test_standard_input_goes_into_a_folder_too(regression, monkeypatch, tmp_path):
    source = picture(tmp_path / "a.png")
    monkeypatch.setattr(files.sys, "stdin", SimpleNamespace(buffer=io.BytesIO(source.read_bytes())))
    assert (
        upscale(regression.checkpoint, plan(["-"], f"{tmp_path}/out/"), folder=tmp_path / "out")
        == 0
    )
    assert Image.open(tmp_path / "out" / "stdin.png").size == (16, 16)


@pytest.mark.parametrize("happens", ["removed", "replaced"])
def test_an_image_that_goes_or_changes_while_it_is_enlarged_is_that_which_was_read(
    regression, monkeypatch, tmp_path, happens
):
    source = picture(tmp_path / "in" / "a.png")
    old, made = source.read_bytes(), Upscaler.picture

    def meanwhile(self, given, *rest):
        if happens == "removed":
            source.unlink()
        else:
            Image.new("L", (8, 8), 77).save(source)
        return made(self, given, *rest)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(Upscaler, "picture", meanwhile)
        assert upscale(regression.checkpoint, plan([tmp_path / "in"], out), folder=out) == 0
    result = (out / "a.png").read_bytes()
    if happens == "replaced":  # what is there is not made of what is there now
        jobs = plan([tmp_path / "in"], out, overwrite=True)
        assert upscale(regression.checkpoint, jobs, folder=out, skip_existing=True) == 2
    source.write_bytes(old)  # at another time: it is known by its content
    jobs = plan([tmp_path / "in"], out, overwrite=True)
    assert upscale(regression.checkpoint, jobs, folder=out, skip_existing=True) == 0
    assert (out / "a.png").read_bytes() == result


def test_names_of_any_bytes_are_enlarged(regression, tmp_path):
    name = os.fsdecode(b"\xff\xfe \xc3\xa9.png")
    source = picture(tmp_path / "in" / "a.png")
    source.rename(source.with_name(name))
    out = tmp_path / "out"
    assert upscale(regression.checkpoint, plan([tmp_path / "in"], out), folder=out) == 0
    assert (out / name).is_file()


def test_what_cannot_become_a_file_is_found_before_the_network_is_run(
    regression, monkeypatch, tmp_path, capsys
):
    source = picture(tmp_path / "a.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere" / "at all.png")
    monkeypatch.setattr(Upscaler, "picture", lambda *_: pytest.fail("the network was run"))
    for name, words in (
        ("folder.png", "it is a folder"),
        ("link.png", "a link that leads nowhere"),
    ):
        jobs = [Job(source, [tmp_path / name])]
        assert upscale(regression.checkpoint, jobs, overwrite=True) == 2
        assert words in capsys.readouterr().err
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / journal.NAME).mkdir()
    with pytest.raises(UserError, match="cannot be written to; give another --output"):
        upscale(regression.checkpoint, plan([source], f"{tmp_path}/out/"), folder=tmp_path / "out")


def test_a_folder_that_is_its_own_output_does_not_enlarge_its_results_again(regression, tmp_path):
    for name in ("a.jpg", "b.jpg"):
        picture(tmp_path / name)
    for _ in range(2):
        jobs = plan([tmp_path], tmp_path, overwrite=True)
        assert [job.source.name for job in jobs] == ["a.jpg", "b.jpg"]
        assert upscale(regression.checkpoint, jobs, folder=tmp_path, skip_existing=True) == 0
    assert Image.open(tmp_path / "a.png").size == (16, 16)


def test_a_device_without_an_end_is_not_read_until_memory_ends(monkeypatch):
    monkeypatch.setattr(limits, "memory", lambda: 2**22)
    with pytest.raises(UserError, match="/dev/zero gives more than"):
        image_files.load(Path("/dev/zero"))
