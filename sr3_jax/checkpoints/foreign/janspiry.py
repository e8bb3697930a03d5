"""Checkpoints of Janspiry's SR3 (Image-Super-Resolution-via-Iterative-Refinement).

A file *_gen.pth holds the network below denoise_fn., and the tables of a noise schedule. Ours is
the same U-Net but for a few choices, which are fields of the config: the noise level enters as √γ,
unscaled, by an embedding as wide as the network's first level, without SiLU.
"""

import json
import re
from typing import Any, NamedTuple

import numpy as np

from sr3_jax.checkpoints.checkpoint import Checkpoint, CheckpointError
from sr3_jax.checkpoints.foreign.layout import Shape, Taken, Weights, base_config, numbered
from sr3_jax.errors import UserError

NETWORK = "denoise_fn."


class Said(NamedTuple):
    """What the weights do not tell."""

    hr_size: int
    lr_size: int
    groups: int
    schedule: dict[str, Any]  # fields of config.schedule, or nothing: those of the file


def read(weights: Weights, where: str, said: dict[str, Any], name: str) -> Checkpoint:
    """A checkpoint as ours.

    Args:
      weights: by name, as the project saves them.
      where: names the file in errors.
      said: what the user says, by name: "json", the text of the project's configuration, "hr_size",
        "lr_size", "groups".
      name: of the checkpoint.

    Raises:
      UserError: it is of another network, or something is not said.
    """
    inside = {
        key.removeprefix(NETWORK): value
        for key, value in weights.items()
        if key.startswith(NETWORK)
    }
    taken = Taken(inside or weights, where)
    if not inside:
        taken.drop(r"\w+")  # tables of the schedule beside a network without prefix
    shape, downs = _shape(taken, inside or weights)
    known = _said(said, where, shape)
    config = base_config(shape, known.hr_size, known.lr_size, len(taken.peek(f"{_LAST}.bias")))
    model, sample = config.model, config.sample
    model.gamma_embedding, model.embedding_silu = "sqrt_gamma_unscaled", False
    model.embedding_width, model.resample = shape.channels, "plain"
    model.groups = known.groups
    config.schedule.update(known.schedule or _schedule(weights, where))
    sample.schedule, sample.sampler, sample.variance = "respaced", "ancestral", "posterior"
    sample.steps = config.schedule.steps
    _fill(taken, shape, downs)
    return taken.checkpoint(config, name)


_LAST = "final_conv.block.3"


def _shape(taken: Taken, weights: Weights) -> tuple[Shape, list[str]]:
    """The network's shape, and its encoder's layers in order: "block" or "down"."""
    channels = len(taken.peek("downs.0.bias"))
    kinds, widths, attention = list[str](), list[int](), set[int]()
    for i in list(numbered(weights, "downs."))[1:]:
        if f"downs.{i}.conv.weight" in taken:
            kinds.append("down")
            continue
        level = kinds.count("down")
        kinds.append("block")
        width = len(taken.peek(f"downs.{i}.res_block.block1.block.3.bias"))
        widths[level:] = [width]
        if f"downs.{i}.attn.qkv.weight" in taken:
            attention.add(level)
    blocks = kinds.index("down") if "down" in kinds else len(kinds)
    if not widths or any(width % channels for width in widths):
        raise CheckpointError(f"{taken.where} is of another network: levels of {widths} channels")
    multipliers = tuple(width // channels for width in widths)
    return Shape(channels, multipliers, blocks, tuple(sorted(attention))), kinds


def _said(said: dict[str, Any], where: str, shape: Shape) -> Said:
    found = from_json(said["json"], where) if said.get("json") else {}
    found |= {key: value for key, value in said.items() if value and key != "json"}
    missing = [flag for flag in ("hr_size", "lr_size") if not found.get(flag)]
    if missing:
        flags = ", ".join(f"--{flag.replace('_', '-')}" for flag in missing)
        raise UserError(
            f"{where} does not tell the size of its images: give {flags}, or --json=FILE, the "
            "project's configuration"
        )
    groups = int(found.get("groups", 32))
    if shape.channels % groups:
        raise UserError(
            f"{where} has {shape.channels} channels, which {groups} groups do not divide: give "
            "--groups (norm_groups of the project's configuration)"
        )
    return Said(int(found["hr_size"]), int(found["lr_size"]), groups, found.get("schedule", {}))


def from_json(text: str, where: str) -> dict[str, Any]:
    """What the project's configuration says; it may have comments, from // to the line's end.

    Raises UserError if it is none.
    """
    try:
        found = json.loads(re.sub(r'^((?:[^"\n]|"[^"\n]*")*?)//.*$', r"\1", text, flags=re.M))
        model = found.get("model", found)
        unet = model["unet"]
        schedules = model.get("beta_schedule", {})
        schedule = schedules.get("val", schedules)
        data = found.get("datasets", {}).get("train", {})
        size = data.get("r_resolution") or model.get("diffusion", model).get("image_size")
        told: dict[str, Any] = {"groups": unet.get("norm_groups") or 32}
        told |= {"hr_size": size} if size else {}
        told |= {"lr_size": data["l_resolution"]} if data.get("l_resolution") else {}
        if schedule:
            told["schedule"] = _fields(
                schedule["schedule"],
                schedule["n_timestep"],
                schedule["linear_start"],
                schedule["linear_end"],
                where,
            )
        return told
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"--json is no configuration of the project: {error!r}") from error


def _fields(kind: str, steps: int, start: float, end: float, where: str) -> dict[str, Any]:
    """Fields of config.schedule, of a schedule that the project calls `kind`."""
    names = {"linear": "linear", "quad": "quadratic", "cosine": "cosine_beta"}
    if kind not in names:
        raise UserError(
            f"{where} has a {kind} noise schedule, which is not known; there are {', '.join(names)}"
        )
    return {"name": names[kind], "steps": steps, "beta_start": start, "beta_end": end}


def _schedule(weights: Weights, where: str) -> dict[str, Any]:
    """Fields of config.schedule, from the tables that stand beside the network."""
    if "betas" not in weights:
        raise UserError(f"{where} has no noise schedule beside its network: give --json=FILE")
    betas = np.asarray(weights["betas"], np.float64)
    count, start, end = len(betas), float(betas[0]), float(betas[-1])
    if count > 1:
        for kind, power in (("linear", 1.0), ("quad", 0.5)):
            ours = np.linspace(start**power, end**power, count) ** (1 / power)
            if np.allclose(betas, ours, rtol=1e-4, atol=1e-8):
                # numbers that somebody wrote, which the file has in float32
                start, end = (float(f"{value:.6g}") for value in (start, end))
                return _fields(kind, count, start, end, where)
    raise UserError(f"{where} has a noise schedule that is not known: give --json=FILE")


def _fill(taken: Taken, shape: Shape, downs: list[str]) -> None:
    """Takes all weights."""
    taken.dense("noise_level_mlp.1", "gamma_embedding.dense_0")
    taken.dense("noise_level_mlp.3", "gamma_embedding.dense_1")
    taken.conv("downs.0", "stem")
    level = index = 0
    for i, kind in enumerate(downs, 1):
        if kind == "down":
            taken.conv(f"downs.{i}.conv", f"down_{level}_resample")
            level, index = level + 1, 0
        else:
            _block(taken, f"downs.{i}", f"down_{level}_{index}")
            index += 1
    for i, ours in enumerate(("middle_0", "middle_1")):
        _block(taken, f"mid.{i}", ours, "middle_attention" if i == 0 else "")
    i = 0
    for level in reversed(range(len(shape.multipliers))):
        for index in range(shape.blocks + 1):
            _block(taken, f"ups.{i}", f"up_{level}_{index}")
            i += 1
        if level:
            taken.conv(f"ups.{i}.conv", f"up_{level}_resample")
            i += 1
    taken.norm("final_conv.block.0", "out_norm")
    taken.conv(_LAST, "out")


def _block(taken: Taken, theirs: str, ours: str, attention: str = "") -> None:
    inner = f"{theirs}.res_block"
    taken.norm(f"{inner}.block1.block.0", f"{ours}.norm_0")
    taken.conv(f"{inner}.block1.block.3", f"{ours}.conv_0")
    taken.dense(f"{inner}.noise_func.noise_func.0", f"{ours}.embedding")
    taken.norm(f"{inner}.block2.block.0", f"{ours}.norm_1")
    taken.conv(f"{inner}.block2.block.3", f"{ours}.conv_1")
    if f"{inner}.res_conv.weight" in taken:
        taken.conv(f"{inner}.res_conv", f"{ours}.skip")
    if f"{theirs}.attn.qkv.weight" in taken:
        to = attention or f"{ours}_attention"
        taken.norm(f"{theirs}.attn.norm", f"{to}.norm")
        taken.attention(f"{theirs}.attn.qkv", f"{to}.qkv")
        taken.conv(f"{theirs}.attn.out", f"{to}.out")
