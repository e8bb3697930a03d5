"""SR3 as one object: what a config means, in terms of the network, the diffusion and the degradation.

This is the only place where the three meet. Training asks it for losses, inference for images.

    hr ──degrade──▶ lr ──upsample──▶ condition;    y_0 = hr, or (hr - condition) / residual_scale (model.predict_residual)

A network that predicts and refines (model.kind = "refine") makes a better condition of the upsampled image first: its guess of
the HR image, and features of it as further channels.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree
from ml_collections import ConfigDict

from sr3_jax.config import ConfigError, validate
from sr3_jax.data import degradations
from sr3_jax.diffusion import losses, process, samplers, schedules
from sr3_jax.diffusion.samplers import Steps
from sr3_jax.diffusion.schedules import NoiseSchedule
from sr3_jax.diffusion.types import Denoiser, Images, Keys
from sr3_jax.models import build_model

LowResolution = Float[Array, "b lr_h lr_w c"]
Condition = Float[Array, "b h w k"]  # an image, and further channels if a predictor hands them on


class Flaws(NamedTuple):
    """What is wrong with an LR image, for a network that can be told: a number for all images, or one each."""

    noise: float | Array = 0.0  # standard deviation, in 8-bit levels
    blur: float | Array = 0.0  # sigma of a Gaussian, in LR pixels


FLAWLESS = Flaws()


@dataclass(frozen=True)
class Method:
    """The functions that a config defines. Stateless: parameters come in as an argument, `model`'s "params" collection."""

    config: ConfigDict
    model: Any = field(init=False)
    schedule: NoiseSchedule = field(init=False)

    def __post_init__(self):
        object.__setattr__(
            self,
            "model",
            build_model(self.config.model, self.config.data.hr_size, self.regression, self.flaws),
        )
        object.__setattr__(self, "schedule", training_schedule(self.config))

    @property
    def regression(self) -> bool:
        return self.config.objective == "regression"

    @property
    def student(self) -> bool:
        """Whether it learns from another's samples, and knows the levels of sample.steps evaluations only."""
        return self.config.objective == "distill"

    @property
    def refines(self) -> bool:
        """Whether a predictor makes the condition."""
        return self.config.model.kind == "refine" and not self.regression

    @property
    def most(self) -> Flaws:
        """The strongest flaws of an LR image that the network is told of; 0: it knows of none."""
        data = self.config.data
        return Flaws(data.noise, data.blur if data.tell_blur else 0.0)

    @property
    def flaws(self) -> tuple[str, ...]:
        """Those that it is told of."""
        return tuple(flaw for flaw, most in self.most._asdict().items() if most)

    def _told(self, flaws: Flaws, b: int) -> dict[str, Any]:
        """The argument by which the network is told as much as it understands."""
        return {"flaws": {flaw: jnp.broadcast_to(getattr(flaws, flaw), b) for flaw in self.flaws}} if self.flaws else {}

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of an HR image."""
        return (self.config.data.hr_size, self.config.data.hr_size, self.config.model.image_channels)

    # -- images in and out of the space that is diffused

    def encode(self, hr: Images, condition: Condition) -> Images:
        """HR image to y_0."""
        model = self.config.model
        return (hr - condition[..., : model.image_channels]) / model.residual_scale if model.predict_residual else hr

    def decode(self, y_0: Any, condition: Any) -> Any:
        """y_0 to the HR image; both arrays of JAX or of NumPy, with or without a batch."""
        model = self.config.model
        return condition[..., : model.image_channels] + model.residual_scale * y_0 if model.predict_residual else y_0

    def degrade(self, hr: Images) -> LowResolution:
        data = self.config.data
        return degradations.degrade(hr, data.lr_size, quantize_lr=data.quantize_lr)

    def upsample(self, lr: LowResolution) -> Images:
        return degradations.upsample(lr, self.config.data.hr_size)

    def condition(self, params: PyTree, upsampled: Images, flaws: Flaws = FLAWLESS) -> Condition:
        """What the network is shown of the upsampled LR image: the image itself, or the predictor's guess and features.

        The guess takes the image's place, so that `encode` and `decode` go from it.
        """
        if not self.refines:
            return upsampled
        told, c = self._told(flaws, len(upsampled)), self.config.model.image_channels
        predicted = self.model.apply({"params": params}, upsampled, method="predict", **told)
        return jnp.concatenate([self.decode(predicted[..., :c], upsampled), predicted[..., c:]], axis=-1)

    @property
    def condition_channels(self) -> int:
        """How many channels `condition` makes."""
        model = self.config.model
        return model.image_channels + (model.feature_channels if self.refines else 0)

    # -- training

    def init(self, key: Key[Array, ""]) -> PyTree:
        """Random parameters, float32."""
        image = jnp.zeros((1, *self.shape))
        noise = () if self.regression else (image, jnp.ones((1,)))
        return self.model.init(key, image, *noise, **({"method": "both"} if self.refines else {}))["params"]

    def loss(
        self, params: PyTree, images: Array, key: Key[Array, ""], train: bool = True, teacher: PyTree = None
    ) -> Float[Array, " b"]:
        """The loss of each image of a uint8 batch (b, h, w, c), for training unless `train` is off (no dropout or blur).

        `teacher` holds the parameters of a student's teacher, a network like it.
        """
        diffusion_key, dropout_key, blur_key, noise_key = jax.random.split(key, 4)
        data, flaws = self.config.data, FLAWLESS
        hr = degradations.to_float(images)
        lr = self.degrade(hr)
        if train:
            lr, blur = degradations.augment_blur(lr, blur_key, data.blur)
            lr, noise = degradations.augment_noise(lr, noise_key, data.noise)
            flaws = Flaws(noise, blur)
            if self.flaws:  # as in the file that it will be read from
                lr = degradations.quantize(lr) if data.quantize_lr else jnp.clip(lr, -1, 1)
        upsampled = self.upsample(lr)
        condition = self.condition(params, upsampled, flaws)
        predictor_loss: Any = 0.0
        if self.refines:
            c = self.config.model.image_channels
            if not self.student:  # both learn at once, each its own task: the refiner's must not move the guess
                predictor_loss = losses.distance(self.encode(condition[..., :c], upsampled), self.encode(hr, upsampled), "l2")
                condition = jnp.concatenate([jax.lax.stop_gradient(condition[..., :c]), condition[..., c:]], axis=-1)
            else:  # a student keeps its teacher's predictor
                condition = jax.lax.stop_gradient(condition)
        y_0 = self.encode(hr, condition)

        told = self._told(flaws, hr.shape[0])
        dropout = train and not self.student  # a teacher's answer has no noise in it that could be overfitted

        def network(*inputs: Array) -> Array:
            return self.model.apply({"params": params}, *inputs, train=dropout, rngs={"dropout": dropout_key}, **told)

        if self.regression:
            return losses.distance(network(condition), y_0, "l2")
        shared = {"predict": self.config.model.predict, "norm": self.config.train.loss}
        if self.student:
            wise = self.denoiser(teacher, flaws)
            levels = sampling_schedule(self.config, self.config.sample.steps)
            steps = self.config.train.teacher_steps
            return losses.distillation_loss(network, wise, condition, y_0, diffusion_key, levels, steps, **shared)
        return predictor_loss + losses.sr3_loss(network, condition, y_0, diffusion_key, self.schedule, **shared)

    # -- inference

    def denoiser(self, params: PyTree, flaws: Flaws = FLAWLESS) -> Denoiser:
        """The network as `diffusion` sees it: (condition, y_t, gamma) -> y_0, the image clipped if sample.clip.

        The regression's looks at the condition alone. The network is told those flaws of the LR image that it understands.
        """

        def network(*inputs: Array) -> Array:
            return self.model.apply({"params": params}, *inputs, **self._told(flaws, len(inputs[0])))

        def denoise(condition: Array, y_t: Array, gamma: Array) -> Array:
            if self.regression:
                return network(condition)
            output = network(condition, y_t, gamma)
            y_0, _ = process.to_y_0_and_epsilon(self.config.model.predict, output, y_t, gamma)
            if self.config.sample.clip:
                y_0 = self.encode(jnp.clip(self.decode(y_0, condition), -1, 1), condition)
            return y_0

        return denoise

    def super_resolve(
        self,
        params: PyTree,
        lr: LowResolution,
        keys: Keys,
        steps: Steps | int | None = None,
        flaws: Flaws = FLAWLESS,
    ) -> Images:
        """HR images, in [-1, 1], from LR images in [-1, 1]: by a sampler, or the regression's single evaluation.

        `steps` is a number of evaluations for config.sample's sampler, by default its own, or any table of samplers.py.
        `flaws` are those of `lr`, of which the network is told as much as it understands.
        """
        upsampled = self.upsample(lr)
        condition = self.condition(params, upsampled, flaws)
        table = steps if isinstance(steps, Steps) else sampling_steps(self.config, steps)
        y_0 = samplers.sample(self.denoiser(params, flaws), condition, keys, table, shape=upsampled.shape)
        return jnp.clip(self.decode(y_0, condition), -1, 1)


def training_schedule(config: ConfigDict) -> NoiseSchedule:
    """The schedule behind p(gamma)."""
    c = config.schedule
    if c.name == "linear":
        return schedules.linear(c.steps, c.beta_start, c.beta_end)
    if c.name == "cosine":
        return schedules.cosine(c.steps, c.log_snr_start, c.log_snr_end)
    return schedules.log_snr(c.steps, c.log_snr_start, c.log_snr_end)


def sampling_steps(config: ConfigDict, evaluations: int | None = None, changes: Mapping[str, Any] | None = None) -> Steps:
    """The table of config.sample's sampler for at most that many network evaluations, by default sample.steps.

    `changes` replaces fields of config.sample. Raises ConfigError when it cannot give that many. The regression's has one row,
    whose result is the prediction. A student's is what it learned: DDIM at its own levels.
    """
    if config.objective == "regression":
        return samplers.ddim(sampling_schedule(config, 1))
    if config.objective == "distill":
        own = config.sample.steps
        if (evaluations or own) != own or (changes or {"sampler": "ddim"}) != {"sampler": "ddim"}:
            raise ConfigError(f"this network was distilled for sample.steps = {own} evaluations of DDIM, and knows no others")
        return samplers.ddim(sampling_schedule(config, own))
    config = config.copy_and_resolve_references()
    config.sample.update(changes or {})
    validate(config)
    sample = config.sample
    count = sample.steps if evaluations is None else evaluations
    if sample.sampler == "heun":
        return samplers.heun(sampling_schedule(config, (count + 1) // 2))  # two evaluations a step, but for the last
    schedule = sampling_schedule(config, count)
    if sample.sampler == "ancestral":
        return samplers.ancestral(schedule, sample.variance)
    return {"ddim": samplers.ddim, "dpm_solver": samplers.dpm_solver}[sample.sampler](schedule, sample.eta)


def sampling_schedule(config: ConfigDict, steps: int) -> NoiseSchedule:
    """`steps` levels for sampling, whatever the training schedule: they end where training ended, at the same gamma_T.

    Raises ConfigError when config.sample cannot give that many.
    """
    training, sample = training_schedule(config), config.sample
    gamma_end, one_minus = float(np.asarray(training.gamma)[-1]), float(np.asarray(training.one_minus_gamma)[-1])
    try:
        if sample.schedule == "linear":
            return schedules.linear_to(steps, gamma_end, sample.beta_start)
        if sample.schedule == "log_snr":
            return schedules.log_snr(steps, sample.log_snr_start, math.log(gamma_end / one_minus), sample.rho)
        return schedules.respaced(training, steps)
    except ValueError as error:
        raise ConfigError(f"sample.schedule = {sample.schedule!r} cannot give {steps} steps: {error}") from error


def image_key(seed: int | Array, image_id: int | Array, sample: int | Array = 0) -> Key[Array, ""]:
    """The key of one sample of one image: fold_in(fold_in(seed, image id), sample), and of nothing else."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), image_id), sample)
