"""Checkpoints of OpenAI's guided-diffusion (ADM; Dhariwal & Nichol 2021, arXiv 2105.05233).

A file holds the network's state alone: bases that make images from noise, of a class or without,
and upsamplers. The noise level enters as the number t of the level in a schedule of 1,000; there
are twice as many output channels as an image has, the second half of which say how much noise each
pixel gets (Nichol & Dhariwal 2021). The public files are known by their names.
"""

import json
from pathlib import PurePath
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from sr3_jax.checkpoints.checkpoint import Checkpoint, CheckpointError
from sr3_jax.checkpoints.foreign.layout import Shape, Taken, Weights, base_config, numbered
from sr3_jax.errors import UserError

# What the weights of the public files do not tell, from the project's documentation
PUBLIC: dict[str, dict[str, Any]] = {
    "64x64_diffusion": {
        "hr_size": 64, "head_channels": 64, "attention_order": "new", "noise": "cosine",
    },
    "128x128_diffusion": {"hr_size": 128, "heads": 4, "noise": "linear"},
    "256x256_diffusion": {"hr_size": 256, "head_channels": 64, "noise": "linear"},
    "256x256_diffusion_uncond": {"hr_size": 256, "head_channels": 64, "noise": "linear"},
    "512x512_diffusion": {"hr_size": 512, "head_channels": 64, "noise": "linear"},
    "64_256_upsampler": {"hr_size": 256, "lr_size": 64, "heads": 4, "noise": "linear"},
    "128_512_upsampler": {"hr_size": 512, "lr_size": 128, "head_channels": 64, "noise": "linear"},
}  # fmt: skip
STEPS = 1000  # of the noise schedule, unless another number is said


def read(weights: Weights, where: str, said: dict[str, Any], name: str) -> Checkpoint:
    """A checkpoint as ours.

    Args:
      weights: by name, as the project saves them.
      where: names the file in errors; a public file is known by it.
      said: what the user says, by name: "hr_size", "lr_size" of an upsampler, "heads" or
        "head_channels", "attention_order" ("new" or "legacy"), "noise" ("linear" or "cosine"),
        "steps", or "json", the project's flags by name.
      name: of the checkpoint.

    Raises:
      UserError: it is of another network, or something is not said.
    """
    told = PUBLIC.get(PurePath(where).name.partition(".")[0], {}) | flags(said)
    taken = Taken(weights, where)
    shape, plain = _shape(taken, weights)
    out = len(taken.peek("out.2.bias"))
    seen = taken.peek("input_blocks.0.0.weight").shape[1]
    image_channels = 3 if out in (3, 6) else 1
    upsamples = seen == 2 * image_channels
    if out not in (image_channels, 2 * image_channels) or seen not in (
        image_channels,
        2 * image_channels,
    ):
        raise CheckpointError(
            f"{where} is of another network: it sees {seen} channels, and makes {out}"
        )
    _check_said(told, where, upsamples)
    hr_size = int(told["hr_size"])
    lr_size = int(told["lr_size"]) if upsamples else hr_size
    config = base_config(shape, hr_size, lr_size, image_channels)
    _network(config, taken, told, plain)
    config.model.learned_variance = out == 2 * image_channels
    config.task.kind = "super_resolution" if upsamples else "generation"
    config.task.upsample = "bilinear" if upsamples else "bicubic"
    schedule, sample = config.schedule, config.sample
    schedule.steps = int(told.get("steps") or STEPS)
    if told["noise"] == "cosine":
        schedule.name = "cosine_beta"
    else:
        scale = 1000 / schedule.steps
        schedule.beta_start, schedule.beta_end = scale * 1e-4, scale * 0.02
    sample.schedule, sample.sampler = "timestep_respacing", "ancestral"
    sample.steps = min(250, schedule.steps)
    sample.variance = "learned" if config.model.learned_variance else "posterior"
    _fill(taken, shape, config, upsamples, told.get("attention_order", "legacy"))
    return taken.checkpoint(config, name)


def _check_said(told: dict[str, Any], where: str, upsamples: bool) -> None:
    wanted = {"hr_size": "--hr-size", "noise": "--noise-schedule=linear or cosine"}
    if upsamples:
        wanted["lr_size"] = "--lr-size"
    missing = [flag for key, flag in wanted.items() if not told.get(key)]
    if not (told.get("heads") or told.get("head_channels")):
        missing.append("--heads or --head-channels")
    if missing:
        raise UserError(
            f"{where} does not tell all of its network, and is no public file by its name "
            f"({', '.join(PUBLIC)}): give {', '.join(missing)}"
        )


def _shape(taken: Taken, weights: Weights) -> tuple[Shape, bool]:
    """The network's shape, and whether it resamples by plain convolutions."""
    blocks = _blocks(taken)
    last = max(numbered(weights, "input_blocks."))
    levels = (last + 1) // (blocks + 1)  # between two levels is something that halves the size
    widths, attention = list[int](), list[int]()
    for level in range(levels):
        first = 1 + level * (blocks + 1)
        widths.append(len(taken.peek(f"input_blocks.{first}.0.out_layers.3.bias")))
        if f"input_blocks.{first}.1.qkv.weight" in taken:
            attention.append(level)
    channels = len(taken.peek("input_blocks.0.0.bias"))
    if last != levels * (blocks + 1) - 1 or any(width % channels for width in widths):
        raise CheckpointError(
            f"{taken.where} is of another network: levels of {widths} channels, of {blocks} blocks"
        )
    plain = f"input_blocks.{blocks + 1}.0.op.weight" in taken
    multipliers = tuple(width // channels for width in widths)
    return Shape(channels, multipliers, blocks, tuple(attention)), plain


def _blocks(taken: Taken) -> int:
    """How many residual blocks a level of the encoder has, told by the decoder.

    That has one more of each level, and after the last of a level something that doubles the size,
    as a further part of that block.
    """
    i = 0
    while f"output_blocks.{i}.0.in_layers.0.weight" in taken:
        doubled = (
            f"output_blocks.{i}.{part}.{name}.weight"
            for part in (1, 2)
            for name in ("in_layers.0", "conv")
        )
        if any(name in taken for name in doubled):
            return i
        i += 1
    if i < 2:
        raise CheckpointError(f"{taken.where} is of another network: it has no output_blocks")
    return i - 1  # of a single level


def _network(config: ConfigDict, taken: Taken, told: dict[str, Any], plain: bool) -> None:
    """Fields of config.model."""
    model = config.model
    model.gamma_embedding, model.groups = "timestep", 32
    sinusoids = taken.peek("time_embed.0.weight").shape[1]
    model.embedding_channels = 0 if sinusoids == model.channels else sinusoids
    model.resample = "plain" if plain else "biggan"
    width = len(taken.peek("input_blocks.1.0.emb_layers.1.bias"))
    block = len(taken.peek("input_blocks.1.0.out_layers.3.bias"))
    model.gamma_injection = "scale_shift" if width == 2 * block else "add"
    if told.get("head_channels"):
        model.head_channels = int(told["head_channels"])
    else:
        model.heads = int(told.get("heads") or 0)
    if "label_emb.weight" in taken:
        model.classes = len(taken.peek("label_emb.weight"))


def _fill(taken: Taken, shape: Shape, config: ConfigDict, upsamples: bool, order: str) -> None:
    """Takes all weights."""
    model, c = config.model, config.model.image_channels
    sinusoids = model.embedding_channels or model.channels
    half = sinusoids // 2  # theirs are cosines first
    taken.dense("time_embed.0", "gamma_embedding.dense_0", [*range(half, 2 * half), *range(half)])
    taken.dense("time_embed.2", "gamma_embedding.dense_1")
    if model.classes:
        taken.found["label_embedding.embedding"] = taken.take("label_emb.weight")
    # theirs see y_t first, and then the condition
    taken.conv("input_blocks.0.0", "stem", [*range(c, 2 * c), *range(c)] if upsamples else None)
    i = 1
    last = len(shape.multipliers) - 1
    for level in range(last + 1):
        for index in range(shape.blocks):
            _block(taken, f"input_blocks.{i}", f"down_{level}_{index}", config, order)
            i += 1
        if level < last:
            _resample(taken, f"input_blocks.{i}.0", f"down_{level}_resample", "op")
            i += 1
    _residual(taken, "middle_block.0", "middle_0")
    _attention(taken, "middle_block.1", "middle_attention", config, order)
    _residual(taken, "middle_block.2", "middle_1")
    i = 0
    for level in reversed(range(last + 1)):
        for index in range(shape.blocks + 1):
            _block(taken, f"output_blocks.{i}", f"up_{level}_{index}", config, order)
            if level and index == shape.blocks:
                part = 2 if level in shape.attention else 1
                _resample(taken, f"output_blocks.{i}.{part}", f"up_{level}_resample", "conv")
            i += 1
    taken.norm("out.0", "out_norm")
    taken.conv("out.2", "out")


def _block(taken: Taken, theirs: str, ours: str, config: ConfigDict, order: str) -> None:
    _residual(taken, f"{theirs}.0", ours)
    if f"{theirs}.1.qkv.weight" in taken:
        _attention(taken, f"{theirs}.1", f"{ours}_attention", config, order)


def _residual(taken: Taken, theirs: str, ours: str) -> None:
    taken.norm(f"{theirs}.in_layers.0", f"{ours}.norm_0")
    taken.conv(f"{theirs}.in_layers.2", f"{ours}.conv_0")
    taken.dense(f"{theirs}.emb_layers.1", f"{ours}.embedding")
    taken.norm(f"{theirs}.out_layers.0", f"{ours}.norm_1")
    taken.conv(f"{theirs}.out_layers.3", f"{ours}.conv_1")
    if f"{theirs}.skip_connection.weight" in taken:
        taken.conv(f"{theirs}.skip_connection", f"{ours}.skip")


def _resample(taken: Taken, theirs: str, ours: str, name: str) -> None:
    if f"{theirs}.{name}.weight" in taken:
        taken.conv(f"{theirs}.{name}", ours)
    else:
        _residual(taken, theirs, ours)


def _attention(taken: Taken, theirs: str, ours: str, config: ConfigDict, order: str) -> None:
    taken.norm(f"{theirs}.norm", f"{ours}.norm")
    width = len(taken.peek(f"{theirs}.proj_out.bias"))
    model = config.model
    heads = model.heads or width // (model.head_channels or width)
    rows = np.arange(3 * width)
    if order == "new":  # q, k, v first, and heads within each
        rows = rows.reshape(3, heads, width // heads).swapaxes(0, 1).reshape(-1)
    taken.attention(f"{theirs}.qkv", f"{ours}.qkv", rows)
    taken.conv(f"{theirs}.proj_out", f"{ours}.out")


def flags(said: dict[str, Any]) -> dict[str, Any]:
    """What the user says, with the project's own flags (a JSON object of them) as ours.

    Raises UserError if the JSON is none.
    """
    found = {key: value for key, value in said.items() if value and key != "json"}
    if not said.get("json"):
        return found
    try:
        theirs = json.loads(said["json"])
        size = theirs.get("large_size") or theirs.get("image_size")
        attention_order = "new" if theirs.get("use_new_attention_order") else "legacy"
        named = {
            "hr_size": size,
            "lr_size": theirs.get("small_size"),
            "heads": None if theirs.get("num_head_channels", -1) > 0 else theirs.get("num_heads"),
            "head_channels": max(0, theirs.get("num_head_channels", -1)),
            "attention_order": attention_order,
            "noise": theirs.get("noise_schedule", "linear"),
            "steps": theirs.get("diffusion_steps"),
        }
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(f"--json is no object of the project's flags: {error}") from error
    return {key: value for key, value in named.items() if value} | found
