"""Any method's images against their references."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from sr3_jax import cli
from sr3_jax.errors import UserError
from sr3_jax.evaluation import report, runs
from sr3_jax.evaluation.measure import interval
from sr3_jax.evaluation.protocols import Options
from sr3_jax.images import arrays
from sr3_jax.metrics import distortion
from sr3_jax.metrics.lpips import lpips
from sr3_jax.runtime import parallel


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Crops of a photograph in two sizes, a noisy version as the method's, in another format."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    photo = Image.fromarray(skimage.data.astronaut())
    for i, side in enumerate((48, 32, 48, 32, 32)):
        crop = photo.crop((40 * i + 100, 60, 40 * i + 100 + side, 60 + side))
        noisy = np.asarray(crop).astype(int) + rng.integers(
            -9 * (i + 1), 9 * (i + 1), (side, side, 3)
        )
        arrays.write(folder / "real" / f"sub/{i}.png", np.asarray(crop))
        arrays.write(folder / "ours" / f"sub/{i}.bmp", noisy.clip(0, 255).astype(np.uint8))
        arrays.write(
            folder / "lr" / f"sub/{i}.png",
            np.asarray(crop.resize((side // 4,) * 2, Image.Resampling.BICUBIC)),
        )
    return folder


def compare(ours, real, lr=None, **options):
    """The results of comparing two folders."""
    with tempfile.TemporaryDirectory() as folder:
        return runs.run_images(
            real, Path(folder), Options(images={"ours": ours}, lr=lr), **options
        )[0]


def test_the_values_are_each_images_own_whatever_the_sizes_and_the_means_lie_within_their_intervals(
    place,
):
    counts = []
    results = compare(place / "ours", place / "real", place / "lr", on_images=counts.append)
    assert (results["n"], sum(counts), sorted(counts)) == (5, 5, [2, 3])
    for i in range(5):
        ours, real, lr = (
            arrays.read(place / name / f"sub/{i}.{suffix}", 3).pixels[None]
            for name, suffix in (("ours", "bmp"), ("real", "png"), ("lr", "png"))
        )
        y = {
            "psnr_y": distortion.psnr(*map(distortion.luma, (ours, real))),
            "ssim_y": distortion.ssim(*map(distortion.luma, (ours, real))),
        }
        wanted = (
            distortion.scores(ours, real, lr)
            | y
            | {f"lpips_{name}": lpips(ours, real, name) for name in ("vgg", "alexnet")}
        )
        found = results["per_image"]["ours"][f"sub/{i}"]
        assert found.keys() == wanted.keys()
        for name, values in wanted.items():
            assert found[name] == pytest.approx(float(values[0]), rel=1e-3, abs=1e-5), name
    for name, mean in results["methods"]["ours"].items():
        low, high = results["intervals"]["ours"][name]
        assert low < mean < high
    assert "consistency_db" not in compare(place / "ours", place / "real")["methods"]["ours"]


@pytest.mark.fast
def test_the_interval_of_a_mean_is_the_bootstraps():
    values = np.random.default_rng(1).normal(3, 2, 400)
    low, high = interval(values)
    assert (low, high) == pytest.approx(
        (values.mean() - 1.96 * 0.1 * values.std() / 2, values.mean() + 1.96 * values.std() / 20),
        abs=0.03,
    )


def test_the_command_writes_results_and_prints_the_table(place, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(parallel, "start", lambda config=None: None)
    monkeypatch.chdir(tmp_path)
    assert (
        cli.main(["evaluate", f"--images={place / 'ours'}", f"--reference={place / 'real'}"]) == 0
    )
    out = capsys.readouterr().out
    assert "lpips: LPIPS 0.1, VGG16 and AlexNet" in out
    assert "5 images" in out
    results = json.loads((tmp_path / "evaluation/ours/images/results.json").read_text())
    assert len(results["per_image"]["ours"]) == 5
    assert (tmp_path / "evaluation/ours/images/table.md").exists()


def test_what_does_not_match_is_listed(place, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(parallel, "start", lambda config=None: None)
    (tmp_path / "few/sub").mkdir(parents=True)
    for i in range(4):
        (tmp_path / f"few/sub/{i}.png").write_bytes((place / f"real/sub/{i}.png").read_bytes())
    arrays.write(tmp_path / "few/other.png", np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(
        UserError, match=r"few has no sub/4; .*few has other, of which .*real knows nothing"
    ):
        compare(tmp_path / "few", place / "real")
    with pytest.raises(UserError, match=r"is 12×12 and .* is 48×48"):
        compare(place / "lr", place / "real")
    with pytest.raises(UserError, match="larger than"):
        compare(place / "lr", place / "lr", place / "real")
    for arguments, words in (
        ([f"--images={place / 'ours'}"], "needs both --images=DIR and --reference=DIR"),
        ([f"--images={place}", f"--reference={place}", "--checkpoint=x"], "not both"),
        ([f"--images={tmp_path / 'no'}", f"--reference={place / 'real'}"], "no is not a folder"),
        (
            [f"--images={place}", f"--reference={place}", "--inception=x.pth"],
            "x.pth does not exist",
        ),
    ):
        assert cli.main(["evaluate", *arguments]) == 2
        assert words in capsys.readouterr().err


def test_what_was_done_to_the_files_is_told(tmp_path):
    rng = np.random.default_rng(0)
    for name in "abc":
        pixels = rng.integers(0, 256, (18, 24, 4), np.uint8)
        for folder, image in (("real", pixels), ("ours", pixels[..., :3])):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(image).save(tmp_path / folder / f"{name}.png")
    grey = Image.fromarray(pixels[..., 0])
    grey.save(tmp_path / "ours" / "c.png")
    results = compare(tmp_path / "ours", tmp_path / "real")
    assert results["converted"] == (
        "3 × alpha flattened onto white, 1 × grey repeated in three channels"
    )


def test_one_image_has_no_interval(tmp_path):
    for folder, seed in (("real", 0), ("ours", 1)):
        pixels = np.random.default_rng(seed).integers(0, 256, (18, 24, 3), np.uint8)
        arrays.write(tmp_path / folder / "a.png", pixels)
    results = compare(tmp_path / "ours", tmp_path / "real")
    assert not results["intervals"].get("ours")


def test_sets_of_few_images_are_told_to_be_few_and_many_are_not():
    methods = {"ours": {"fid": 12.0, "kid": 0.1}, "other": {"psnr": 20.0}}
    (sentence,) = report.warnings(methods, 2)
    assert sentence.startswith("FID and KID of 2 images are biased")
    assert report.warnings(methods, 50_000) == report.warnings({"o": {"psnr": 2.0}}, 2) == []
    results = {"title": "a", "n": 2, "networks": {}, "warnings": [sentence]}
    assert report.footnote(results).endswith(f". {sentence}")


def test_results_of_another_measurement_are_kept_and_files_that_are_not_ours_refused(
    tmp_path, capsys
):
    first = {"protocol": "images", "data": {"n": 1}, "methods": {}, "columns": [], "paper": {}}
    first |= {"title": "a", "n": 1, "networks": {}, "contenders": {}, "seed": 0}
    report.save(tmp_path, first)
    report.save(tmp_path, first)  # the same again
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.json", "table.md"]
    report.save(tmp_path, first | {"data": {"n": 2}})
    kept = json.loads((tmp_path / "earlier-1" / "results.json").read_text())
    assert kept["data"] == {"n": 1}
    assert "are kept in" in capsys.readouterr().err
    other = tmp_path / "other"
    other.mkdir()
    (other / "grid.png").write_bytes(b"a picture of the user's")
    with pytest.raises(UserError, match=r"grid\.png exists without a results\.json beside it"):
        report.check_folder(other)
    report.check_folder(tmp_path)


def test_a_network_is_compared_with_its_best_rival_by_metric_and_never_with_itself():
    def row(psnr, lpips):
        return {"psnr": psnr, "lpips_vgg": lpips, "coverage": 0.5}

    means = {
        "bicubic": row(22.0, 0.5),
        "SR3, 4 evaluations": row(21.0, 0.2),
        "SR3, 8 evaluations": row(21.5, 0.1),
        "theirs": row(20.0, 0.3),
    }
    ours = "SR3, 8 evaluations"
    results = {
        "columns": ["psnr", "lpips_vgg", "coverage"],
        "methods": means,
        "contenders": {
            "bicubic": {"kind": "bicubic"},
            "SR3, 4 evaluations": {"parameters": "a"},
            ours: {"parameters": "a"},
            "theirs": {"kind": "folder"},
        },
        "intervals_over": "people",
        "differences": {
            "of": ours,
            "minus": {
                name: {
                    metric: (means[ours][metric] - value, -9.0, 9.0)
                    for metric, value in values.items()
                }
                for name, values in means.items()
                if name != ours
            },
        },
    }
    assert report.against_the_best(results) == (
        "SR3, 8 evaluations minus its best rival, image by image, with 95 % intervals (bootstrap "
        "over people): PSNR −0.50 (−9.00 … 9.00) against bicubic; "
        "LPIPS (VGG) −0.200 (−9.000 … 9.000) against theirs."
    )
    assert report.against_the_best(results | {"differences": {}}) == ""
