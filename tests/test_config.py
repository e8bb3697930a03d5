"""A config is found right or wrong before anything is allocated.

If it is wrong, one sentence says which field is, and what it may be.
"""

import ast
import functools
import importlib.util
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import pytest

from sr3_jax import config as config_lib
from sr3_jax.cli.configs import load as load_config
from sr3_jax.config import CHOICES, MAY_CHANGE
from sr3_jax.errors import ConfigError, UserError
from sr3_jax.method import Method
from sr3_jax.objectives.levels import training_schedule
from sr3_jax.tasks import build_task

pytestmark = pytest.mark.fast

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.py"))
# Millions, table A.1
PAPER = {"faces_16_128": 550, "faces_64_512": 625, "imagenet_64_256": 625, "faces_256_1024": 150}


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def with_fields(fields: dict):
    config = config_lib.base()
    for name, value in fields.items():
        parent, _, last = name.rpartition(".")
        (config_lib.get(config, parent) if parent else config)[last] = value
    return config


def test_the_base_is_valid():
    config_lib.validate(config_lib.base())


NEEDED = {  # what goes with a choice
    ("model.kind", "refine"): {
        "model.multipliers": (1,),
        "model.attention": (),
        "model.middle_attention": False,
        "model.space_to_depth": 8,
        "model.dropout": 0.0,
        "model.predict": "v",
        "model.predict_residual": True,
    },
    ("sample.variance", "learned"): {"model.learned_variance": True},
    ("objective", "distill"): {"train.teacher": "another"},
    **{
        ("task.kind", kind): {"data.lr_size": 128}
        for kind in ("generation", "colourise", "inpaint")
    },
}


@pytest.mark.parametrize("field", CHOICES)
def test_every_known_choice_is_valid_and_an_unknown_one_is_refused_naming_field_value_and_choices(
    field,
):
    for choice in CHOICES[field]:
        config_lib.validate(with_fields({field: choice} | NEEDED.get((field, choice), {})))
    with pytest.raises(ConfigError) as raised:
        config_lib.validate(with_fields({field: "sideways"}))
    for word in (field, "'sideways'", *CHOICES[field]):
        assert word in str(raised.value)


BAD = {
    "HR not divisible by the levels": (
        {"data.hr_size": 136, "data.lr_size": 17},
        "data.hr_size = 136",
        "divisible by 16",
    ),
    "HR not divisible by levels and stem": (
        {"data.hr_size": 144, "data.lr_size": 18, "model.space_to_depth": 2},
        "data.hr_size = 144",
        "divisible by 32: 5 levels after a space-to-depth of 2",
    ),
    "generation from a smaller image": (
        {"task.kind": "generation"},
        "data.lr_size = 16 must be data.hr_size = 128",
        "no smaller image",
    ),
    "generation without noise": (
        {"task.kind": "generation", "data.lr_size": 128, "objective": "regression"},
        "task.kind = 'generation' needs noise",
        "objective = 'sr3'",
    ),
    "generation from a blurred image": (
        {"task.kind": "generation", "data.lr_size": 128, "task.blur": 1.0},
        "task.blur",
        "generation has none",
    ),
    "labels dropped that are not there": (
        {"train.label_dropout": 0.1},
        "train.label_dropout = 0.1",
        "model.classes above 0",
    ),
    "fewer names than classes": (
        {"model.classes": 3, "data.class_names": ("cat", "dog")},
        "data.class_names = ('cat', 'dog')",
        "3 different names",
    ),
    "guidance without classes": (
        {"sample.guidance": 2.0},
        "sample.guidance = 2",
        "model.classes = 0",
    ),
    "guidance of a network that always knew the class": (
        {"sample.guidance": 2.0, "model.classes": 10},
        "sample.guidance = 2",
        "train.label_dropout = 0",
    ),
    "guidance in no interval": (
        {
            "sample.guidance": 2.0,
            "sample.guidance_interval": (3.0, -3.0),
            "model.classes": 10,
            "train.label_dropout": 0.1,
        },
        "sample.guidance_interval = (3.0, -3.0)",
        "the lower one first",
    ),
    "LR equal to HR": (
        {"data.lr_size": 128},
        "data.lr_size = 128",
        "smaller than data.hr_size = 128",
    ),
    "LR above HR": ({"data.lr_size": 256}, "data.lr_size = 256", "smaller than data.hr_size = 128"),
    "LR that does not divide HR": (
        {"data.lr_size": 48},
        "data.lr_size = 48",
        "divide data.hr_size = 128",
    ),
    "no HR": ({"data.hr_size": 0}, "data.hr_size = 0", "between 1 and 32768"),
    "negative LR": ({"data.lr_size": -16}, "data.lr_size = -16", "between 1 and"),
    "an attention size of no level": (
        {"model.attention": (12,)},
        "model.attention = (12,)",
        "[128, 64, 32, 16, 8]",
    ),
    "attention that is not a number": (
        {"model.attention": ("16",)},
        "model.attention = ('16',)",
        "whole numbers",
    ),
    "an unknown level to recompute": ({"model.remat": (5,)}, "model.remat = (5,)", "0 to 4"),
    "no levels": ({"model.multipliers": ()}, "model.multipliers", "at least one level"),
    "a level without channels": (
        {"model.multipliers": (1, 0)},
        "model.multipliers = (1, 0)",
        "at least 1",
    ),
    "no channels": ({"model.channels": 0}, "model.channels = 0", "between 2 and 32768"),
    "heads that do not divide the channels": (
        {"model.head_channels": 48},
        "model.head_channels = 48",
        "divide the 1024",
    ),
    "negative heads": ({"model.head_channels": -1}, "model.head_channels = -1", "between 0 and"),
    "two image channels": (
        {"model.image_channels": 2},
        "model.image_channels = 2",
        "1 (grey) or 3 (RGB)",
    ),
    "dropout above one": ({"model.dropout": 1.5}, "model.dropout = 1.5", "between 0 and 1"),
    "a residual of no size": (
        {"model.residual_scale": 0.0},
        "model.residual_scale = 0.0",
        "between 1e-12 and",
    ),
    "a batch that does not split": (
        {"train.batch_size": 10, "train.accumulate": 4},
        "train.batch_size = 10",
        "divisible by train.accumulate = 4",
    ),
    "an empty batch": ({"train.batch_size": 0}, "train.batch_size = 0", "between 1 and"),
    "no steps": ({"train.steps": 0}, "train.steps = 0", "between 1 and"),
    "a learning rate of zero": (
        {"train.learning_rate": 0.0},
        "train.learning_rate = 0.0",
        "between 1e-12 and",
    ),
    "an EMA above one": ({"train.ema_decay": 1.1}, "train.ema_decay = 1.1", "between 0 and 1"),
    "a negative clip": ({"train.clip_norm": -1.0}, "train.clip_norm = -1.0", "between 0 and"),
    "a negative blur": ({"task.blur": -0.5}, "task.blur = -0.5", "between 0 and 4: Gaussian blur"),
    "a blur to be told of that is not there": (
        {"task.tell_blur": True},
        "task.tell_blur = True",
        "needs task.blur above 0",
    ),
    "a blur wider than its kernel": ({"task.blur": 4.5}, "task.blur = 4.5", "between 0 and 4"),
    "a negative fraction": (
        {"data.max_bad_fraction": -0.1},
        "data.max_bad_fraction = -0.1",
        "between 0 and 1",
    ),
    "a beta of zero": (
        {"schedule.beta_start": 0.0},
        "schedule.beta_start = 0.0",
        "0 < start <= end < 1",
    ),
    "betas that fall": (
        {"schedule.beta_start": 0.02},
        "schedule.beta_start = 0.02",
        "0 < start <= end < 1",
    ),
    "log-SNRs that rise": (
        {"schedule.log_snr_start": -11.0},
        "schedule.log_snr_start = -11.0",
        "log_snr_end = -10.0",
    ),
    "a sampling beta of one": (
        {"sample.beta_start": 1.0},
        "sample.beta_start = 1.0",
        "between 0 and 1",
    ),
    "more steps than levels": (
        {"sample.schedule": "respaced", "sample.steps": 2001},
        "sample.steps = 2001",
        "schedule.steps = 2000",
    ),
    "one level from here to there": (
        {"schedule.steps": 1, "sample.steps": 1},
        "schedule.steps = 1",
        "beta_start to beta_end",
    ),
    "a student by Heun": (
        {"objective": "distill", "train.teacher": "another", "sample.sampler": "heun"},
        "sample.sampler = 'heun'",
        "'ddim'",
    ),
    "a teacher without a student": (
        {"train.teacher": "another"},
        "train.teacher = 'another'",
        "objective = 'distill'",
    ),
    "a level twice": ({"model.remat": (0, 0)}, "model.remat = (0, 0)", "twice"),
    "a cosine that ends before the run": (
        {"train.learning_rate_schedule": "cosine", "train.decay_steps": 10},
        "train.decay_steps = 10",
        "train.steps = 1000000 or more",
    ),
    "the end of a cosine that is none": (
        {"train.decay_steps": 2_000_000},
        "train.decay_steps = 2000000",
        "'cosine'",
    ),
    "a log-SNR past what floats tell from 1": (
        {"schedule.log_snr_start": 80.0},
        "log_snr_start = 80.0",
        "between -15 and 15",
    ),
    "log-SNRs too close": (
        {"schedule.log_snr_start": -9.5},
        "log_snr_start = -9.5",
        "above log_snr_end = -10.0, by 1",
    ),
    "one channel": ({"model.channels": 1}, "model.channels = 1", "between 2 and 32768"),
    "too many channels": (
        {"model.channels": 99999999999},
        "model.channels = 99999999999",
        "between 2 and 32768",
    ),
    "a level too wide": (
        {"model.multipliers": (1, 2, 4, 8, 300)},
        "model.multipliers",
        "wider than 32768 channels",
    ),
    "more steps than int32": (
        {"train.steps": 2**31},
        "train.steps = 2147483648",
        "between 1 and 2147483647",
    ),
    "an infinite learning rate": (
        {"train.learning_rate": math.inf},
        "train.learning_rate = inf",
        "between 1e-12 and 1000000",
    ),
    "an infinite residual": (
        {"model.residual_scale": math.inf},
        "model.residual_scale = inf",
        "between 1e-12 and 1000000",
    ),
    "an infinite clip": ({"train.clip_norm": math.inf}, "train.clip_norm = inf", "between 0 and"),
    "an infinite goal": (
        {"train.overfit_loss": math.inf},
        "train.overfit_loss = inf",
        "between 0 and 1",
    ),
    "nothing": ({"model.channels": None}, "model.channels = None", "such as 128"),
    "no device": ({"mesh.fsdp": 0}, "mesh.fsdp = 0", "at least 1"),
    "all devices twice": ({"mesh.fsdp": -1}, "mesh.data = -1 and mesh.fsdp = -1", "one of them"),
    "not a number": ({"train.learning_rate": math.nan}, "train.learning_rate = nan", "between"),
}


@pytest.mark.parametrize(("fields", "field", "allowed"), BAD.values(), ids=BAD)
def test_a_bad_combination_is_one_sentence_with_the_field_its_value_and_what_is_allowed(
    fields, field, allowed
):
    with pytest.raises(ConfigError) as raised:
        config_lib.validate(with_fields(fields))
    assert field in str(raised.value)
    assert allowed in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", CHOICES["schedule.name"])
@pytest.mark.parametrize(("start", "end"), [(15.0, 14.0), (-14.0, -15.0), (15.0, -15.0)])
@pytest.mark.parametrize("steps", [1, 100_000])
def test_every_training_schedule_within_the_bounds_can_be_made(name, start, end, steps):
    steps = max(steps, 2) if name in ("linear", "quadratic") else steps
    fields = {"schedule.name": name, "schedule.steps": steps, "sample.steps": 1}
    config = with_fields(fields | {"schedule.log_snr_start": start, "schedule.log_snr_end": end})
    config_lib.validate(config)
    assert training_schedule(config).steps == steps


def test_a_wrong_name_raises_at_assignment():
    config = config_lib.base()
    with pytest.raises(AttributeError):
        config.model.chanels = 64
    with pytest.raises(KeyError):
        config["modle"] = 1


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("model", "channels", "64"),
        ("model", "channels", 0.5),
        ("model", "multipliers", 2),
        ("data", "folder", 3),
    ],
)
def test_a_wrong_type_raises_at_assignment(section, field, value):
    with pytest.raises(TypeError):
        config_lib.base()[section][field] = value


def test_json_and_back_gives_the_same_config():
    config = with_fields(
        {
            "objective": "regression",
            "model.multipliers": (1, 2),
            "model.remat": (0,),
            "data.folder": "ä b",
        }
    )
    again = config_lib.from_json(config_lib.to_json(config))
    assert again == config
    assert again.model.multipliers == (1, 2)  # a tuple, as it was
    assert again.is_locked


def test_a_field_added_since_gets_its_default():
    older = json.loads(config_lib.to_json(with_fields({"model.channels": 32})))
    del older["model"]["predict_residual"], older["mesh"]
    again = config_lib.from_json(json.dumps(older))
    assert again == with_fields({"model.channels": 32})


@pytest.mark.parametrize(("old", "new"), config_lib.RENAMED.items())
def test_a_field_of_an_older_checkpoint_is_read_under_its_new_name(old, new):
    value = {
        "task.blur": 1.5,
        "task.noise": 9.0,
        "task.tell_blur": True,
        "task.quantize_lr": False,
    }[new]
    written = json.loads(config_lib.to_json(config_lib.base()))
    section, _, field = old.partition(".")
    del written["task"]  # it had none
    written[section][field] = value
    assert config_lib.get(config_lib.from_json(json.dumps(written)), new) == value


@pytest.mark.parametrize(
    "change",
    [{"model": {"colour": 1}}, {"flavour": "mint"}, {"model": {"channels": "many"}}, {"model": 1}],
)
def test_json_with_a_field_that_is_not_known_is_refused_by_its_name(change):
    name = "flavour" if "flavour" in change else "model"
    with pytest.raises(ConfigError, match=rf"{name}.* = .*does not know"):
        config_lib.from_json(json.dumps(change))


@pytest.mark.parametrize("text", ["[]", "3", "null", "{", ""])
def test_json_that_is_no_config_is_refused(text):
    with pytest.raises(ConfigError, match="this config is not"):
        config_lib.from_json(text)


def test_differences_name_what_differs_on_both_sides_and_ignore_what_may_change_on_resume():
    ours, theirs = config_lib.base(), config_lib.base()
    for field in MAY_CHANGE:
        parent, _, last = field.rpartition(".")
        more = {int: 1, float: 1.0, str: "there", tuple: (1,)}
        values = config_lib.get(theirs, parent)
        values[last] += more[type(values[last])]
    assert config_lib.differences(ours, theirs) == []
    theirs.train.learning_rate, theirs.model.multipliers = 1e-3, (1, 2)
    first, second = config_lib.differences(ours, theirs)
    assert first == "model.multipliers: [1, 2, 4, 8, 8] here, [1, 2] there"
    assert second == "train.learning_rate: 0.0001 here, 0.001 there"


def test_flatten_gives_every_leaf_once_under_its_dotted_name():
    config = config_lib.base()
    flat = config_lib.flatten(config)
    assert flat["model.multipliers"] == [1, 2, 4, 8, 8]
    assert flat["seed"] == 0
    assert len(flat) == sum(
        len(v) if isinstance(v, ml_collections.ConfigDict) else 1 for v in config.values()
    )


def test_every_field_of_the_base_has_a_meaning_that_the_help_and_the_docs_can_show():
    base, found = config_lib.base(), list(config_lib.fields())
    assert sorted(field.name for field in found) == sorted(config_lib.flatten(base))
    assert all(ast.literal_eval(field.value) == config_lib.get(base, field.name) for field in found)
    assert [field.name for field in found if not field.meaning] == []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_valid_and_its_docstring_gives_the_command_that_trains_it(path):
    module = load(path)
    config_lib.validate(module.get_config())
    assert f"sr3 train --config=configs/{path.name} --workdir=" in module.__doc__


@pytest.mark.parametrize(
    ("prior", "told"),
    [
        ("ours", {"jpeg", "noise", "blur", "augment"}),
        ("real-esrgan", {"jpeg", "noise", "blur"}),
        ("sr3-plus", {"augment"}),
    ],
)
def test_each_prior_of_blind_photographs_is_valid_and_corrupts(prior, told):
    config = load(next(path for path in CONFIGS if path.stem == "photos_4x_blind")).get_config(
        prior
    )
    config_lib.validate(config)
    task = build_task(config)
    assert {signal.name for signal in task.signals} == told
    image = jax.ShapeDtypeStruct((2, 96, 96, 3), jnp.float32)
    corrupt = functools.partial(task.corrupt, train=True)
    given = jax.eval_shape(corrupt, image, jax.random.key(0))
    assert given.image.shape == (2, 24, 24, 3)
    assert set(given.signals) == told - {"augment"}


def test_a_prior_that_is_not_there_is_told_with_those_that_are():
    with pytest.raises(
        UserError, match="'none' is not known; there are ours, real-esrgan, sr3-plus"
    ):
        load_config(["--config=configs/photos_4x_blind.py:none"], "sr3 train")


@pytest.mark.parametrize(("name", "paper"), PAPER.items())
def test_the_papers_configs_have_its_parameter_counts_within_2_5_percent(name, paper):
    config = load(next(path for path in CONFIGS if path.stem == name)).get_config()
    # JAX's attention promotes bfloat16 by itself, which the tests' strict settings refuse
    config.model.dtype = "float32"
    method = Method(config)
    shapes = jax.eval_shape(method.init, jax.random.key(0))
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) / 1e6
    assert count == pytest.approx(paper, rel=2.5e-2)
