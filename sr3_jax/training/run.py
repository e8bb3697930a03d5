"""A training run: from a config and a workdir to checkpoints, surviving whatever stops it."""

import contextlib
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from clu import parameter_overview
from jaxtyping import PyTree
from ml_collections import ConfigDict

from sr3_jax import config as config_lib
from sr3_jax.checkpoints.checkpoint import Checkpoint, check_params
from sr3_jax.checkpoints.exported import export
from sr3_jax.checkpoints.names import load_checkpoint
from sr3_jax.checkpoints.workdir import (
    TEACHER,
    Checkpoints,
    complete_steps,
    open_workdir,
    write_config,
)
from sr3_jax.data.cards import DATA_CARD, data_card, with_ancestors
from sr3_jax.data.labels import check_classes, class_names
from sr3_jax.data.pipeline import Batches
from sr3_jax.data.source import Source
from sr3_jax.data.sources import open_source
from sr3_jax.errors import UserError
from sr3_jax.objectives import build_objective
from sr3_jax.objectives.distillation import check_teacher, needs_features
from sr3_jax.runtime import parallel
from sr3_jax.runtime.atomic import disk_errors, write_text
from sr3_jax.runtime.paths import AnyPath
from sr3_jax.training import ownership
from sr3_jax.training.held_out import Evaluate, HeldOut
from sr3_jax.training.log import Log
from sr3_jax.training.loop import Loop
from sr3_jax.training.state import TrainState
from sr3_jax.training.step import Program, training_program
from sr3_jax.training.stopping import stop_signals


class Inputs(NamedTuple):
    """What a run starts from."""

    source: Source
    teacher: Checkpoint | None  # a student's
    initial: Checkpoint | None  # the weights of step 0, if they are not random
    missing: list[str]  # parameters that those do not have


def train(
    config: ConfigDict,
    workdir: AnyPath,
    evaluate: Evaluate | None = None,
    features: Callable[[], PyTree] | None = None,
) -> TrainState:
    """Train until config.train.steps, starting or resuming from the workdir.

    SIGTERM and the first Ctrl-C save and return early.

    Args:
      config: The experiment; validated here.
      workdir: Where it lives; a new folder, or one of the same experiment.
      evaluate: EMA parameters -> (metrics, a picture), run on held-out images every
        train.evaluate_every steps.
      features: Loads the weights of LPIPS, for a loss that has train.perceptual_weight or
        train.adversarial_weight.

    Returns:
      The last state.

    Raises:
      UserError: Config, data or workdir are not as they have to be, or the loss diverged.
    """
    config_lib.validate(config)
    mesh = parallel.make_mesh(config)
    inputs = open_inputs(config, workdir)  # what can fail fails before memory is taken
    config = _with_class_names(config, inputs.source)
    more = (_features(features),) if needs_features(config) else ()
    if parallel.is_main():
        open_workdir(workdir, config)
    program = training_program(config, mesh)
    with contextlib.ExitStack() as stack:
        if parallel.is_main():
            stack.enter_context(ownership.claimed(workdir))
        stop = stack.enter_context(stop_signals())
        # Closing waits for saves under way.
        checkpoints = stack.enter_context(contextlib.closing(Checkpoints(workdir, config)))
        start = checkpoints.latest() or 0
        log = stack.enter_context(Log(workdir, config.train.steps, start, parallel.is_main()))
        _introduce(config, program, mesh, inputs, workdir, log)
        if start >= config.train.steps:
            log.say(f"{workdir} is already at step {start}; raise train.steps to go on")
        step = _compiled(program, log)
        if start:
            state, position = checkpoints.restore(program.state)
            if not int(state.step) == position == start:
                raise UserError(
                    f"{workdir}/checkpoints/{start} is of step {int(state.step)} and goes on with "
                    f"batch {position}: its files do not belong together; remove it to go on from "
                    "the one before"
                )
            log.say(f"resuming from step {start}")
        else:
            state, position = _first_state(program, inputs, log), 0
        teacher = _teacher_params(config, program, inputs, log)
        teacher += tuple(map(_placed, more, program.teacher[1:]))
        if parallel.is_main():
            ownership.compare_data(workdir, inputs.source, log.say)
            _keep_inputs(config, inputs, workdir)
        source = inputs.source
        del inputs  # the copies on one device
        held_out = HeldOut(evaluate, config, workdir, log)
        held_out.catch_up(state.ema, start)
        batches = Batches(
            source,
            config,
            position=position,
            rows=parallel.rows(mesh, config.train.batch_size).tolist(),
        )
        loop = Loop(config, mesh, step, teacher, batches, checkpoints, held_out, log, stop)
        return loop.run(state, start)


def _features(load: Callable[[], PyTree] | None) -> PyTree:
    if load is None:
        raise UserError(
            "train.perceptual_weight and train.adversarial_weight need the weights of LPIPS, and "
            "none were given"
        )
    return jax.tree.map(jnp.asarray, load())


def open_inputs(config: ConfigDict, workdir: AnyPath) -> Inputs:
    """Data, teacher and initial weights; raises UserError where they do not fit the config."""
    source = open_source(config, "train")
    check_classes(source, config.model.classes)
    teacher = _load_teacher(config, workdir) if build_objective(config).needs_teacher else None
    initial = None
    if not complete_steps(workdir):
        initial = load_checkpoint(config.train.init_from) if config.train.init_from else teacher
    missing = check_params(initial.params, config, initial.name, partly=True) if initial else []
    return Inputs(source, teacher, initial, missing)


def _with_class_names(config: ConfigDict, source: Source) -> ConfigDict:
    """The config with the names of the data's classes, if its network knows classes.

    A checkpoint says by them which number stands for which class, wherever the data are.
    """
    if not config.model.classes or config.data.class_names:
        return config
    named = config.copy_and_resolve_references()
    named.data.class_names = class_names(source)
    return named


def _load_teacher(config: ConfigDict, workdir: AnyPath) -> Checkpoint:
    """The network that a student learns from, or the copy of it that a resumed run has.

    That one may have moved, or learned more, since.
    """
    kept = workdir / TEACHER
    teacher = load_checkpoint(kept if kept.exists() else config.train.teacher)
    check_params(teacher.params, config, config.train.teacher)
    check_teacher(config, teacher.config)
    return teacher


def _introduce(
    config: ConfigDict,
    program: Program,
    mesh: jax.sharding.Mesh,
    inputs: Inputs,
    workdir: AnyPath,
    log: Log,
) -> None:
    """Say what one wants to know before step 1."""
    log.say(describe(config, program.state, mesh))
    if parallel.is_main():
        params = program.state.params
        overview = parameter_overview.get_parameter_overview(params, include_stats=False)
        write_text(workdir / "parameters.txt", overview + "\n")
    for dropped in inputs.source.dropped:
        log.say(f"dropped: {dropped.id} {dropped.reason}")


def describe(config: ConfigDict, abstract: TrainState, mesh: jax.sharding.Mesh) -> str:
    """Devices, mesh, network, data: three lines."""
    count = sum(leaf.size for leaf in jax.tree.leaves(abstract.params))
    devices = jax.devices()
    processes = jax.process_count()
    data = config.data
    where = f" in {processes} processes" if processes > 1 else ""
    sizes = f"{data.lr_size}² → {data.hr_size}²"
    if data.lr_size == data.hr_size:
        sizes = f"{config.task.kind} of {data.hr_size}²"
    if config.model.classes:
        sizes += f", {config.model.classes} classes"
    name = f"{data.source} {data.folder or data.name}".rstrip()
    return (
        f"devices: {len(devices)} × {devices[0].device_kind}{where}, "
        f"mesh data={mesh.shape['data']} fsdp={mesh.shape['fsdp']}\n"
        f"network: {count / 1e6:.2f} M parameters (parameters.txt), {config.objective}, "
        f"{config.model.dtype}\n"
        f"data: {name}, {sizes}, batch {config.train.batch_size}"
    )


def _compiled(program: Program, log: Log) -> jax.stages.Compiled:
    started = time.perf_counter()
    compiled = program.lower().compile()
    log.say(f"compiled in {time.perf_counter() - started:.1f} s{_memory(compiled)}")
    return compiled


def _memory(compiled: jax.stages.Compiled) -> str:
    analysis = compiled.memory_analysis()
    if analysis is None:
        return ""
    state = analysis.argument_size_in_bytes
    peak = (
        state
        + analysis.temp_size_in_bytes
        + analysis.output_size_in_bytes
        - analysis.alias_size_in_bytes
    )
    return (
        f"; memory per device, estimated by the compiler: {peak / 2**20:,.0f} MiB "
        f"(state and batch {state / 2**20:,.0f})"
    )


def _first_state(program: Program, inputs: Inputs, log: Log) -> TrainState:
    """The state before step 1: random, or with the parameters of a checkpoint."""
    state = program.init()
    if not inputs.initial:
        return state
    log.say(f"starting from the weights of {inputs.initial.name}")
    if inputs.missing:
        log.say(
            f"{len(inputs.missing)} parameters are not in the checkpoint and were initialised "
            f"randomly: {', '.join(inputs.missing)}"
        )
    # A checkpoint is read onto one device, and jit does not move what has a place.
    params = _merged(state.params, jax.device_get(inputs.initial.params))
    # Two copies, as the state will be donated.
    return state._replace(
        params=_placed(params, program.state.params), ema=_placed(params, program.state.ema)
    )


def _merged(fresh: PyTree, given: PyTree) -> PyTree:
    """The parameters given, and the fresh ones where there are none."""
    if not isinstance(fresh, dict):
        return given
    return {key: _merged(fresh[key], given[key]) if key in given else fresh[key] for key in fresh}


def _placed(tree: PyTree, shapes: PyTree) -> PyTree:
    """A copy of the arrays, split as `shapes` are."""
    where = jax.tree.map(lambda leaf: leaf.sharding, shapes)
    return jax.jit(lambda tree: jax.tree.map(jnp.copy, tree), out_shardings=where)(tree)


def _teacher_params(
    config: ConfigDict, program: Program, inputs: Inputs, log: Log
) -> tuple[PyTree, ...]:
    """What the step takes beside state and images: a student's teacher's parameters, or nothing."""
    if not inputs.teacher:
        return ()
    own = config.sample.steps
    log.say(
        f"learning from {config.train.teacher}: {own} evaluations instead of "
        f"{own * config.train.teacher_steps}"
    )
    return (_placed(jax.device_get(inputs.teacher.params), program.teacher[0]),)


def _keep_inputs(config: ConfigDict, inputs: Inputs, workdir: AnyPath) -> None:
    """Copy teacher and data card into the workdir: where they come from may change, or go."""
    kept = workdir / TEACHER
    if inputs.teacher and not kept.exists():
        export(inputs.teacher, kept)
    before = {"teacher": inputs.teacher, "first weights": inputs.initial}
    if inputs.initial is inputs.teacher:
        del before["first weights"]
    ancestors = {role: (one.name, one.data_card) for role, one in before.items() if one}
    card = data_card(config)
    if ancestors:
        card = with_ancestors(card, ancestors)
    if card and not (workdir / DATA_CARD).exists():
        with disk_errors(workdir):
            write_text(workdir / DATA_CARD, card)
    write_config(workdir, config)  # only now is it sure that the run goes on with it
