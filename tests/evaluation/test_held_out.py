"""The held-out split, on real faces with tiny networks of random weights."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from sr3_jax import config as config_lib
from sr3_jax.checkpoints.checkpoint import Checkpoint
from sr3_jax.data.faces import OrlFaces
from sr3_jax.errors import UserError
from sr3_jax.evaluation import held_out, report, runs
from sr3_jax.evaluation.contenders import to_uint8
from sr3_jax.evaluation.protocols import PROTOCOLS, Options
from sr3_jax.inference.upscaler import Upscaler
from sr3_jax.method import Method
from sr3_jax.metrics import distortion

N = 5  # images
METRICS = {"psnr", "ssim", "consistency_mse_1e5", "consistency_db"}


def tiny_config(objective: str = "sr3", **data):
    """Grey ORL faces, 8×8 to 16×16."""
    config = config_lib.base()
    config.objective = objective
    config.data.update({"hr_size": 16, "lr_size": 8} | data)
    model = config.model
    model.channels, model.multipliers, model.blocks, model.attention, model.dropout = (
        8,
        (1,),
        1,
        (),
        0.0,
    )
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
    params = jax.tree.map(
        lambda leaf: jnp.asarray(0.1 * rng.normal(size=leaf.shape), jnp.float32), shapes
    )
    return Checkpoint(config, params, step, f"tiny-{step}")


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
    face = Image.fromarray(OrlFaces(range(31, 41))[0].pixels[14:106, :, 0]).resize(
        (16, 16), Image.Resampling.BOX
    )
    np.testing.assert_array_equal(split.hr[0, ..., 0], face)


def test_the_limit_is_spread_over_the_split():
    names = held_out.load(tiny_config(), 10).names
    assert len(names) == 10
    assert len({name.partition("/")[0] for name in names}) == 10


def test_the_protocol_of_a_checkpoints_own_data_has_the_agreed_keys_and_its_rows_are_means_of_the_upscalers_pictures(  # noqa: E501
    tmp_path,
):
    networks = [checkpoint(tiny_config("regression"), 3), checkpoint(tiny_config(), 7)]
    options = Options(samples=2, limit=N, seed=5, steps=(3,))
    results, _ = runs.run(PROTOCOLS["held_out"], networks, tmp_path, options)
    found = [results[key] for key in ("protocol", "n", "step", "seed")]
    assert found == ["held_out", N, 3, 5]
    assert results["data"]["source"] == "orl"
    assert list(results["methods"]) == ["bicubic", "regression", "SR3", "SR3, mean of 2"]
    assert [results["methods"][name].get("step") for name in ("bicubic", "regression", "SR3")] == [
        None,
        3,
        7,
    ]
    split = held_out.load(tiny_config(), N)
    regression, sr3 = map(Upscaler, networks)
    draws = [sr3.batch(split.lr, split.ids, seed=5, sample=i, steps=3) for i in range(2)]
    pictures = {
        "bicubic": split.bicubic,
        "regression": to_uint8(regression.batch(split.lr, split.ids, steps=3)),
        "SR3": to_uint8(draws[0]),
        "SR3, mean of 2": to_uint8((draws[0] + draws[1]) / 2),
    }
    for name, batch in pictures.items():
        wanted = {
            metric: values.mean()
            for metric, values in distortion.scores(batch, split.hr, split.lr).items()
        }
        assert {metric: results["methods"][name][metric] for metric in METRICS} == pytest.approx(
            wanted, rel=1e-4
        )
    psnr = {name: values["psnr"] for name, values in results["methods"].items()}
    assert psnr["SR3"] < psnr["SR3, mean of 2"] < psnr["bicubic"]


def test_the_table_on_the_terminal_holds_every_method_and_number_however_narrow(
    capsys, monkeypatch
):
    names = [name for name in report.COLUMNS if not name.startswith("lpips")]
    methods = {
        row: {name: 0.5 + i + len(row) for i, name in enumerate(names)}
        for row in ("bicubic", "SR3, mean of 8")
    }
    results = {"methods": methods, "columns": names, "paper": {"SR3 (paper)": {"psnr": 23.04}}}
    for width in ("40", "80", "200"):
        monkeypatch.setenv("COLUMNS", width)
        report.show(results)
        shown = capsys.readouterr().out
        assert max(map(len, shown.splitlines())) <= int(width)
        for row, values in methods.items():
            lines = [line for line in shown.splitlines() if line.strip().startswith(row)]
            for name in names:
                assert any(
                    report.COLUMNS[name][1].format(values[name]) in line for line in lines
                ), (width, name)
        assert "23.04" in shown
        assert "…" not in shown


def test_two_networks_of_a_kind_get_a_row_each(tmp_path):
    networks = [checkpoint(tiny_config("regression"), step) for step in (3, 4)]
    results, _ = runs.run(PROTOCOLS["held_out"], networks, tmp_path, Options(limit=2))
    assert list(results["methods"]) == ["bicubic", "regression", "regression (tiny-4)"]
    assert (
        results["methods"]["regression"]["psnr"]
        != results["methods"]["regression (tiny-4)"]["psnr"]
    )


@pytest.mark.fast
@pytest.mark.parametrize(
    ("field", "values"), [("data.lr_size", "8 and 4"), ("data.hr_size", "16 and 32")]
)
def test_checkpoints_of_other_sizes_cannot_share_a_table(field, values, tmp_path):
    change = {"data.lr_size": {"lr_size": 4}, "data.hr_size": {"hr_size": 32}}[field]
    with pytest.raises(
        UserError, match=rf"tiny-1 and tiny-2 cannot share a table: {field} is {values}"
    ):
        runs.run(
            PROTOCOLS["held_out"],
            [checkpoint(tiny_config(), 1), checkpoint(tiny_config(**change), 2)],
            tmp_path,
        )


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
    after = held_out.mean_scores(to_uint8(Upscaler(first).batch(split.lr, split.ids)), split)
    assert set(scores) == METRICS
    assert scores == pytest.approx(after, rel=1e-5)
    assert scores != others
    assert picture.shape == (24 + 3 * 128, 4 * 128, 3)


@pytest.mark.parametrize("kind", ["colourise", "inpaint"])
def test_edits_are_measured_with_what_is_known_put_back(kind):
    config = tiny_config()
    config.task.kind, config.data.lr_size = kind, config.data.hr_size
    config.model.image_channels = 3
    scores, picture = held_out.during_training(config)(checkpoint(config, 1).params)
    assert set(scores) == {"psnr", "ssim"}  # consistency is of smaller inputs
    assert picture.shape == (24 + 3 * 128, 3 * 128, 3)  # input, output, HR
    split = held_out.load(config, N)
    assert split.lr.shape[-1] == (1 if kind == "colourise" else 4)
    if kind == "inpaint":  # a quarter of the image is hidden
        assert 0.2 < np.mean(split.bicubic != split.hr) < 0.26
