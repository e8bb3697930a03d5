"""Which file becomes which is decided before anything is loaded."""

import pytest

from sr3_jax.errors import UserError
from sr3_jax.images.files import STDIO
from sr3_jax.inference import plan as planning
from sr3_jax.inference.plan import Job, Naming
from sr3_jax.runtime.parallel import Shard
from tests.inference.pictures import ALL, make, picture, plan


@pytest.mark.fast
def test_one_file_becomes_the_named_file_in_the_named_format(tmp_path):
    source = picture(tmp_path / "a.png")
    assert plan([source], tmp_path / "new" / "b.jpg") == [Job(source, [tmp_path / "new" / "b.jpg"])]


@pytest.mark.fast
def test_one_file_and_a_folder_becomes_a_png_of_its_name_in_it(tmp_path):
    source = picture(tmp_path / "a.jpg")
    (tmp_path / "out.d").mkdir()
    assert plan([source], tmp_path / "out") == [Job(source, [tmp_path / "out" / "a.png"])]
    assert plan([source], tmp_path / "out.d") == [Job(source, [tmp_path / "out.d" / "a.png"])]


@pytest.mark.fast
def test_a_folder_keeps_its_tree_and_leaves_out_what_is_no_image(tmp_path):
    sources = [picture(tmp_path / "in" / name) for name in ("b/c.webp", "z.png")]
    (tmp_path / "in" / "notes.txt").write_text("no image")
    (tmp_path / "in" / ".hidden.png").write_bytes(b"")
    wanted = [
        Job(sources[0], [tmp_path / "out" / "b" / "c.png"]),
        Job(sources[1], [tmp_path / "out" / "z.png"]),
    ]
    assert plan([tmp_path / "in"], tmp_path / "out") == wanted


@pytest.mark.fast
def test_samples_are_numbered_from_one(tmp_path):
    source = picture(tmp_path / "a.png")
    assert plan([source], tmp_path / "b.webp", samples=2) == [
        Job(source, [tmp_path / "b-1.webp", tmp_path / "b-2.webp"])
    ]
    assert plan([tmp_path], tmp_path / "o", samples=2) == [
        Job(source, [tmp_path / "o" / "a-1.png", tmp_path / "o" / "a-2.png"])
    ]


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
    # 2.png and 2.jpg are of different shards, which call them alike
    picture(tmp_path / "in" / "2.jpg")
    found = [plan([tmp_path / "in"], out, shard=shard, overwrite=True) for shard in shards]
    names = sorted(job.outputs[0].name for some in found for job in some)
    assert names == ["0.png", "1.png", "2.jpg.png", "2.png.png", "3.png", "4.png"]


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
    assert plan([folder], folder / "large", shard=Shard(0, 2)) == [
        Job(source, [folder / "large" / "a.png"])
    ]
    for inputs, output in (
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
    assert plan(["-"], STDIO) == [Job(STDIO, [STDIO])]
    assert plan([sources[0]], STDIO) == [Job(sources[0], [STDIO])]
    for inputs, samples in ((sources, 1), (sources[:1], 2)):
        with pytest.raises(UserError, match="takes one image"):
            plan(inputs, STDIO, samples=samples)


@pytest.mark.fast
def test_equal_stems_keep_their_suffixes_and_the_others_do_not(tmp_path):
    make(tmp_path, "in/IMG_1.jpg", "in/IMG_1.png", "in/b/IMG_1.png", "in/IMG_2.png")
    names = [
        job.outputs[0].relative_to(tmp_path / "out")
        for job in plan([tmp_path / "in"], tmp_path / "out")
    ]
    assert sorted(map(str, names)) == ["IMG_1.jpg.png", "IMG_1.png.png", "IMG_2.png", "b/IMG_1.png"]


@pytest.mark.fast
def test_links_are_followed_once_and_hidden_folders_and_the_output_are_left_out(tmp_path):
    make(tmp_path, "in/a.png", "elsewhere/b.png", "in/.thumbnails/a.png", "in/large/a.png")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "in")
    jobs = plan([tmp_path / "in"], tmp_path / "in" / "large", overwrite=True)
    found = [job.source.relative_to(tmp_path / "in").as_posix() for job in jobs]
    assert found == ["a.png", "link/b.png"]


@pytest.mark.fast
def test_images_of_formats_that_are_not_read_are_named(tmp_path):
    make(tmp_path, "in/a.png")
    for name in ("b.heic", "c.CR2", "notes.txt"):
        (tmp_path / "in" / name).touch()
    made = planning.plan([str(tmp_path / "in")], str(tmp_path / "out"))
    assert len(made.jobs) == 1
    (note,) = made.notes
    assert note.endswith("2 left out, of formats that are not read: b.heic, c.CR2")


@pytest.mark.fast
def test_a_slash_at_the_end_names_a_folder_and_another_format_its_suffix(tmp_path):
    (source,) = make(tmp_path, "a.png")
    naming = Naming(planning.checked_suffix("JPG"))
    made = planning.plan([str(source)], f"{tmp_path}/run.1/", naming)
    assert made.jobs == [Job(source, [tmp_path / "run.1" / "a.jpg"])]
    assert made.folder == tmp_path / "run.1"
    assert planning.plan([str(source)], f"{tmp_path}/b.png").folder is None
    with pytest.raises(UserError, match="--format=xyz: no image format is called so; use png"):
        planning.checked_suffix("xyz")


@pytest.mark.fast
def test_names_that_would_meet_keep_more_of_what_they_are(tmp_path):
    make(tmp_path, "in/a.jpg", "in/a.png", "in/a.jpg.gif")
    outputs = [job.outputs[0].name for job in plan([tmp_path / "in"], tmp_path / "out")]
    assert sorted(outputs) == ["a.jpg.gif.png", "a.jpg.png", "a.png.png"]


@pytest.mark.fast
def test_a_file_that_is_given_twice_is_done_once(tmp_path):
    (source,) = make(tmp_path, "a.png")
    jobs = plan([source, source, tmp_path / "." / "a.png"], tmp_path / "out")
    assert [job.source for job in jobs] == [source]


@pytest.mark.fast
def test_what_a_folder_holds_and_cannot_be_read_is_named(tmp_path):
    make(tmp_path, "in/a.png")
    (tmp_path / "in" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "in" / "b.heic").write_bytes(b"")
    found = planning.plan([str(tmp_path / "in")], str(tmp_path / "out"))
    assert found.notes == [
        f"{tmp_path / 'in'}: 1 left out, of formats that are not read: b.heic",
        f"{tmp_path / 'in'}: 1 left out, which cannot be read: gone.png",
    ]
    (tmp_path / "in" / "a.png").unlink()
    with pytest.raises(UserError, match=r"holds no images that are read; .*not read: b\.heic"):
        planning.plan([str(tmp_path / "in")], str(tmp_path / "out"))
