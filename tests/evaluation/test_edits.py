"""The protocol of edits: networks beside simple answers."""

import functools
import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from skimage import data, restoration

from sr3_jax import Editor, cli
from sr3_jax.checkpoints.exported import export
from sr3_jax.errors import UserError
from sr3_jax.evaluation import damage, edit_damage, edits, measure, parts, rows, runs, simple
from sr3_jax.evaluation.edit_damage import CORRUPTIONS
from sr3_jax.evaluation.protocols import EDITED, PROTOCOLS, Options
from sr3_jax.images import arrays
from sr3_jax.runtime import parallel
from tests.tiny import random_checkpoint, tiny_config

SIDE = 32
PHOTO = np.ascontiguousarray(data.astronaut()[40 : 40 + SIDE, 180 : 180 + SIDE])
SMALL = {"hr_size": SIDE, "lr_size": SIDE}
TABLES = {part.name.partition("/")[2]: replace(part, **SMALL) for part in PROTOCOLS["edit"].parts}
HOLES = ["inpaint-free_form", "inpaint-box", "uncrop"]
TWO = Options(limit=2, perceptual=False)


def checkpoint(kind, objective="sr3"):
    config = tiny_config(channels=3, objective=objective)
    config.data.lr_size = config.data.hr_size
    config.model.middle_attention = False
    task = config.task
    task.kind = "blind" if kind == "restore" else kind
    if kind == "restore":
        task.tell_blur, task.blur, task.noise, task.jpeg = True, 2.0, 50.0, 90.0
    config.model.predict_residual = kind != "inpaint"
    return random_checkpoint(config, f"{kind}-{objective}")


@pytest.fixture(scope="module")
def networks():
    return {kind: checkpoint(kind) for kind in ("colourise", "inpaint", "restore")}


@pytest.fixture(scope="module", autouse=True)
def shared():
    """Each network is compiled once, and the bootstrap is a short one."""
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "Editor", lambda one: made.setdefault(one.name, Editor(one)))
        patch.setattr(measure, "interval", functools.partial(measure.interval, draws=20))
        yield


@pytest.fixture(scope="module")
def measured(networks, tmp_path_factory):
    """All tables of two photographs, without the networks behind metrics."""
    folder = tmp_path_factory.mktemp("edit")
    protocol = replace(PROTOCOLS["edit"], parts=tuple(TABLES.values()))
    given = [*networks.values(), checkpoint("colourise", "regression")]
    with pytest.MonkeyPatch.context() as patch:
        # Slow, and looked at below
        patch.setattr(simple, "bm3d", simple.non_local_means_noise)
        patch.setattr(runs, "best_and_worst", lambda *arguments: None)
        results = parts.run(protocol, given, folder, replace(TWO, samples=2))
    return folder, results


@pytest.mark.fast
def test_there_is_a_table_for_each_edit():
    assert set(TABLES) == set(EDITED) < set(CORRUPTIONS)
    chosen = {part.name.partition("/")[2] for part in PROTOCOLS["validation-edit"].parts}
    assert chosen == set(TABLES)
    assert all(part.each == 3 for part in PROTOCOLS["validation-edit"].parts)


ROWS = {
    "colourise": ["grey", "SR3", "SR3, mean of 2", "regression"],
    **{name: [*simple.ANSWERS["inpaint"], "SR3", "SR3, mean of 2"] for name in HOLES},
    **{
        name: [
            *simple.ANSWERS[name],
            "SR3",
            "SR3, mean of 2",
            "SR3, told",
            "SR3, told, mean of 2",
        ]
        for name in damage.FLAWS
    },
}


@pytest.mark.parametrize("name", EDITED)
def test_every_table_has_its_rows_and_columns(measured, name):
    folder, results = measured
    table = results["parts"][name]
    references = ["HR"] if name == "colourise" else []
    assert list(table["methods"]) == [*_installed(ROWS[name]), *references]
    without_networks = ("lpips_vgg", "lpips_alexnet", "dists")
    wanted = set(TABLES[name].columns) - {*without_networks, "diversity_lpips"}
    several = {"diversity_deviation", "spread_to_error", "coverage"}
    for row, values in table["methods"].items():
        if row in references:
            assert values.keys() == {"colourfulness"}
            continue
        missing = wanted - several - values.keys()
        assert missing == ({"seconds_per_megapixel"} if "mean of" in row else set())
        assert "consistency_db" not in values
    assert several <= table["methods"]["SR3"].keys()
    assert table["differences"]["of"] == ("regression" if name == "colourise" else "SR3")
    own = json.loads((folder / name / "results.json").read_text())
    assert len(own["recipes"]) == 2
    text = (folder / name / "table.md").read_text()
    assert "minus its best rival, image by image" in text


def _installed(names):
    return [name for name in names if not name.startswith("BM3D") or not simple.missing("denoise")]


def test_the_summary_has_all_tables_and_no_small_files(measured):
    folder, results = measured
    text = (folder / "table.md").read_text()
    assert all(f"## {table.title}" in text for table in TABLES.values())
    assert "Small and compressed" not in text
    assert not (folder / "small.png").exists()
    assert "small" not in results


def test_what_is_measured_is_what_an_editor_makes(networks, tmp_path):
    id = "astronaut/0-0"
    for name in ("colourise", "inpaint-box", "uncrop", "denoise"):
        table = TABLES[name]
        given = CORRUPTIONS[table.damage].make(PHOTO, 1, id)
        *_, network = rows.own(table, list(networks.values()), Options(seed=3))
        made = network.make(given[None], [id], (SIDE, SIDE)).images[network.rows[0]][0]
        editor = rows.Editor(network.engine.checkpoint)
        if name == "colourise":
            wanted = editor(given, seed=3, name=id)
        elif name == "denoise":
            told = damage.told("denoise", id)
            assert (told["noise"] > 0, told["blur"], told["jpeg"]) == (True, 0, 0)
            wanted = editor(given, seed=3, name=id, **told)
        elif name == "inpaint-box":
            wanted = editor(PHOTO, mask=given[..., 3] == 0, seed=3, name=id)
        else:
            top, right, bottom, left = margin = edit_damage.margins(given[..., 3] == 0)
            inside = PHOTO[top : SIDE - bottom, left : SIDE - right]
            wanted = editor(inside, margin=margin, seed=3, name=id)
        np.testing.assert_array_equal(made, wanted)


@pytest.mark.parametrize("name", HOLES)
def test_known_pixels_stay_in_every_row(networks, name):
    given = CORRUPTIONS[name].make(PHOTO, 1, "one")
    known = given[..., 3] > 0
    assert (given[known][:, :3] == PHOTO[known]).all()
    assert (given[~known][:, :3] == 128).all()
    for one in rows.own(TABLES[name], [networks["inpaint"]], Options()):
        made = one.make(given[None], ["one"], (SIDE, SIDE)).images[one.rows[0]][0]
        np.testing.assert_array_equal(made[known], PHOTO[known], one.rows[0])
        assert (made[~known] != PHOTO[~known]).any()


def test_a_table_is_the_same_each_time_and_whatever_the_other_images(networks, tmp_path):
    table = TABLES["inpaint-box"]
    found = [
        runs.run(table, [networks["inpaint"]], tmp_path / str(limit), replace(TWO, limit=limit))
        for limit in (3, 3, 1)
    ]
    values = [results["per_image"] for results, _ in found]
    for row in values[0]:
        for id, scores in values[2][row].items():
            for metric in scores.keys() - {"seconds_per_megapixel"}:
                first, again = (found[row][id][metric] for found in values[:2])
                assert first == again
                # float32 sums are in another order for another number of images
                assert scores[metric] == pytest.approx(first, rel=1e-5)


def test_only_the_tables_for_which_there_is_a_network_are_measured(networks, tmp_path):
    protocol = replace(PROTOCOLS["edit"], parts=tuple(TABLES.values()))
    results = parts.run(protocol, [networks["colourise"]], tmp_path, TWO)
    assert list(results["parts"]) == ["colourise"]
    assert list(results["parts"]["colourise"]["methods"]) == ["grey", "SR3", "HR"]


@pytest.mark.fast
def test_a_checkpoint_of_another_task_is_refused_in_one_sentence(networks, tmp_path):
    other = random_checkpoint(tiny_config(channels=3), "enlarges")
    wanted = r"^enlarges is a network for super-resolution; to edit takes one for .* restore$"
    with pytest.raises(UserError, match=wanted):
        parts.run(PROTOCOLS["edit"], [networks["inpaint"], other], tmp_path, TWO)
    config = tiny_config()
    config.task.kind, config.data.lr_size = "inpaint", config.data.hr_size
    with pytest.raises(UserError, match="measured on colour images, and grey is not"):
        parts.run(PROTOCOLS["edit"], [random_checkpoint(config, "grey")], tmp_path, TWO)


@pytest.mark.fast
def test_photographs_of_another_kind_and_matching_are_refused(networks, tmp_path):
    given = [networks["inpaint"]]
    with pytest.raises(UserError, match="--protocol=edit has images of its own"):
        parts.run(PROTOCOLS["edit"], given, tmp_path, replace(TWO, data="somewhere"))
    with pytest.raises(UserError, match="--protocol=validation-edit needs --data"):
        parts.run(PROTOCOLS["validation-edit"], given, tmp_path, TWO)
    with pytest.raises(UserError, match="--match-input is for enlarged images"):
        parts.run(PROTOCOLS["edit"], given, tmp_path, replace(TWO, match_input=True))


@pytest.mark.parametrize("kind", edit_damage.KINDS)
@pytest.mark.fast
def test_holes_depend_on_the_id_alone_and_are_as_large_as_in_training(kind):
    found = [edit_damage.hole(kind, f"image/{i}", 96, 128) for i in range(200)]
    again = [edit_damage.hole(kind, f"image/{i}", 96, 128) for i in range(200)]
    np.testing.assert_array_equal(found, again)
    assert len({one.tobytes() for one in found}) > 150
    shares = np.array([one.mean() for one in found])
    assert ((shares > 0) & (shares < 0.8)).all()
    low, high = {"free_form": (0.1, 0.25), "box": (0.1, 0.18), "uncrop": (0.25, 0.5)}[kind]
    assert low < shares.mean() < high
    for one in found if kind == "uncrop" else ():
        top, right, bottom, left = edit_damage.margins(one)
        assert not one[top : 96 - bottom, left : 128 - right].any()
        assert one.sum() == 96 * 128 - (96 - top - bottom) * (128 - left - right)


@pytest.mark.parametrize("flaw", damage.FLAWS)
@pytest.mark.fast
def test_flaws_are_those_of_their_table(flaw):
    found = [damage.recipe(flaw, f"image/{i}") for i in range(200)]
    ranges = damage.FLAWS[flaw]
    for name in ("blur", "noise", "quality"):
        low, high = getattr(ranges, name)
        values = [getattr(one, name) for one in found]
        assert low <= min(values) <= max(values) <= high
        assert (max(values) > min(values)) == (high > low)
    made = damage.damaged(PHOTO, 1, found[0])
    assert made.shape == PHOTO.shape
    assert (made != PHOTO).any()
    none = found[0]._replace(blur=0.0, noise=0.0, quality=0)
    np.testing.assert_array_equal(damage.damaged(PHOTO, 1, none), PHOTO)
    assert {one.grey for one in found} == ({True, False} if flaw == "restore" else {False})


@pytest.mark.fast
def test_simple_answers_are_the_libraries_own():
    hole = edit_damage.hole("free_form", "one", SIDE, SIDE)
    mask = hole.astype(np.uint8)
    for found, wanted in (
        (simple.telea(PHOTO, hole, 5), cv2.inpaint(PHOTO, mask, 5, cv2.INPAINT_TELEA)),
        (simple.navier_stokes(PHOTO, hole, 5), cv2.inpaint(PHOTO, mask, 5, cv2.INPAINT_NS)),
        (
            simple.biharmonic(PHOTO, hole),
            np.rint(255 * restoration.inpaint_biharmonic(PHOTO, hole, channel_axis=-1)),
        ),
    ):
        np.testing.assert_array_equal(found, wanted)
        np.testing.assert_array_equal(found[~hole], PHOTO[~hole])
    # Colours are told apart as OpenCV has them, blue first
    wanted = cv2.fastNlMeansDenoisingColored(PHOTO[..., ::-1].copy(), None, 9, 6, 7, 21)
    np.testing.assert_array_equal(simple.non_local_means(PHOTO, 9, 6), wanted[..., ::-1])
    wanted = cv2.bilateralFilter(PHOTO, -1, 0.5 * 40, 2, borderType=cv2.BORDER_REFLECT)
    np.testing.assert_array_equal(simple.bilateral(PHOTO, 40, 0.5, 2), wanted)
    np.testing.assert_array_equal(simple.grey(PHOTO[..., :1])[..., 2], PHOTO[..., 0])


@pytest.mark.fast
def test_deconvolution_takes_a_blur_off_up_to_the_edges():
    photo = data.astronaut()[40:168, 180:308]
    blurred = cv2.GaussianBlur(photo, (0, 0), 1.5, borderType=cv2.BORDER_REPLICATE)
    before = np.square(blurred.astype(float) - photo).mean()
    for made in (simple.wiener(blurred, 1.5, 1.0), simple.unsupervised_wiener(blurred, 1.5)):
        assert np.square(made.astype(float) - photo).mean() < 0.6 * before
    kernel = simple.gaussian(1.5)
    assert kernel.sum() == pytest.approx(1)
    wide = np.pad(blurred / 255, ((24, 24), (24, 24), (0, 0)), mode="symmetric")
    wanted = restoration.wiener(wide[..., 1], kernel, simple.BALANCE * (2 / 255) ** 2)
    found = simple.wiener(blurred, 1.5, 2.0)[..., 1]
    np.testing.assert_array_equal(found, np.rint(255 * wanted.clip(0, 1))[24:-24, 24:-24])
    again = simple.unsupervised_wiener(blurred, 1.5)
    np.testing.assert_array_equal(again, simple.unsupervised_wiener(blurred, 1.5))


@pytest.mark.fast
def test_denoising_is_told_the_noise():
    noisy = CORRUPTIONS["denoise"].make(PHOTO, 1, "one")
    noise = damage.told("denoise", "one")["noise"]
    before = np.square(noisy.astype(float) - PHOTO).mean()
    for name, answer in simple.ANSWERS["denoise"].items():
        if name in _installed([name]) and name.endswith("told"):
            made = answer(noisy, {"noise": noise})
            assert np.square(made.astype(float) - PHOTO).mean() < 0.6 * before


@pytest.mark.fast
def test_what_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(simple, "find_spec", lambda name: name != "bm3d")
    assert "pip install bm3d" in simple.missing("denoise")["BM3D"]
    assert not simple.missing("deblur")
    made = simple.contenders("denoise", CORRUPTIONS["denoise"].told)
    assert not any("BM3D" in one.rows[0] for one in made)
    monkeypatch.setattr(simple, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs OpenCV and scikit-image; run: pip install 'sr3"):
        simple.contenders("denoise", CORRUPTIONS["denoise"].told)


def test_the_command_measures_and_another_method_joins_by_its_images(
    networks, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(parallel, "start", lambda config=None: None)
    monkeypatch.chdir(tmp_path)
    few = (TABLES["colourise"], TABLES["inpaint-box"])
    monkeypatch.setitem(PROTOCOLS, "edit", replace(PROTOCOLS["edit"], parts=few))
    monkeypatch.setattr("sr3_jax.cli.evaluate.find_spec", lambda name: None)  # of LPIPS: slow
    flags = ["evaluate", "--protocol=edit", "--limit=2"]
    assert cli.main([*flags, "--export=given"]) == 0
    for path in (tmp_path / "given/lr").rglob("*.png"):
        name = path.relative_to(tmp_path / "given/lr")
        reference = arrays.read(tmp_path / "given/reference" / name, 3).pixels
        arrays.write(tmp_path / "theirs" / name, reference)
    export(networks["inpaint"], tmp_path / "inpaint.safetensors")
    export(networks["colourise"], tmp_path / "colourise.safetensors")
    given = ["--checkpoint=inpaint.safetensors", "--checkpoint=colourise.safetensors"]
    command = [*flags, *given, "--images=theirs=theirs", "--output=out", "--quiet"]
    capsys.readouterr()
    assert cli.main(command) == 0
    out = capsys.readouterr().out
    assert "public photographs of 256 × 256, rectangles missing" in out
    assert "small.png" not in out
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert results["parts"]["inpaint-box"]["methods"]["theirs"]["psnr_hole"] == 120
    assert results["parts"]["colourise"]["methods"]["theirs"]["ciede2000"] == 0
    assert not (tmp_path / "out/colourise/chunks").exists()
    # Two photographs: what is given, the rows, two more samples, what was right
    count = len(results["parts"]["inpaint-box"]["methods"])
    sheet = arrays.read(tmp_path / "out/inpaint-box/grid.png", 3).pixels
    assert sheet.shape[1] == 64 + 128 * (1 + count + 2 + 1)


@pytest.mark.fast
def test_each_network_goes_to_its_own_tables(networks):
    given = list(networks.values())
    for table in TABLES.values():
        (found,) = edits.those_for(table.edit, given)
        kind = {"colourise": "colourise"}.get(table.edit, "restore")
        assert found is networks["inpaint" if table.damage in HOLES else kind]
