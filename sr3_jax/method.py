"""What a config describes, as one object: task, network, objective and noise schedule together.

This is the only place where the four meet. Training asks it for losses, inference for images.

    hr ──task.corrupt──▶ given ──task.condition──▶ condition
    y_0 = hr, or (hr - condition) / residual_scale (model.predict_residual)

For generation there is no condition: it is an image without channels.

A network that predicts and refines (model.kind = "refine") replaces the task's condition by a
better one: its own guess of the HR image, with features of the image as further channels.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree
from ml_collections import ConfigDict

from sr3_jax.diffusion import process, samplers
from sr3_jax.diffusion.guidance import Guidance, guided
from sr3_jax.diffusion.samplers import Steps
from sr3_jax.diffusion.schedules import NoiseSchedule
from sr3_jax.diffusion.types import Denoiser, Images, Keys
from sr3_jax.models import Told, build_model
from sr3_jax.objectives import Objective, build_objective
from sr3_jax.objectives.levels import training_schedule
from sr3_jax.objectives.objective import Example
from sr3_jax.tasks import build_task
from sr3_jax.tasks.augmentation import SIGNAL as AUGMENT
from sr3_jax.tasks.augmentation import augment, augmented
from sr3_jax.tasks.labels import LABEL, labelled
from sr3_jax.tasks.operations import to_float
from sr3_jax.tasks.task import UNKNOWN, Given, Signals, Task

# Samplers take fold_in(key, t) of an image's key, t the number of a step; there are never so many
AUGMENTATION = 2**31 - 1
LABELS = 2**31 - 2  # of the key of a batch's corruptions: of which images no class is told
Condition = Float[Array, "b h w k"]  # an image, and further channels if a predictor hands them on


@dataclass(frozen=True)
class Method:
    """The functions that a config defines.

    It holds no parameters: they are an argument, the "params" collection of the Flax `model`.
    """

    config: ConfigDict
    task: Task = field(init=False)
    objective: Objective = field(init=False)
    model: Any = field(init=False)
    schedule: NoiseSchedule = field(init=False)

    def __post_init__(self):
        config = self.config
        task, objective = build_task(config), build_objective(config)
        signals = tuple(
            Told(each.name, each.scale, each.optional, each.classes) for each in task.signals
        )
        objective.table()  # the config's own sampling, whose errors should not come after training
        schedule = training_schedule(config)
        levels = ()
        if config.model.gamma_embedding == "timestep":
            ratio = np.asarray(schedule.gamma[1:], np.float64) / schedule.one_minus_gamma[1:]
            levels = tuple(np.log(ratio).tolist())
        model = build_model(
            config.model, config.data.hr_size, not objective.takes_noise, signals, levels
        )
        values = {"task": task, "objective": objective, "model": model, "schedule": schedule}
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def refines(self) -> bool:
        """Whether a predictor makes the condition."""
        return self.config.model.kind == "refine" and self.objective.takes_noise

    @property
    def generates(self) -> bool:
        """Whether images are made from noise alone, without an input image."""
        return self.config.task.kind == "generation"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of an HR image."""
        size = self.config.data.hr_size
        return size, size, self.config.model.image_channels

    @property
    def condition_channels(self) -> int:
        """How many channels `condition` makes."""
        model = self.config.model
        if self.refines:  # the predictor's guess takes the place of the task's condition
            return model.image_channels + model.feature_channels
        return self.task.condition_channels

    # -- between HR images and y_0, which is what noise is added to

    def encode(self, hr: Images, condition: Condition) -> Images:
        """y_0, which noise is added to, of an HR image: that itself, or its scaled residual."""
        model = self.config.model
        return (
            (hr - condition[..., : model.image_channels]) / model.residual_scale
            if model.predict_residual
            else hr
        )

    def decode(self, y_0: Any, condition: Any) -> Any:
        """The HR image of y_0: the inverse of `encode`.

        Both arguments are arrays of JAX or of NumPy, with or without a batch axis.
        """
        model = self.config.model
        return (
            condition[..., : model.image_channels] + model.residual_scale * y_0
            if model.predict_residual
            else y_0
        )

    def condition(
        self, params: PyTree, upsampled: Images, signals: Signals | None = None
    ) -> Condition:
        """What the network is conditioned on, made from the upsampled LR image.

        That is the upsampled image itself, or, for a network that refines, the predictor's guess
        and features. The guess takes the image's place: `encode` and `decode` are relative to it.
        """
        if not self.refines:
            return upsampled
        c = self.config.model.image_channels
        predicted = self.model.apply(
            {"params": params},
            upsampled,
            method="predict",
            **self._told(signals, upsampled.shape[0]),
        )
        return jnp.concatenate(
            [self.decode(predicted[..., :c], upsampled), predicted[..., c:]], axis=-1
        )

    def _told(self, signals: Signals | None, b: int) -> dict[str, Any]:
        """The network's argument `told`: every signal that it knows, for b images."""
        values = signals or {}
        told = {
            signal.name: jnp.broadcast_to(values.get(signal.name, signal.missing), b)
            for signal in self.task.signals
        }
        return {"told": told} if told else {}

    # -- training

    def init(self, key: Key[Array, ""]) -> PyTree:
        """Random parameters, float32."""
        image = jnp.zeros((1, *self.shape))
        condition = jnp.zeros((*image.shape[:3], self.task.condition_channels))
        noise = (image, jnp.ones((1,))) if self.objective.takes_noise else ()
        return self.model.init(
            key, condition, *noise, **({"method": "both"} if self.refines else {})
        )["params"]

    def loss(
        self,
        params: PyTree,
        images: Array,
        key: Key[Array, ""],
        train: bool = True,
        teacher: PyTree = None,
        features: PyTree = None,
        discriminator: PyTree = None,
        labels: Array | None = None,
    ) -> Float[Array, " b"]:
        """The loss of each image of a batch.

        Args:
          params: of the network.
          images: uint8 (b, hr_size, hr_size, c).
          key: everything random in the loss is a function of it.
          train: False for held-out images: no dropout, and LR images without blur or noise.
          teacher: in distillation, parameters of the teacher, a network of the same shape.
          features: with train.perceptual_weight or adversarial_weight, the weights of LPIPS.
          discriminator: with train.adversarial_weight, its parameters.
          labels: with model.classes, the class of each image, int32 (b,), below 0 if unknown.
        """
        diffusion_key, dropout_key, task_key, augment_key = jax.random.split(key, 4)
        hr = to_float(images)
        given = self.task.corrupt(hr, task_key if train else None, train=train)
        if train:
            given = augmented(given, self.config.task.augment, augment_key)
        if self.config.model.classes:
            label_key = jax.random.fold_in(task_key, LABELS) if train else None
            given = labelled(given, labels, self.config.train.label_dropout, label_key)
        dropout = dropout_key if train else None
        example = Example(hr, given, diffusion_key, dropout, teacher, features, discriminator)
        return self.objective.loss(self, params, example)

    def network(
        self,
        params: PyTree,
        signals: Signals | None = None,
        dropout: Key[Array, ""] | None = None,
        variance: bool = False,
    ) -> Callable[..., Array]:
        """The bare network, from (condition, y_t, gamma), or the condition alone, to its output.

        Args:
          params: of the network.
          signals: what it is told of its input, by name; for missing ones see `Signal.missing`.
          dropout: the random key of dropout; None: no dropout.
          variance: whether the output is followed by that of a learned variance, if there is one.
        """
        kept = None if variance or not self.config.model.learned_variance else self.shape[-1]

        def network(*inputs: Array) -> Array:
            told = self._told(signals, inputs[0].shape[0])
            more = {} if dropout is None else {"train": True, "rngs": {"dropout": dropout}}
            output = self.model.apply({"params": params}, *inputs, **more, **told)
            return output if kept is None else output[..., :kept]

        return network

    # -- inference

    def denoiser(
        self,
        params: PyTree,
        signals: Signals | None = None,
        guidance: Guidance | None = None,
        variance: bool = False,
    ) -> Denoiser:
        """The network as the samplers see it: (condition, y_t, gamma) -> y_0.

        The image that y_0 stands for is clipped to [-1, 1] if sample.clip; where the task knows it,
        it is what is known. A network that takes no
        noise (regression) looks at the condition alone.

        Args:
          params: of the network.
          signals: what it is told of its input, by name; for missing ones see `Signal.missing`.
          guidance: None: none. Else every evaluation is of twice as many images, and gamma must be
            the same for all of them.
          variance: whether y_0 is followed by v of a learned variance, if there is one.
        """
        estimate = self._estimator(params, signals)
        if guidance is not None:
            estimate = guided(self._both(params, signals or {}), estimate, guidance)

        def denoise(condition: Array, y_t: Array, gamma: Array) -> Array:
            if not self.objective.takes_noise:
                return self.network(params, signals)(condition)
            found = estimate(condition, y_t, gamma)
            c = self.config.model.image_channels
            y_0, share = found[..., :c], found[..., c:]
            if self.config.sample.clip:
                y_0 = self.encode(jnp.clip(self.decode(y_0, condition), -1, 1), condition)
            if not self.refines and (known := self.task.known(condition)) is not None:
                # Training has not looked at what the network says there
                y_0 = jnp.where(known, self.encode(condition[..., :c], condition), y_0)
            return jnp.concatenate([y_0, share], axis=-1) if variance and share.shape[-1] else y_0

        return denoise

    def _estimator(self, params: PyTree, signals: Signals | None) -> Denoiser:
        """The network's y_0, not clipped; and v, if it has learned a variance."""
        network, model = self.network(params, signals, variance=True), self.config.model

        def estimate(condition: Array, y_t: Array, gamma: Array) -> Array:
            output = network(condition, y_t, gamma)
            seen, share = jnp.split(output, [model.image_channels], axis=-1)
            y_0 = process.to_y_0_and_epsilon(model.predict, seen, y_t, gamma)[0]
            return jnp.concatenate([y_0, (share + 1) / 2], axis=-1) if share.shape[-1] else y_0

        return estimate

    def _both(
        self, params: PyTree, signals: Signals
    ) -> Callable[[Array, Array, Array], tuple[Array, Array]]:
        """The network's y_0 with the class and without it, in one evaluation of both."""

        def both(condition: Array, y_t: Array, gamma: Array) -> tuple[Array, Array]:
            b = y_t.shape[0]
            told = {name: jnp.concatenate([x, x]) for name, x in signals.items()}
            label = signals.get(LABEL.name, jnp.full(b, UNKNOWN))
            told[LABEL.name] = jnp.concatenate([label, jnp.full(b, UNKNOWN)])
            y_0 = self._estimator(params, told)(
                *(jnp.concatenate([x, x]) for x in (condition, y_t, gamma))
            )
            with_class, without = y_0[:b], y_0[b:]
            c = self.config.model.image_channels
            if y_0.shape[-1] > c:  # guidance is of the image; the variance is that of the class
                without = jnp.concatenate([without[..., :c], with_class[..., c:]], axis=-1)
            return with_class, without

        return both

    def augment(self, given: Given, keys: Keys) -> Given:
        """The LR images with as much noise as their signals say (tasks/augmentation.py)."""
        image = given.image
        if AUGMENT.name not in given.signals:
            return given
        own = jax.vmap(lambda key: jax.random.fold_in(key, AUGMENTATION))(keys)
        noise = jax.vmap(lambda key: jax.random.normal(key, image.shape[1:]))(own)
        return given._replace(image=augment(image, given.signals[AUGMENT.name], noise))

    def super_resolve(
        self,
        params: PyTree,
        given: Given,
        keys: Keys,
        steps: Steps | None = None,
        guidance: Guidance | None = None,
        end: Float[Array, ""] | None = None,
    ) -> Images:
        """HR images in [-1, 1] for the LR images in `given`.

        Args:
          params: of the network.
          given: LR images and what the network is told of them.
          keys: one random key per image.
          steps: the sampler's table; None: the config's.
          guidance: classifier-free guidance; None: none.
          end: the level gamma where the table ends (`schedules.truncated`). The images then have
            noise, of standard deviation √((1 - end) / end) in the units of y_0, and are not
            clipped. None: it ends without noise.
        """
        upsampled = self.task.condition(given.image)
        condition = self.condition(params, upsampled, given.signals)
        table = self.objective.table() if steps is None else steps
        y_0 = samplers.sample(
            self.denoiser(params, given.signals, guidance, table.narrowing is not None),
            condition,
            keys,
            table,
            shape=(*upsampled.shape[:3], self.config.model.image_channels),
        )
        if end is not None:
            return self.decode(y_0 / jnp.sqrt(end), condition)
        return jnp.clip(self.decode(y_0, condition), -1, 1)


def sampling_steps(
    config: ConfigDict,
    evaluations: int | None = None,
    changes: Mapping[str, Any] | None = None,
    end: float | None = None,
) -> Steps:
    """The table of a config's sampler; for the arguments see `Objective.table`."""
    return build_objective(config).table(evaluations, changes, end)


def image_key(seed: int | Array, image_id: int | Array, sample: int | Array = 0) -> Key[Array, ""]:
    """The random key of one sample of one image: fold_in(fold_in(seed, image id), sample).

    It depends on nothing else, so an image's samples are the same in any batch and on any device.
    """
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), image_id), sample)
