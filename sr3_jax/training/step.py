"""One update: loss, gradient, Adam, EMA. Pure, jitted with the state donated."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, PyTree
from ml_collections import ConfigDict

from sr3_jax.data.pipeline import Batch
from sr3_jax.method import Method
from sr3_jax.objectives.distillation import feature_shapes, needs_features
from sr3_jax.runtime import parallel
from sr3_jax.training.state import (
    DiscriminatorState,
    TrainState,
    discriminator_optimizer,
    init_state,
    learning_rate,
    make_optimizer,
)

Learned = tuple[PyTree, PyTree]  # the network's parameters, and the discriminator's or None
Metrics = dict[str, Float[Array, ""]]


class Rows(NamedTuple):
    """What a step takes of a batch; a pytree."""

    image: Any  # uint8 (b, s, s, c)
    label: Any = None  # of networks that know classes: int32 (b,)

    @classmethod
    def of(cls, batch: Batch, config: ConfigDict) -> "Rows":
        """What the config's network takes of a batch of the input pipeline."""
        return cls(batch.image, batch.label if config.model.classes else None)


def make_train_step(
    method: Method, optimizer: optax.GradientTransformation, mesh: Mesh | None = None
) -> Callable:
    """step(state, rows, a student's teacher) -> (state, metrics).

    All randomness is a function of (config.seed, step): a restart draws the same. An update whose
    loss or gradient is not finite is dropped (the state keeps its old values) and counted.
    """
    config = method.config
    parts = config.train.accumulate
    rate = learning_rate(config)

    def mean_loss(learned: Learned, rows: Rows, key: Array, *teacher: PyTree) -> Array:
        if mesh is not None:
            # what VGG16 makes of images is exact: its weights stay whole, and in float32
            learned, *gathered = parallel.gather_params(
                (learned, *teacher[:1]), mesh, config.model.dtype
            )
            teacher = (*gathered, *teacher[1:])
        params, discriminator = learned
        judged = () if discriminator is None else (discriminator,)
        return method.loss(
            params, rows.image, key, True, *teacher, *judged, labels=rows.label
        ).mean()

    def loss_and_gradient(
        learned: Learned, rows: Rows, key: Array, *teacher: PyTree
    ) -> tuple[Array, Learned]:
        if parts == 1:
            return jax.value_and_grad(mean_loss)(
                learned, rows, jax.random.fold_in(key, 0), *teacher
            )
        # (b, ...) to (parts, b / parts, ...), such that every part has rows of every device
        split = jax.tree.map(
            lambda x: x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1), rows
        )

        def add(total: PyTree, part: tuple[Array, Rows]) -> tuple[PyTree, None]:
            i, some = part
            new = jax.value_and_grad(mean_loss)(learned, some, jax.random.fold_in(key, i), *teacher)
            return jax.tree.map(jnp.add, total, new), None

        zero = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, learned))
        total, _ = jax.lax.scan(add, zero, (jnp.arange(parts), split))
        return jax.tree.map(lambda x: x / parts, total)

    def step(state: TrainState, rows: Rows, *teacher: PyTree) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), 1), state.step)
        old = state.discriminator
        learned = (state.params, old.params if old else None)
        loss, gradients = loss_and_gradient(learned, rows, key, *teacher)
        gradient, other_gradient = gradients
        norm = optax.tree.norm(gradient)
        finite = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(gradients))

        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        # A short run must not end with an average that is still half its random start.
        n = state.step.astype(jnp.float32)
        decay = jnp.minimum(config.train.ema_decay, (1 + n) / (10 + n))
        ema = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state.ema, params)

        def keep(new: PyTree, old: PyTree) -> PyTree:
            return jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)

        new = old
        if old:
            change, opponent = discriminator_optimizer(config).update(other_gradient, old.opt_state)
            new = DiscriminatorState(optax.apply_updates(old.params, change), opponent)
        bad = (~finite).astype(jnp.int32)
        metrics = {
            "loss": loss,
            "gradient_norm": norm,
            "learning_rate": jnp.asarray(rate(state.step), jnp.float32),
            "bad_in_a_row": ((state.bad_in_a_row + 1) * bad).astype(jnp.float32),
            "bad_steps": (state.bad_steps + bad).astype(jnp.float32),
        }
        state = TrainState(
            step=state.step + 1,
            params=keep(params, state.params),
            ema=keep(ema, state.ema),
            opt_state=keep(opt_state, state.opt_state),
            bad_steps=state.bad_steps + bad,
            bad_in_a_row=(state.bad_in_a_row + 1) * bad,
            discriminator=keep(new, old),
        )
        return state, metrics

    return step


class Program(NamedTuple):
    """Training on a mesh, before anything is allocated or compiled."""

    init: Callable[[], TrainState]  # jitted: the state before step 1, sharded
    # jitted: (state, batch, *teacher) -> (state, metrics), the state donated
    step: jax.stages.Wrapped
    state: TrainState  # shapes and shardings
    batch: Rows  # shapes and shardings
    # Of a student: its teacher's parameters, split like its own, and weights of LPIPS if it has it
    teacher: tuple[PyTree, ...]

    def lower(self) -> jax.stages.Lowered:
        """The step, traced, ready to be compiled."""
        return self.step.lower(self.state, self.batch, *self.teacher)


def training_program(config: ConfigDict, mesh: Mesh) -> Program:
    """What `sr3 train` runs, and what `sr3 compile` compiles for devices that are not there."""
    method, optimizer = Method(config), make_optimizer(config)

    def init() -> TrainState:
        return init_state(method, optimizer)

    shapes = jax.eval_shape(init)
    sharding = parallel.shardings(shapes, mesh)
    state = jax.tree.map(
        lambda leaf, s: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=s), shapes, sharding
    )
    size, split = config.train.batch_size, parallel.batch_sharding(mesh)
    batch = Rows(
        jax.ShapeDtypeStruct((size, *method.shape), jnp.uint8, sharding=split),
        jax.ShapeDtypeStruct((size,), jnp.int32, sharding=split) if config.model.classes else None,
    )
    step = jax.jit(
        make_train_step(method, optimizer, mesh),
        donate_argnums=0,
        out_shardings=(sharding, parallel.replicated(mesh)),
        compiler_options=parallel.compiler_options(mesh),
    )
    teacher = (state.params,) if method.objective.needs_teacher else ()
    if needs_features(config):
        shapes = feature_shapes()
        whole = parallel.replicated(mesh)
        teacher += (jax.tree.map(lambda x: x.update(sharding=whole), shapes),)
    return Program(jax.jit(init, out_shardings=sharding), step, state, batch, teacher)
