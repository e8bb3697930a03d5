"""What is measured: anything that makes HR images from LR images, each under the names of its rows in the table."""

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from sr3_jax.checkpoints.checkpoint import Checkpoint
from sr3_jax.data.source import image_id
from sr3_jax.errors import UserError
from sr3_jax.images import arrays, pairs
from sr3_jax.inference import tiling
from sr3_jax.inference.sampling import Sampling
from sr3_jax.inference.upscaler import Upscaler
from sr3_jax.tasks import operations

Batch = UInt8[np.ndarray, "n _h _w _c"]  # sizes vary within a function


class Made(NamedTuple):
    """HR images by row; and, of rows that are drawn at random, all the samples, (s, n, h, w, c)."""

    images: dict[str, np.ndarray]
    samples: dict[str, np.ndarray] = {}  # noqa: RUF012 (a NamedTuple's default)


@runtime_checkable
class Contender(Protocol):
    """Anything that enlarges; `about` says what it is, in results.json and to a run that goes on."""

    about: dict[str, Any]

    @property
    def rows(self) -> Sequence[str]:
        """Its rows in the table."""
        ...

    def make(self, lr: Batch, ids: Sequence[str], size: tuple[int, int]) -> Made:
        """HR images of `size` (height, width) from LR images; what belongs to an id does not depend on the others."""
        ...


class Resampled:
    """Bicubic, or the nearest pixel: the baselines that know nothing."""

    def __init__(self, kind: str):
        self.about, self.rows, self._kind = {"kind": kind}, [kind], kind

    def make(self, lr: Batch, ids: Sequence[str], size: tuple[int, int]) -> Made:
        if self._kind == "bicubic":
            large = operations.resize(operations.to_float(jnp.asarray(lr)), *size)
            return Made({"bicubic": np.asarray(operations.to_uint8(large))})
        parts = [
            np.asarray(arrays.to_pillow(one).resize(size[::-1], Image.Resampling.NEAREST))
            for one in lr
        ]
        return Made({self._kind: np.stack(parts).reshape(len(lr), *size, lr.shape[-1])})


class Network:
    """A checkpoint: one row for one sample, another for the mean if there are several; of a regression one row.

    `steps` network evaluations replace the checkpoint's own number. With `match_input` results are
    corrected to agree with their input; otherwise they are raw, whatever the checkpoint's default.
    `within` is the LR size to which images are first resized, for a protocol whose sizes are not
    the network's.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        name: str,
        *,
        samples: int = 1,
        steps: int | None = None,
        seed: int = 0,
        match_input: bool = False,
        within: int | None = None,
    ):
        self.upscaler, self.name = Upscaler(checkpoint), name
        self.random = checkpoint.method.objective.takes_noise
        self.samples = samples if self.random else 1
        self._sampling, self._match, self._within = (
            Sampling(steps, seed=seed, match_input=False),
            match_input,
            within,
        )
        table = self.upscaler.engine.table(self._sampling)  # raises here for steps that cannot be
        self.about: dict[str, Any] = {
            "checkpoint": Path(checkpoint.name).name,
            "objective": checkpoint.config.objective,
            "step": checkpoint.step,
            "parameters": fingerprint(checkpoint),
            "evaluations": table.evaluations,
            "schedule": f"{zlib.crc32(b''.join(np.asarray(column).tobytes() for column in table)):08x}",
            "match_input": match_input,
        }
        if self.random:
            self.about |= {"seed": seed, "samples": samples}

    @property
    def rows(self) -> Sequence[str]:
        return [self.name] + ([f"{self.name}, mean of {self.samples}"] if self.samples > 1 else [])

    def make(self, lr: Batch, ids: Sequence[str], size: tuple[int, int]) -> Made:
        drawn = [self.draw(lr, ids, size, i) for i in range(self.samples)]
        if self.samples == 1:
            return Made({self.name: to_uint8(drawn[0])})
        samples, mean = np.stack([to_uint8(one) for one in drawn]), to_uint8(np.mean(drawn, axis=0))
        return Made(dict(zip(self.rows, (samples[0], mean), strict=True)), {self.name: samples})

    def draw(self, lr: Batch, ids: Sequence[str], size: tuple[int, int], sample: int) -> np.ndarray:
        """Sample number `sample` of each image, float in [-1, 1]."""
        upscaler, inputs = self.upscaler, np.asarray(lr, np.float32) / 127.5 - 1
        if self._within:
            inputs = np.stack([tiling.resize(one, self._within, self._within) for one in inputs])
        height, width = (side * upscaler.scale for side in inputs.shape[1:3])
        if not self._within and (height, width) != size:
            raise UserError(
                f"{self.name} makes images {upscaler.scale} times larger, {lr.shape[2]}×{lr.shape[1]} to {width}×{height}; "
                f"{size[1]}×{size[0]} is wanted here"
            )
        own = inputs.shape[1:] == (upscaler.lr_size, upscaler.lr_size, upscaler.channels)
        if own and not self._within:
            numbers = [image_id(id) for id in ids]
            made = upscaler.batch(lr, numbers, self._sampling, sample=sample)
        else:
            made = np.stack(
                [self._one(one, id, sample) for one, id in zip(inputs, ids, strict=True)]
            )
        if (height, width) != size:
            made = np.stack([tiling.resize(one, *size) for one in made])
        if self._match:
            given = np.asarray(lr, np.float32) / 127.5 - 1
            made = np.stack(
                [tiling.match(one, small) for one, small in zip(made, given, strict=True)]
            )
        return made

    def _one(self, lr: np.ndarray, id: str, sample: int) -> np.ndarray:
        given = (np.clip(lr, -1, 1) + 1) / 2
        made = self.upscaler(given, self._sampling, sample=sample, name=id)
        return made * 2 - 1


class Folder:
    """Images that some method has made, as files named by their id."""

    def __init__(self, name: str, files: Mapping[str, Path]):
        self.about, self.rows, self._files = (
            {"folder": name, "files": pairs.fingerprint(files)},
            [name],
            files,
        )

    def make(
        self, lr: Batch | None, ids: Sequence[str], size: tuple[int, int], channels: int = 3
    ) -> Made:
        channels = channels if lr is None else lr.shape[-1]
        found = []
        for id in ids:
            pixels = arrays.read(self._files[id], channels).pixels
            if pixels.shape[:2] != size:
                height, width = pixels.shape[:2]
                raise UserError(
                    f"{self._files[id]} is {width}×{height}, and its reference {size[1]}×{size[0]}"
                )
            found.append(pixels)
        return Made({self.rows[0]: np.stack(found)})


def to_uint8(images: np.ndarray | jax.Array) -> np.ndarray:
    """[-1, 1] to uint8, on the host."""
    return np.asarray(operations.to_uint8(jnp.asarray(images)))


def fingerprint(checkpoint: Checkpoint) -> str:
    """A few digits that are those of these parameters alone."""
    code = 0
    for leaf in jax.tree.leaves(checkpoint.params):
        code = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), code)
    return f"{code:08x}"
