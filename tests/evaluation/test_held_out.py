"""From checkpoints to a table, a JSON file and a picture, on real faces with tiny networks of random weights."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from sr3_jax import config as config_lib
from sr3_jax import images
from sr3_jax.checkpoints import Checkpoint
from sr3_jax.data.sources import OrlFaces
from sr3_jax.errors import UserError
from sr3_jax.evaluation import held_out, metrics, report
from sr3_jax.inference.upscaler import Upscaler
from sr3_jax.method import Method

N = 5  # images
METRICS = {"psnr", "ssim", "consistency_mse_1e5", "consistency_db"}


def tiny_config(objective: str = "sr3", **data):
    """Grey ORL faces, 8×8 to 16×16."""
    config = config_lib.base()
    config.objective = objective
    config.data.update({"hr_size": 16, "lr_size": 8} | data)
    model = config.model
    model.channels, model.multipliers, model.blocks, model.attention, model.dropout = 8, (1,), 1, (), 0.0
    model.image_channels, model.space_to_depth = 1, 2
    model.predict, model.predict_residual, model.residual_scale = "v", True, 0.1
    config.sample.steps, config.sample.schedule = 2, "log_snr"
    config.train.evaluate_images, config.train.sample_images = N, 3
    config_lib.validate(config)
    return config


def checkpoint(config, step: int = 7) -> Checkpoint:
    """Random weights, also where a new network has zeros."""
    rng = np.random.default_rng(step)
    shapes = jax.eval_shape(Method(config).init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.asarray(0.1 * rng.normal(size=leaf.shape), jnp.float32), shapes)
    return Checkpoint(config, params, step, f"tiny-{step}")


@pytest.fixture(scope="module")
def evaluated():
    """The upscalers that `evaluate` made (compiled, so that no test compiles them again), its results and its picture."""
    made = []

    def keep(*args, **options) -> Upscaler:
        made.append(Upscaler(*args, **options))
        return made[-1]

    networks = [checkpoint(tiny_config("regression"), 3), checkpoint(tiny_config(), 7)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(held_out, "Upscaler", keep)
        return made, *held_out.evaluate(networks, samples=2, limit=N, seed=5, shown=4, steps=3)


def test_the_held_out_people_are_those_after_thirty_and_their_lr_is_8_bits():
    split = held_out.load(tiny_config())
    assert len(split.ids) == len(set(split.ids)) == 100
    assert {int(re.match(r"s(\d+)/", name)[1]) for name in split.names} == set(range(31, 41))
    assert (split.hr.shape, split.hr.dtype, split.lr.shape, split.lr.dtype) == (
        (100, 16, 16, 1),
        np.uint8,
        (100, 8, 8, 1),
        np.uint8,
    )
    face = Image.fromarray(OrlFaces(range(31, 41))[0].pixels[14:106, :, 0]).resize((16, 16), Image.Resampling.BOX)
    np.testing.assert_array_equal(split.hr[0, ..., 0], face)


def test_the_limit_is_spread_over_the_split():
    names = held_out.load(tiny_config(), 10).names
    assert len(names) == 10
    assert len({name.partition("/")[0] for name in names}) == 10


def test_results_have_the_agreed_keys(evaluated):
    _, results, _ = evaluated
    assert set(results) >= {"protocol", "source", "n", "step", "seed", "versions", "methods", "network_evaluations"}
    assert (results["protocol"], results["source"], results["n"], results["step"], results["seed"]) == (
        "held_out",
        "orl",
        N,
        3,
        5,
    )
    assert list(results["methods"]) == ["bicubic", "regression", "SR3", "SR3, mean of 2"]
    for values in results["methods"].values():
        assert set(values) - {"step"} == METRICS
        assert all(np.isfinite(value) for value in values.values())
    assert [results["methods"][name].get("step") for name in ("bicubic", "regression", "SR3")] == [None, 3, 7]
    assert results["network_evaluations"] == {"SR3": 3}
    assert {"sr3_jax", "jax", "python"} <= set(results["versions"])


def test_every_row_is_the_mean_of_the_metrics_of_the_upscalers_pictures(evaluated):
    (regression, sr3), results, _ = evaluated
    split = held_out.load(tiny_config(), N)
    draws = [sr3.batch(split.lr, split.ids, seed=5, sample=i, steps=3) for i in range(2)]
    pictures = {
        "bicubic": split.bicubic,
        "regression": held_out.uint8(regression.batch(split.lr, split.ids, steps=3)),
        "SR3": held_out.uint8(draws[0]),
        "SR3, mean of 2": held_out.uint8((draws[0] + draws[1]) / 2),
    }
    for name, batch in pictures.items():
        wanted = {metric: values.mean() for metric, values in metrics.scores(batch, split.hr, split.lr).items()}
        assert {metric: results["methods"][name][metric] for metric in METRICS} == pytest.approx(wanted, rel=1e-6)
    assert (
        results["methods"]["SR3"]["psnr"] < results["methods"]["SR3, mean of 2"]["psnr"] < results["methods"]["bicubic"]["psnr"]
    )


def test_the_picture_has_a_row_an_image_and_a_column_each_for_lr_bicubic_regression_three_samples_and_hr(evaluated):
    _, _, picture = evaluated
    assert picture.shape == (24 + 4 * 128, 64 + 7 * 128, 3)
    split = held_out.load(tiny_config(), N)
    for column, batch in ((0, split.lr), (1, split.bicubic), (6, split.hr)):
        size = 128 // batch.shape[1]
        tile = picture[24:152, 64 + 128 * column :][:, :128][size // 2 :: size, size // 2 :: size]
        np.testing.assert_array_equal(tile, batch[0].repeat(3, axis=-1))
    columns = [picture[24:, 64 + 128 * i : 192 + 128 * i].astype(int) for i in (3, 4, 5)]
    assert all(np.abs(columns[i] - columns[j]).max() > 10 for i, j in ((0, 1), (1, 2), (0, 2)))


def test_saving_writes_json_that_reads_back_a_table_and_the_picture(evaluated, tmp_path):
    _, results, picture = evaluated
    report.save(tmp_path / "new" / "held_out", results, picture)
    assert sorted(path.name for path in (tmp_path / "new" / "held_out").iterdir()) == ["grid.png", "results.json", "table.md"]
    assert json.loads((tmp_path / "new" / "held_out" / "results.json").read_text()) == results
    np.testing.assert_array_equal(images.read(tmp_path / "new" / "held_out" / "grid.png", 3).pixels, picture)
    lines = (tmp_path / "new" / "held_out" / "table.md").read_text().splitlines()
    assert len(lines) == 2 + len(results["methods"])
    assert {line.count("|") for line in lines} == {6}
    assert f"| bicubic | {results['methods']['bicubic']['psnr']:.2f} |" in lines[2]


def test_the_table_on_the_terminal_holds_every_method_and_number(evaluated, capsys):
    _, results, _ = evaluated
    report.show(results["methods"])
    shown = capsys.readouterr().out
    for name, values in results["methods"].items():
        assert any(name in line and f"{values['psnr']:.2f}" in line for line in shown.splitlines())


def test_two_networks_of_a_kind_get_a_row_each():
    networks = [checkpoint(tiny_config("regression"), step) for step in (3, 4)]
    results, _ = held_out.evaluate(networks, limit=2)
    assert list(results["methods"]) == ["bicubic", "regression", "regression (tiny-4)"]
    assert results["methods"]["regression"]["psnr"] != results["methods"]["regression (tiny-4)"]["psnr"]


@pytest.mark.fast
@pytest.mark.parametrize(("field", "values"), [("data.lr_size", "8 and 4"), ("data.hr_size", "16 and 32")])
def test_checkpoints_of_other_sizes_cannot_share_a_table(field, values):
    change = {"data.lr_size": {"lr_size": 4}, "data.hr_size": {"hr_size": 32}}[field]
    with pytest.raises(UserError, match=rf"tiny-1 and tiny-2 cannot share a table: {field} is {values}"):
        held_out.evaluate([checkpoint(tiny_config(), 1), checkpoint(tiny_config(**change), 2)])


@pytest.mark.fast
def test_images_smaller_than_the_window_of_ssim_are_refused_before_training():
    with pytest.raises(UserError, match=r"data\.hr_size = 8 .* at least 11"):
        held_out.during_training(tiny_config(hr_size=8, lr_size=4))


def test_during_training_the_metrics_are_those_of_the_parameters_given():
    config = tiny_config("regression")
    evaluate = held_out.during_training(config)
    first, second = checkpoint(config, 1), checkpoint(config, 2)
    (scores, picture), (others, _) = evaluate(first.params), evaluate(second.params)
    split = held_out.load(config, N)
    after = held_out.mean_scores(held_out.uint8(Upscaler(first).batch(split.lr, split.ids)), split)
    assert set(scores) == METRICS
    assert scores == pytest.approx(after, rel=1e-5)
    assert scores != others
    assert picture.shape == (24 + 3 * 128, 4 * 128, 3)
