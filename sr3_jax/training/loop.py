"""Training: from a config and a workdir to checkpoints, surviving whatever stops it.

The order inside the loop matters: a checkpoint is saved *before* the next batch is drawn, so that
the state, its step and the data position always belong together. Since the data position is the
step and all randomness is a function of (seed, step), 3 + 3 steps equal 6 to the bit.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from clu import parameter_overview
from jaxtyping import PyTree, UInt8
from ml_collections import ConfigDict

from sr3_jax import config as config_lib
from sr3_jax.checkpoints.checkpoint import Checkpoint, check_params
from sr3_jax.checkpoints.exported import best_psnr, export
from sr3_jax.checkpoints.names import load_checkpoint
from sr3_jax.checkpoints.workdir import (
    TEACHER,
    Checkpoints,
    complete_steps,
    open_workdir,
    write_config,
)
from sr3_jax.data.cards import DATA_CARD, data_card
from sr3_jax.data.pipeline import Batches
from sr3_jax.data.sources import open_source
from sr3_jax.errors import UserError
from sr3_jax.images import arrays
from sr3_jax.objectives import build_objective
from sr3_jax.objectives.distillation import check_teacher
from sr3_jax.runtime import parallel
from sr3_jax.runtime.atomic import disk_errors, write_text
from sr3_jax.runtime.paths import AnyPath
from sr3_jax.training.progress import Clock, Reporter
from sr3_jax.training.state import TrainState
from sr3_jax.training.step import training_program

# Held-out evaluation, handed in by the caller: EMA parameters -> (metrics, a picture).
Evaluate = Callable[[PyTree], tuple[dict[str, float], UInt8[np.ndarray, "h w c"]]]


class TrainingDiverged(UserError):
    """Too many updates in a row were not finite."""


def train(config: ConfigDict, workdir: AnyPath, evaluate: Evaluate | None = None) -> TrainState:
    """Trains until config.train.steps, starting or resuming from `workdir`; returns the last state.

    SIGTERM and the first Ctrl-C save and return early.
    """
    # -- what can fail fails before memory is taken
    config_lib.validate(config)
    mesh = parallel.make_mesh(config)
    source = open_source(config, "train")
    fresh = not complete_steps(workdir)
    # a resumed student's teacher: its own may have moved, or learned more, since
    kept = workdir / TEACHER
    teacher = (
        _teacher(config, kept if kept.exists() else None)
        if build_objective(config).needs_teacher
        else None
    )
    initial = (
        (load_checkpoint(config.train.init_from) if config.train.init_from else teacher)
        if fresh
        else None
    )
    new = check_params(initial.params, config, initial.name, partly=True) if initial else []
    if parallel.is_main():
        open_workdir(workdir, config)

    program = training_program(config, mesh)

    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(_stop_signals())
        # Closing waits for saves under way
        checkpoints = stack.enter_context(contextlib.closing(Checkpoints(workdir, config)))
        start = checkpoints.latest() or 0
        report = stack.enter_context(
            Reporter(workdir, config.train.steps, start, parallel.is_main())
        )
        report.say(describe(config, program.state, mesh))
        if parallel.is_main():
            overview = parameter_overview.get_parameter_overview(
                program.state.params, include_stats=False
            )
            write_text(workdir / "parameters.txt", overview + "\n")
        for dropped in source.dropped:
            report.say(f"dropped: {dropped.id} {dropped.reason}")
        if start >= config.train.steps:
            report.say(f"{workdir} is already at step {start}; raise train.steps to go on")
        started = time.perf_counter()
        compiled = program.lower().compile()
        report.say(f"compiled in {time.perf_counter() - started:.1f} s{_memory(compiled)}")

        # -- state: restored or new
        position = start
        if start:
            state, position = checkpoints.restore(program.state)
            report.say(f"resuming from step {start}")
        else:
            state = program.init()
            if initial:
                state = _with_params(state, initial.params, program.state)
                report.say(f"starting from the weights of {initial.name}")
                if new:
                    report.say(
                        f"it has none for {len(new)} parameters, which start afresh: {', '.join(new)}"
                    )
        taught = (_placed(jax.device_get(teacher.params), program.teacher[0]),) if teacher else ()
        if teacher:
            own, steps = config.sample.steps, config.train.teacher_steps
            report.say(
                f"learning from {config.train.teacher}: {own} evaluations instead of {own * steps}"
            )
        if parallel.is_main():
            if teacher and not kept.exists():
                export(teacher, kept)
            _keep_card(config, workdir)
            write_config(workdir, config)  # only now is it sure that the run goes on with it
        del teacher, initial  # the copies on one device
        if evaluate and start and _due(start, config) and _on_main(start not in report.evaluated):
            # a stop came between saving and this
            _evaluate(evaluate, state.ema, start, config, workdir, report)
        batches = Batches(
            source,
            config,
            position=position,
            process=jax.process_index(),
            processes=jax.process_count(),
        )

        # -- the loop
        clock, pending, named, said = Clock(config.train.batch_size), [], 0, False
        step = start
        while step < config.train.steps:
            waiting = time.perf_counter()
            images_ = parallel.to_devices(next(batches)["image"], mesh)
            clock.waited(time.perf_counter() - waiting)
            with jax.transfer_guard("disallow"):
                state, metrics = compiled(state, images_, *taught)
            step += 1
            clock.stepped()
            pending.append(metrics)
            if len(pending) > 2:
                # No more than two steps ahead: bounded memory, a prompt stop
                jax.block_until_ready(pending[-3])
                _check_finite(int(pending[-3]["bad_in_a_row"]), step - 2, config)
            report.advance(step)

            last = step == config.train.steps
            stopping = stop.requested or checkpoints.reached_preemption(step)
            if step % config.train.log_every == 0 or last or stopping:
                # One step late: never waits for the current one
                done = len(pending) if last or stopping else len(pending) - 1
                fetched, pending = jax.device_get(pending[:done]), pending[done:]
                if fetched:
                    report.log(step, _mean(fetched) | clock.read())
                    _check_finite(
                        max(int(metrics["bad_in_a_row"]) for metrics in fetched), step, config
                    )
                if not said and batches.converted:
                    report.say(f"converted so far: {batches.converted}")
                said = True
                for dropped in batches.bad[named:]:
                    report.say(f"replaced by another image: {dropped.reason}")
                named = len(batches.bad)
            if step % config.train.checkpoint_every == 0 or last or stopping:
                report.flush()  # what the checkpoint follows from is not lost before it
                checkpoints.save(state, position=step)
            if stopping:
                checkpoints.wait()
                report.say(f"stopped by a signal; saved step {step}, run the same command to go on")
                break
            if evaluate and _due(step, config):
                _evaluate(evaluate, state.ema, step, config, workdir, report)
                clock.restart()
    return state


def describe(config: ConfigDict, abstract: TrainState, mesh: jax.sharding.Mesh) -> str:
    """Devices, mesh, sizes: what one wants to know before step 1."""
    count = sum(leaf.size for leaf in jax.tree.leaves(abstract.params))
    devices = jax.devices()
    kind = f"{len(devices)} × {devices[0].device_kind}" + (
        f" in {jax.process_count()} processes" if jax.process_count() > 1 else ""
    )
    data, batch = config.data, config.train.batch_size
    return (
        f"devices: {kind}, mesh data={mesh.shape['data']} fsdp={mesh.shape['fsdp']}\n"
        f"network: {count / 1e6:.2f} M parameters (parameters.txt), {config.objective}, {config.model.dtype}\n"
        f"data: {data.source} {data.folder or data.name}".rstrip()
        + f", {data.lr_size}² → {data.hr_size}², batch {batch}"
    )


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
    return f"; memory per device, estimated by the compiler: {peak / 2**20:,.0f} MiB (state and batch {state / 2**20:,.0f})"


def _with_params(state: TrainState, params: PyTree, shapes: TrainState) -> TrainState:
    """The state with these parameters, where there are any, and an EMA of its own (two copies: the state will be donated)."""
    # a checkpoint is read onto one device, and jit does not move what has a place
    params = jax.device_get(params)

    def merge(fresh: PyTree, given: PyTree) -> PyTree:
        if not isinstance(fresh, dict):
            return given
        return {key: merge(fresh[key], given[key]) if key in given else fresh[key] for key in fresh}

    whole = merge(state.params, params)
    return state._replace(params=_placed(whole, shapes.params), ema=_placed(whole, shapes.ema))


def _placed(tree: PyTree, shapes: PyTree) -> PyTree:
    """A copy of the arrays, split as `shapes` are."""
    where = jax.tree.map(lambda leaf: leaf.sharding, shapes)
    return jax.jit(lambda tree: jax.tree.map(jnp.copy, tree), out_shardings=where)(tree)


def _keep_card(config: ConfigDict, workdir: AnyPath) -> None:
    """Copies what there is to read of the data into the workdir: their folder may change, or go."""
    card = data_card(config)
    if card and not (workdir / DATA_CARD).exists():
        with disk_errors(workdir):
            write_text(workdir / DATA_CARD, card)


def _teacher(config: ConfigDict, kept: AnyPath | None) -> Checkpoint:
    """The network that a student learns from, or its copy; raises UserError unless it is one of the same shape and task."""
    teacher = load_checkpoint(kept or config.train.teacher)
    check_params(teacher.params, config, config.train.teacher)
    check_teacher(config, teacher.config)
    return teacher


def _mean(fetched: list[dict[str, np.ndarray]]) -> dict[str, float]:
    """Means over the finite steps of an interval; counters, and the rate, as of its last step."""
    last = {name: float(value) for name, value in fetched[-1].items()}
    for name in ("loss", "gradient_norm"):
        finite = [float(metrics[name]) for metrics in fetched if np.isfinite(metrics[name])]
        last[name] = float(np.mean(finite)) if finite else float("nan")
    return last


def _check_finite(bad_in_a_row: int, step: int, config: ConfigDict) -> None:
    if bad_in_a_row >= config.train.max_bad_steps:
        raise TrainingDiverged(
            f"loss or gradient was not finite for {bad_in_a_row} updates in a row up to step {step} (train.max_bad_steps = "
            f"{config.train.max_bad_steps}); they were dropped and the last checkpoint is good: lower train.learning_rate"
        )


def _due(step: int, config: ConfigDict) -> bool:
    """Whether the held-out images are evaluated after this step."""
    return step % config.train.evaluate_every == 0 or step == config.train.steps


def _on_main(answer: bool) -> bool:
    """The main process's answer, on all of them."""
    mine = np.array([answer and parallel.is_main()])
    return bool(parallel.combine(mine, np.array([jax.process_index()]), jax.process_count()).any())


def _evaluate(
    evaluate: Evaluate,
    ema: PyTree,
    step: int,
    config: ConfigDict,
    workdir: AnyPath,
    report: Reporter,
) -> None:
    metrics, picture = evaluate(ema)
    # The paper picks the regression network by its held-out PSNR, SR3 not at all. All processes
    # must take part in gathering.
    candidate = parallel.gather(ema) if build_objective(config).keeps_best else None
    report.log(step, {f"eval_{name}": value for name, value in metrics.items()})
    report.say(
        f"step {step} held-out: "
        + " · ".join(f"{name} {value:.4g}" for name, value in metrics.items())
    )
    if not parallel.is_main():
        return
    arrays.write(workdir / "samples" / f"{step:08d}.png", picture)
    best = workdir / "best.safetensors"
    if candidate is not None and metrics["psnr"] > best_psnr(best):
        export(Checkpoint(config, candidate, step, str(best)), best, {"psnr": str(metrics["psnr"])})


class _Stop:
    requested = False


@contextlib.contextmanager
def _stop_signals() -> Iterator[_Stop]:
    """Turns SIGTERM and the first Ctrl-C into a request to stop; a second Ctrl-C interrupts as usual.

    With several processes JAX's own preemption service takes SIGTERM, so that all agree on a step;
    Ctrl-C becomes one.
    """
    stop = _Stop()

    def request(number: int, _: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if jax.distributed.is_initialized():
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            stop.requested = True

    try:
        old = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        signal.signal(signal.SIGINT, request)
        if not jax.distributed.is_initialized():
            signal.signal(signal.SIGTERM, request)
    except ValueError:  # not in the main thread: the caller handles signals
        yield stop
        return
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
