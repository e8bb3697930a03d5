"""Blind super-resolution: of photographs that were blurred, noisy and compressed, nobody knows how.

The corruption has two orders, after Real-ESRGAN (arXiv 2107.10833) and SR3+ (arXiv 2302.07864):

    HR ─ blur ─ resize ─ noise ─ JPEG ──▶ a picture of any size
       ─ blur ─ resize ─ noise ─ JPEG ──▶ the LR image

The first is what happened to a picture before somebody made it smaller; some pictures have no such
past (task.first_order). Blur is of many shapes, resizing of four methods, noise of the sensor or of
the light. Other than there, weak corruptions are more likely than strong ones (task.skew), and some
examples are clean (task.clean), because most photographs are good ones.
"""

import math
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key
from ml_collections import ConfigDict

from sr3_jax.tasks import operations
from sr3_jax.tasks.filters import (
    METHODS,
    Shape,
    blur_kernels,
    convolve,
    resample,
    sinc_kernels,
    spread_of,
)
from sr3_jax.tasks.jpeg import jpeg
from sr3_jax.tasks.super_resolution import SuperResolution
from sr3_jax.tasks.task import UNKNOWN, Given, Images, Signal

PerImage = Float[Array, " b"]
SHAPES = ("isotropic", "anisotropic", "generalised", "plateau", "sinc")  # of blur
KERNEL = 29  # pixels; Real-ESRGAN has 21, but to blur by 1.6 LR pixels at 4× takes more


class _Draws(NamedTuple):
    """Random numbers for a batch; each is a function of the key and of its own name."""

    key: Key[Array, ""]
    b: int

    def named(self, name: str) -> Key[Array, ""]:
        return jax.random.fold_in(self.key, zlib.crc32(name.encode()))

    def uniform(self, name: str, low: float = 0.0, high: float = 1.0) -> PerImage:
        return jax.random.uniform(self.named(name), (self.b,), minval=low, maxval=high)

    def choice(self, name: str, weights: Sequence[float | int]) -> Array:
        logits = jnp.log(jnp.asarray(weights, jnp.float32))
        return jax.random.categorical(self.named(name), logits, shape=(self.b,))


class Blind(SuperResolution):
    """Makes LR images of unknown quality; the network may be told of it, or not."""

    def __init__(self, config: ConfigDict):
        super().__init__(config)
        self._config = config.task

    @property
    def signals(self) -> tuple[Signal, ...]:
        """The strengths of blur, noise and JPEG over both orders; each may be unknown."""
        # Blurs of both orders add up, and so do noises; only the last compression is told
        growth = {"jpeg": 1.0}
        return tuple(
            signal._replace(high=signal.high * growth.get(signal.name, math.sqrt(2)), optional=True)
            if signal.removed
            else signal
            for signal in super().signals
        )

    def corrupt(
        self, image: Images, key: Key[Array, ""] | None = None, *, train: bool = False
    ) -> Given:
        """LR images (b, h / scale, w / scale, c) of HR images; see `Task.corrupt`."""
        if key is None:
            return super().corrupt(image)
        draws = _Draws(key, len(image))
        height, width = image.shape[1:3]
        whole = jnp.broadcast_to(jnp.asarray([height, width], jnp.float32), (len(image), 2))
        final = jnp.floor(whole / self._scale)
        ratio = draws.uniform("ratio", *self._config.first_size)[:, None]
        middle = jnp.maximum(jnp.floor(whole * ratio), final)
        clean = draws.uniform("clean") < self._config.clean
        once = clean | (draws.uniform("order") >= self._config.first_order)
        middle = jnp.where(once[:, None], whole, middle)

        first = self._strengths(draws, "first ", once)
        image, blur = self._blur(draws, "first ", image, first["blur"] * self._scale)
        first["blur"] = blur / self._scale
        image = resample(image, whole, middle, self._method(draws, "first "), (height, width))
        image = self._noise(draws, "first ", image, first["noise"])
        image = self._jpeg(draws, "first ", image, first["jpeg"])

        last = self._strengths(draws, "", clean)
        fineness = middle[:, 0] / final[:, 0]
        image, blur = self._blur(draws, "", image, last["blur"] * fineness)
        last["blur"] = blur / fineness
        method = jnp.where(clean, METHODS.index("bicubic"), self._method(draws, ""))
        size = height // self._scale, width // self._scale
        lr = resample(image, middle, final, method, size)
        lr = self._noise(draws, "", lr, last["noise"])
        lr = self._jpeg(draws, "", operations.quantize(lr), last["jpeg"])

        total = {
            "blur": jnp.hypot(first["blur"], last["blur"]),
            # Pixels of which several become one have their noise averaged
            "noise": jnp.hypot(first["noise"] / jnp.maximum(fineness, 1), last["noise"]),
            "jpeg": last["jpeg"],
        }
        return Given(operations.quantize(lr), self._told_of(draws, total))

    def _strengths(self, draws: _Draws, order: str, none: Array) -> dict[str, PerImage]:
        """How strong blur (LR pixels), noise (8-bit levels) and JPEG (100 - quality) are."""
        out = {}
        for name in ("blur", "noise", "jpeg"):
            strength = self._config[name] * draws.uniform(f"{order}{name}") ** self._config.skew
            absent = draws.uniform(f"{order}{name} at all") >= self._config.often
            out[name] = jnp.where(none | absent, 0.0, strength)
        return out

    def _told_of(self, draws: _Draws, total: dict[str, PerImage]) -> dict[str, PerImage]:
        """The signals, some of them unknown: all of an image's at once, or each by itself."""
        all_unknown = draws.uniform("unknown") < self._config.unknown
        return {
            signal.name: jnp.where(
                all_unknown | (draws.uniform(f"{signal.name} unknown") < self._config.unknown / 2),
                UNKNOWN,
                jnp.minimum(total[signal.name], signal.high),
            )
            for signal in self.signals
            if signal.removed
        }

    def _method(self, draws: _Draws, order: str) -> Array:
        return draws.choice(f"{order}method", self._config.methods)

    def _blur(
        self, draws: _Draws, order: str, image: Images, sigma: PerImage
    ) -> tuple[Images, PerImage]:
        """Blurs by a kernel of one of SHAPES; sigma is in pixels of the image.

        Also returns by how much: the standard deviation of the kernel itself. It is smaller than
        sigma where the kernel is narrow in one direction or is cut off at its edge, and larger
        where its tail is heavy.
        """
        kind = draws.choice(f"{order}shape", self._config.shapes)
        isotropic, plateau, sinc = (
            kind == SHAPES.index(name) for name in ("isotropic", "plateau", "sinc")
        )
        beta = draws.uniform(f"{order}beta", math.log(0.5), math.log(4.0))
        flat = jnp.exp(draws.uniform(f"{order}beta", 0.0, math.log(2.0)))
        generalised = kind == SHAPES.index("generalised")
        shape = Shape(
            sigma=sigma,
            ratio=jnp.where(isotropic, 1.0, draws.uniform(f"{order}ratio of sigmas", 0.3, 1.0)),
            angle=draws.uniform(f"{order}angle", 0.0, math.pi),
            beta=jnp.where(plateau, flat, jnp.where(generalised, jnp.exp(beta), 1.0)),
            plateau=plateau.astype(jnp.float32),
        )
        # A low-pass of the same strength: a Gaussian's spectrum is down to e^(-1/2) at 1 / sigma
        cutoff = jnp.clip(2 / jnp.maximum(sigma, 1e-3), math.pi / 8, math.pi)
        kernels = blur_kernels(shape, KERNEL)
        # A sinc's side lobes are negative: it has no standard deviation, but for that of its cutoff
        spread = jnp.where(sinc, sigma, spread_of(kernels))
        kernels = jnp.where(sinc[:, None, None], sinc_kernels(cutoff, KERNEL), kernels)
        blurred = sigma > 0.05
        image = jnp.where(blurred[:, None, None, None], convolve(image, kernels), image)
        return image, jnp.where(blurred, spread, 0.0)

    def _noise(self, draws: _Draws, order: str, image: Images, sigma: PerImage) -> Images:
        """Adds noise of `sigma` 8-bit levels, at mid grey; some is grey, some grows with light."""
        unit = jax.random.normal(draws.named(f"{order}noise itself"), image.shape)
        grey = (draws.uniform(f"{order}grey") < self._config.grey_noise)[:, None, None, None]
        unit = jnp.where(grey, unit[..., :1], unit)
        # A count's variance is its mean; counts of light are large, and so nearly Gaussian
        shot = (draws.uniform(f"{order}shot") < self._config.shot_noise)[:, None, None, None]
        growth = jnp.where(shot, jnp.sqrt(jnp.clip(image, -1, 1) + 1), 1.0)
        return image + sigma[:, None, None, None] / 127.5 * growth * unit

    def _jpeg(self, draws: _Draws, order: str, image: Images, strength: PerImage) -> Images:
        subsample = draws.uniform(f"{order}chroma") < self._config.subsampled
        compressed = jpeg(image, 100 - strength, subsample)
        return jnp.where((strength > 0)[:, None, None, None], compressed, image)
