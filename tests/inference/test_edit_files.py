"""`sr3 edit` on files and folders: what is known stays, and nothing is lost."""

import json

import numpy as np
import pytest
from PIL import Image, ImageCms

from sr3_jax import cli, weights
from sr3_jax.checkpoints.exported import export
from sr3_jax.images import files as image_files
from sr3_jax.runtime import parallel
from sr3_jax.tasks.editing import LUMA
from tests.tiny import random_checkpoint, tiny_config

RNG = np.random.default_rng(0)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    monkeypatch.setattr(parallel, "start", lambda config=None: None)


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Exported files of tiny networks, by what they do."""
    folder = tmp_path_factory.mktemp("networks")
    for kind in ("colourise", "inpaint", "restore"):
        config = tiny_config(channels=3)
        config.task.kind = "blind" if kind == "restore" else kind
        config.data.lr_size = config.data.hr_size
        config.model.predict_residual = kind != "inpaint"
        if kind == "restore":
            config.task.update({"blur": 2.0, "noise": 20.0, "jpeg": 60.0})
            config.task.update({"tell_blur": True, "tell_noise": True, "tell_jpeg": True})
        export(random_checkpoint(config, kind), folder / f"{kind}.safetensors")
    return folder


@pytest.fixture
def edit(networks, tmp_path, capsys):
    def run(task, *words, network=None):
        place = networks / f"{network or task}.safetensors"
        arguments = ["edit", f"--task={task}", f"--checkpoint={place}", *map(str, words)]
        code = cli.main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def photo(path, size=(45, 70), channels=3, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = RNG.integers(0, 256, (*size, channels), np.uint8)
    Image.fromarray(values[..., 0] if channels == 1 else values).save(path, **how)
    return path


def mask(path, *boxes, size=(45, 70)):
    path.parent.mkdir(parents=True, exist_ok=True)
    hole = np.zeros(size, np.uint8)
    for top, bottom, left, right in boxes:
        hole[top:bottom, left:right] = 255
    Image.fromarray(hole).save(path)
    return path


def pixels(path):
    return np.asarray(Image.open(path))


def test_a_grey_file_gets_colours_and_keeps_its_luma_and_metadata(edit, tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "maker"
    given = photo(tmp_path / "a.jpg", channels=1, quality=95, exif=exif, dpi=(72, 72))
    code, out, err = edit("colourise", given, "-o", tmp_path / "b.png")
    assert (code, out, err.strip()) == (0, f"{tmp_path / 'b.png'}\n", "")
    made = pixels(tmp_path / "b.png")
    assert made.shape == (45, 70, 3)
    assert np.abs(made @ LUMA - pixels(given)).max() <= 1.5
    assert np.ptp(made.astype(int), axis=-1).max() > 5
    assert Image.open(tmp_path / "b.png").getexif()[0x010F] == "maker"


def test_what_a_colour_file_loses_is_said(edit, tmp_path):
    given = photo(tmp_path / "a.png", icc_profile=SRGB)
    code, _, err = edit("colourise", given, "-o", tmp_path / "b.png")
    assert code == 0
    assert "a.png: its own colours are given up: only its brightness is used" in err
    assert Image.open(tmp_path / "b.png").info["icc_profile"] == SRGB


def test_a_grey_profile_does_not_stay_with_colours(edit, tmp_path):
    # a profile of a grey device, by its header; whoever applies it to colours is misled
    grey = bytearray(SRGB)
    grey[16:20] = b"GRAY"
    given = photo(tmp_path / "a.png", channels=1, icc_profile=bytes(grey))
    code, _, err = edit("colourise", given, "-o", tmp_path / "b.png")
    assert code == 0
    assert "its grey profile was left out: it has colours" in err
    assert "icc_profile" not in Image.open(tmp_path / "b.png").info


def test_a_deep_file_with_alpha_stays_deep_around_the_hole(edit, tmp_path):
    values = RNG.integers(0, 65536, (45, 70, 4), np.uint16)
    values[..., 3] = 65535
    source = tmp_path / "a.tiff"
    import tifffile

    tifffile.imwrite(source, values, photometric="rgb", extrasamples=["unassalpha"])
    hole = mask(tmp_path / "m.png", (10, 20, 30, 44))
    code, _, err = edit("inpaint", source, f"--mask={hole}", "-o", tmp_path / "b.tiff")
    assert code == 0, err
    made = tifffile.imread(tmp_path / "b.tiff")
    inside = pixels(hole) > 0
    np.testing.assert_array_equal(made[~inside], values[~inside])
    assert (made[inside] != values[inside]).any(-1).mean() > 0.5


def test_a_folder_takes_one_mask_for_all_or_one_for_each(edit, tmp_path):
    for name in ("a.png", "b.jpg"):
        photo(tmp_path / "in" / name)
    one = mask(tmp_path / "m.png", (0, 9, 0, 9))
    assert edit("inpaint", tmp_path / "in", f"--mask={one}", "-o", tmp_path / "one")[0] == 0
    mask(tmp_path / "masks" / "a.png", (0, 9, 0, 9))
    mask(tmp_path / "masks" / "b.png", (30, 40, 50, 60))
    each = f"--mask={tmp_path / 'masks'}"
    assert edit("inpaint", tmp_path / "in", each, "-o", tmp_path / "each")[0] == 0
    np.testing.assert_array_equal(
        pixels(tmp_path / "one" / "a.png"), pixels(tmp_path / "each" / "a.png")
    )
    given, made = pixels(tmp_path / "in" / "b.jpg"), pixels(tmp_path / "each" / "b.png")
    np.testing.assert_array_equal(made[:30], given[:30])
    assert (made[30:40, 50:60] != given[30:40, 50:60]).any()


def test_a_mask_that_changed_is_another_result(edit, tmp_path):
    photo(tmp_path / "in" / "a.png")
    hole = mask(tmp_path / "m.png", (0, 9, 0, 9))
    words = (tmp_path / "in", f"--mask={hole}", "-o", tmp_path / "out", "--skip-existing")
    assert edit("inpaint", *words)[0] == 0
    code, out, err = edit("inpaint", *words)
    assert (code, out) == (0, "")
    assert "1 of 1 images were there already" in err
    mask(hole, (0, 9, 0, 12))
    code, _, err = edit("inpaint", *words)
    assert code == 2
    assert "was not made from this image by this network and these settings" in err
    assert edit("inpaint", *words[:-1], "--overwrite")[0] == 0


def test_masks_inside_the_folder_of_the_images_are_not_images(edit, tmp_path):
    photo(tmp_path / "in" / "a.png")
    mask(tmp_path / "in" / "masks" / "a.png", (0, 9, 0, 9))
    words = (tmp_path / "in", f"--mask={tmp_path / 'in' / 'masks'}", "-o", tmp_path / "out")
    code, out, err = edit("inpaint", *words)
    assert (code, out) == (0, f"{tmp_path / 'out' / 'a.png'}\n"), err


def test_two_images_do_not_share_a_mask_of_a_folder_unnoticed(edit, tmp_path):
    for name in ("b/1.png", "c/1.png"):
        photo(tmp_path / "in" / name)
    mask(tmp_path / "masks" / "1.png", (0, 9, 0, 9))
    words = (tmp_path / "in", f"--mask={tmp_path / 'masks'}", "-o", tmp_path / "out")
    code, _, err = edit("inpaint", *words)
    assert code == 2
    assert "would both get the mask" in err


def test_margins_samples_and_json(edit, tmp_path):
    given = photo(tmp_path / "a.png")
    words = (given, "-o", tmp_path / "b.png", "--margin=4,3,2,1", "--samples=2", "--json")
    code, out, _ = edit("uncrop", *words, network="inpaint")
    assert code == 0
    first, second = json.loads(out)
    assert (first["width"], first["height"]) == (74, 51)
    made = [pixels(each["output"]) for each in (first, second)]
    for each in made:
        np.testing.assert_array_equal(each[4:49, 1:71], pixels(given))
    assert (made[0][:4] != made[1][:4]).any()


def test_one_number_is_a_margin_all_around(edit, tmp_path):
    given = photo(tmp_path / "a.png")
    assert edit("uncrop", given, "-o", tmp_path / "b.png", "--margin=5", network="inpaint")[0] == 0
    assert pixels(tmp_path / "b.png").shape == (55, 80, 3)


@pytest.mark.parametrize("task", ["restore", "deblur", "denoise", "restore_jpeg"])
def test_flaws_are_removed_and_all_four_tasks_share_a_network(edit, tmp_path, task):
    given = photo(tmp_path / "a.png")
    told = ["--noise=5"] if task in ("restore", "denoise") else []
    code, _, err = edit(task, given, "-o", tmp_path / "b.png", *told, network="restore")
    assert code == 0, err
    assert pixels(tmp_path / "b.png").shape == (45, 70, 3)
    assert (pixels(tmp_path / "b.png") != pixels(given)).any()


REFUSED = {
    "no mask": (("inpaint",), "--task=inpaint needs --mask=FILE"),
    "a mask that is not there": (("inpaint", "--mask={t}/none.png"), "none.png does not exist"),
    "a mask of another size": (
        ("inpaint", "--mask={t}/small.png"),
        "small.png is 20×10, and the image 70×45: they must be of one size",
    ),
    "a mask without a hole": (("inpaint", "--mask={t}/empty.png"), "empty.png has no hole"),
    "a mask that is all hole": (("inpaint", "--mask={t}/full.png"), "full.png is all hole"),
    "a mask that is no image": (("inpaint", "--mask={t}/text.png"), "text.png"),
    "a folder without this mask": (
        ("inpaint", "--mask={t}/masks"),
        "has no mask for {t}/a.png: none is called a",
    ),
    "a folder with two masks": (
        ("inpaint", "--mask={t}/both"),
        "has 2 masks for {t}/a.png: a.png, a.tiff",
    ),
    "a mask that would be lost": (
        ("inpaint", "--mask={t}/m.png", "--overwrite", "--output={t}/m.png"),
        "m.png is a mask, which would be lost",
    ),
    "no margin": (("uncrop",), "--task=uncrop needs --margin=T,R,B,L"),
    "three margins": (("uncrop", "--margin=1,2,3"), "--margin=1,2,3 must be one number"),
    "no margins at all": (("uncrop", "--margin=0"), "--margin=0 must be one number"),
    "a negative margin": (("uncrop", "--margin=-1,0,0,0"), "must be one number of pixels"),
    "margins for which there is no memory": (
        ("uncrop", "--margin=99999"),
        "GiB of memory, and there are",
    ),
    "a mask to colourise": (
        ("colourise", "--mask={t}/m.png"),
        "--mask is for inpaint and uncrop, not for --task=colourise",
    ),
    "noise to colourise": (("colourise", "--noise=3"), "--noise=3 is for restore, deblur"),
    "noise to deblur": (
        ("deblur", "--noise=3"),
        "--noise=3 does not go with --task=deblur, which removes something else",
    ),
    "more noise than was learned": (("denoise", "--noise=500"), "noise = 500 must lie between"),
    "an unknown task": (
        ("sharpen",),
        "'sharpen' is not one of 'colourise', 'inpaint', 'uncrop', 'restore'",
    ),
}
NETWORKS = {"uncrop": "inpaint", "deblur": "restore", "denoise": "restore", "sharpen": "restore"}


@pytest.mark.parametrize(("words", "sentence"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_one_sentence(edit, tmp_path, words, sentence):
    given = photo(tmp_path / "a.png")
    mask(tmp_path / "m.png", (0, 9, 0, 9))
    mask(tmp_path / "small.png", (0, 9, 0, 9), size=(10, 20))
    mask(tmp_path / "empty.png")
    mask(tmp_path / "full.png", (0, 45, 0, 70))
    (tmp_path / "text.png").write_text("no image")
    mask(tmp_path / "masks" / "other.png", (0, 9, 0, 9))
    for name in ("a.png", "a.tiff"):
        mask(tmp_path / "both" / name, (0, 9, 0, 9))
    task, *more = (word.format(t=tmp_path) for word in words)
    if not any(word.startswith("--output") for word in more):
        more.append(f"--output={tmp_path / 'b.png'}")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    code, out, err = edit(task, given, *more, network=NETWORKS.get(task))
    assert (code, out) == (2, "")
    assert sentence.format(t=tmp_path) in err
    assert len(err.strip().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_a_checkpoint_of_another_task_is_refused_by_its_name(edit, tmp_path):
    given = photo(tmp_path / "a.png")
    code, _, err = edit("colourise", given, "-o", tmp_path / "b.png", network="inpaint")
    assert code == 2
    assert "is a network for inpaint, and --task=colourise takes one for colourise" in err


def test_that_no_network_is_shipped_is_said_with_what_trains_one(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(weights, "shipped", lambda: ["photos-4x"])
    given = photo(tmp_path / "a.png")
    code = cli.main(["edit", str(given), "--task=deblur", "-o", str(tmp_path / "b.png")])
    assert code == 2
    sentence = (
        "sr3: --task=deblur needs --checkpoint: no weights for restore are in the package yet"
    )
    assert sentence in capsys.readouterr().err


def test_one_bad_mask_does_not_stop_the_others(edit, tmp_path):
    for name in ("a.png", "b.png"):
        photo(tmp_path / "in" / name)
    mask(tmp_path / "masks" / "a.png", (0, 9, 0, 9))
    mask(tmp_path / "masks" / "b.png")
    words = (tmp_path / "in", f"--mask={tmp_path / 'masks'}", "-o", tmp_path / "out")
    code, out, err = edit("inpaint", *words)
    assert (code, out) == (2, f"{tmp_path / 'out' / 'a.png'}\n")
    assert "b.png has no hole: nothing in it is white" in err
    assert image_files.read(tmp_path / "out" / "a.png").picture.colour.shape == (45, 70, 3)
