"""What is measured: methods that make HR images from LR images, called contenders.

Each contender has one or more rows in the table of results, and gives its images by row.
"""

import json
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from sr3_jax.checkpoints.checkpoint import Checkpoint, fingerprint
from sr3_jax.data.source import image_id
from sr3_jax.errors import UserError
from sr3_jax.images import arrays, pairs
from sr3_jax.inference.engine import Engine
from sr3_jax.inference.sampling import Sampling
from sr3_jax.inference.upscaler import Upscaler
from sr3_jax.tasks import operations

# The underscores: sizes and channels may differ between the arrays of one function
Batch = UInt8[np.ndarray, "n _h _w _c"]
SECONDS = "seconds.json"  # beside a method's images: how long it took for each, by its path


class Made(NamedTuple):
    """What a contender makes of a batch of LR images.

    Attributes:
      images: uint8 HR images, (n, h, w, c), by row.
      samples: All samples, (s, n, h, w, c), of each row for which several were drawn.
      seconds: How long each image took, (n,), of rows that were timed.
      notes: What was converted when each image was read from a file.
    """

    images: dict[str, np.ndarray]
    samples: dict[str, np.ndarray] = {}  # noqa: RUF012 (a NamedTuple's default)
    seconds: dict[str, np.ndarray] = {}  # noqa: RUF012
    notes: Sequence[tuple[str, ...]] = ()


@runtime_checkable
class Contender(Protocol):
    """A method that makes HR images from LR images.

    `about` describes it in results.json. A run that was stopped is continued only if it is the same
    as before.
    """

    about: dict[str, Any]

    @property
    def rows(self) -> Sequence[str]:
        """The names of its rows in the table."""
        ...

    def make(self, lr: Batch, ids: Sequence[str], size: tuple[int, int]) -> Made:
        """Makes HR images from LR images of one size.

        What is made for one id does not depend on the other images of the batch.

        Args:
          lr: The LR images.
          ids: The id of each image.
          size: (height, width) of the HR images.
        """
        ...


class Resampled:
    """A baseline without a network: plain interpolation.

    Args:
      kind: "bicubic" or "nearest" (the nearest pixel), which is also the name of its row.
    """

    def __init__(self, kind: str):
        self.about, self.rows, self._kind = {"kind": kind}, [kind], kind

    def make(self, lr: Batch, ids: Sequence[str], size: tuple[int, int]) -> Made:
        """The LR images, interpolated to `size`."""
        if self._kind == "bicubic":
            large = operations.resize(operations.to_float(jnp.asarray(lr)), *size)
            return Made({"bicubic": np.asarray(operations.to_uint8(large))})
        parts = [
            np.asarray(arrays.to_pillow(one).resize(size[::-1], Image.Resampling.NEAREST))
            for one in lr
        ]
        return Made({self._kind: np.stack(parts).reshape(len(lr), *size, lr.shape[-1])})


class Drawing:
    """A checkpoint's network, whatever it is for; see `Network`, and `edits.EditNetwork`.

    It has a row for one sample and, if several samples are drawn, another for their mean. A
    regression network draws nothing at random and has one row.

    Args:
      engine: The network.
      name: The name of its row.
      samples: How many samples of each image are drawn.
      sampling: How they are drawn.
      told: What the network is told of an image, by the image's id: values by signal, of which it
        takes those that it knows, at most as strong as in its training. None: nothing.
    """

    def __init__(
        self,
        engine: Engine,
        name: str,
        samples: int,
        sampling: Sampling,
        told: Callable[[str], Mapping[str, float]] | None = None,
    ):
        checkpoint = engine.checkpoint
        self.engine, self.name = engine, name
        self.random = checkpoint.method.objective.takes_noise
        self.samples = samples if self.random else 1
        self._sampling, self._told = sampling, told
        # Raises UserError already here if the network cannot do with that many steps
        table = engine.table(sampling)
        columns = b"".join(np.asarray(column).tobytes() for column in jax.tree.leaves(table))
        self.about: dict[str, Any] = {
            "checkpoint": Path(checkpoint.name).name,
            "objective": checkpoint.config.objective,
            "step": checkpoint.step,
            "parameters": fingerprint(checkpoint),
            "evaluations": table.evaluations,
            "schedule": f"{zlib.crc32(columns):08x}",
        }
        self.about |= {"seed": sampling.seed, "samples": samples} if self.random else {}
        signals = [one.name for one in checkpoint.method.task.signals if one.removed]
        self.about |= {"told": signals} if told else {}

    @property
    def rows(self) -> Sequence[str]:
        """The row of the first sample, and that of the mean if there are several samples."""
        return [self.name] + ([f"{self.name}, mean of {self.samples}"] if self.samples > 1 else [])

    def make(self, lr: Batch, ids: Sequence[str], size: tuple[int, int]) -> Made:
        """Draws all samples of each image; raises UserError if the network cannot make `size`."""
        drawn = [self.draw(lr, ids, size, i) for i in range(self.samples)]
        if self.samples == 1:
            return Made({self.name: to_uint8(drawn[0])})
        samples, mean = np.stack([to_uint8(one) for one in drawn]), to_uint8(np.mean(drawn, axis=0))
        return Made(dict(zip(self.rows, (samples[0], mean), strict=True)), {self.name: samples})

    def draw(self, lr: Batch, ids: Sequence[str], size: tuple[int, int], sample: int) -> np.ndarray:
        """Sample number `sample` of each image, float in [-1, 1].

        Raises:
          UserError: The network cannot make images of `size` from the LR images.
        """
        raise NotImplementedError

    def _signals(self, id: str) -> dict[str, float]:
        """What the network is told of an image."""
        values = self._told(id) if self._told else {}
        signals = self.engine.method.task.signals
        return {one.name: min(values[one.name], one.high) for one in signals if one.name in values}


class Network(Drawing):
    """A checkpoint's network that enlarges images.

    Args:
      checkpoint: The network.
      name: The name of its row.
      samples: How many samples of each image are drawn.
      steps: The number of network evaluations, instead of the checkpoint's own.
      seed: The seed of all samples.
      match_input: Whether results are corrected to agree with their input. If not they are raw,
        whatever the checkpoint's default.
      within: The side to which the LR images are first resized, for a protocol whose sizes are not
        the network's.
      told: What the network is told of an image; see `Drawing`.
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
        told: Callable[[str], Mapping[str, float]] | None = None,
    ):
        self.upscaler = Upscaler(checkpoint)
        sampling = Sampling(steps, seed=seed, match_input=False)
        super().__init__(self.upscaler.engine, name, samples, sampling, told)
        self._match, self._within = match_input, within
        self.about |= {"match_input": match_input}

    def draw(self, lr: Batch, ids: Sequence[str], size: tuple[int, int], sample: int) -> np.ndarray:
        """Sample number `sample` of each image, float in [-1, 1].

        Raises:
          UserError: The network's scale does not lead from the LR images to `size`.
        """
        upscaler = self.upscaler
        side = self._within
        given = np.asarray(lr, np.float32) / 127.5 - 1
        inputs = (
            np.stack([operations.resize_canvas(one, side, side) for one in given])
            if side
            else given
        )
        height, width = (length * upscaler.scale for length in inputs.shape[1:3])
        if not side and (height, width) != size:
            raise UserError(
                f"{self.name} makes images {upscaler.scale} times larger, "
                f"{lr.shape[2]}×{lr.shape[1]} to {width}×{height}; "
                f"{size[1]}×{size[0]} is wanted here"
            )
        told = [self._signals(id) for id in ids]
        own = inputs.shape[1:] == (upscaler.lr_size, upscaler.lr_size, upscaler.channels)
        if own and not side:
            signals = {name: np.array([one[name] for one in told]) for name in told[0]}
            made = upscaler.batch(
                lr,
                [image_id(id) for id in ids],
                self._sampling,
                sample=sample,
                signals=signals or None,
            )
        else:
            each = zip(inputs, ids, told, strict=True)
            made = np.stack([self._one(one, id, sample, signals) for one, id, signals in each])
        if (height, width) != size:
            made = np.stack([operations.resize_canvas(one, *size) for one in made])
        if self._match:
            task = upscaler.engine.method.task
            made = np.stack(
                [task.compose(small, one) for one, small in zip(made, given, strict=True)]
            )
        return made

    def _one(
        self, lr: np.ndarray, id: str, sample: int, signals: Mapping[str, float]
    ) -> np.ndarray:
        given = (np.clip(lr, -1, 1) + 1) / 2
        made = self.upscaler(given, self._sampling, sample=sample, name=id, signals=signals)
        return made * 2 - 1


class Folder:
    """Images that some method, not necessarily ours, has made and written to files.

    Args:
      name: The name of its row.
      files: The file of each image by the image's id.
      seconds: How long the method took for each image by the image's id, if that is known.
      channels: Of the images; 0: as many as the LR images have.
    """

    def __init__(
        self,
        name: str,
        files: Mapping[str, Path],
        seconds: Mapping[str, float] | None = None,
        channels: int = 0,
    ):
        self.about, self.rows, self._files = (
            {"folder": name, "files": pairs.fingerprint(files)},
            [name],
            files,
        )
        self._seconds, self._channels = seconds, channels

    def make(self, lr: Batch, ids: Sequence[str], size: tuple[int, int]) -> Made:
        """Reads the images of `ids`; raises UserError if they are not of `size`."""
        channels = self._channels or lr.shape[-1]
        decoded = [arrays.read(self._files[id], channels) for id in ids]
        found = [one.pixels for one in decoded]
        for id, pixels in zip(ids, found, strict=True):
            if pixels.shape[:2] != size:
                height, width = pixels.shape[:2]
                raise UserError(
                    f"{self._files[id]} is {width}×{height}, and its reference {size[1]}×{size[0]}"
                )
        times = {self.rows[0]: np.array([self._seconds[id] for id in ids])} if self._seconds else {}
        return Made({self.rows[0]: np.stack(found)}, {}, times, [one.notes for one in decoded])


def seconds(folder: Path, files: Mapping[str, Path]) -> dict[str, float] | None:
    """How long each of a method's images took, by its id, as SECONDS in `folder` or above says.

    None if nothing says so of all of them. The scripts in benchmarks/rivals write that file.
    """
    for root in (folder, folder.parent):
        if (root / SECONDS).is_file():
            known = _read_seconds(root / SECONDS)
            found = {id: known.get(file.relative_to(root).as_posix()) for id, file in files.items()}
            return {id: one for id, one in found.items() if one} if all(found.values()) else None
    return None


def _read_seconds(path: Path) -> dict[str, float]:
    try:
        return {name: float(value) for name, value in json.loads(path.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} must hold the seconds of each image by its path, as JSON: {error}"
        ) from error


class Timed:
    """A contender that is timed: it makes one image at a time, as a user would.

    The first image of every size is made twice, so that compiling is not counted, and every image
    where sizes do not say what is compiled. With several
    samples the time is that of one.

    Args:
      contender: What is timed.
    """

    def __init__(self, contender: Contender):
        self._contender, self._compiled = contender, set[tuple[int, ...]]()
        self.about = contender.about | {"timed": True}

    @property
    def rows(self) -> Sequence[str]:
        """The contender's."""
        return self._contender.rows

    def make(self, lr: Batch, ids: Sequence[str], size: tuple[int, int]) -> Made:
        """As the contender does, one image at a time."""
        if lr.shape[1:] not in self._compiled:
            self._contender.make(lr[:1], ids[:1], size)
            self._compiled.add(lr.shape[1:])
        parts, times = [], []
        for i in range(len(lr)):
            if getattr(self._contender, "compiles_each", False):
                self._contender.make(lr[i : i + 1], ids[i : i + 1], size)
            start = time.perf_counter()
            parts.append(self._contender.make(lr[i : i + 1], ids[i : i + 1], size))
            times.append(time.perf_counter() - start)
        images, samples = parts[0].images, parts[0].samples
        return Made(
            {row: np.concatenate([one.images[row] for one in parts]) for row in images},
            {row: np.concatenate([one.samples[row] for one in parts], axis=1) for row in samples},
            {self.rows[0]: np.array(times) / getattr(self._contender, "samples", 1)},
        )


def to_uint8(images: np.ndarray | jax.Array) -> np.ndarray:
    """Images in [-1, 1] as uint8 images, in the host's memory."""
    return np.asarray(operations.to_uint8(jnp.asarray(images)))
