"""The training loop: one step after the other, with what has to happen between them.

The order matters: a checkpoint is saved *before* the next batch is drawn, so that the state, its
step and the data position always belong together. Since the data position is the step and all
randomness is a function of (seed, step), 3 + 3 steps equal 6 to the bit.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import jax
from jaxtyping import Array, PyTree
from ml_collections import ConfigDict

from sr3_jax.checkpoints.workdir import Checkpoints
from sr3_jax.data.pipeline import Batches
from sr3_jax.errors import UserError
from sr3_jax.runtime import parallel
from sr3_jax.training.held_out import HeldOut
from sr3_jax.training.log import Clock, Log
from sr3_jax.training.state import TrainState
from sr3_jax.training.step import Metrics, Rows
from sr3_jax.training.stopping import Stop

AHEAD = 2  # steps that may be under way: bounded memory, a prompt stop


class TrainingDiverged(UserError):
    """Too many updates in a row were not finite."""


@dataclass
class Interval:
    """The metrics of some steps: as of the last one, but for means over those that were finite."""

    last: dict[str, float] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, metrics: dict[str, float]) -> None:
        """Counts a step."""
        self.last = metrics
        for name in ("loss", "gradient_norm"):
            if math.isfinite(metrics[name]):
                self.sums[name] = self.sums.get(name, 0.0) + metrics[name]
                self.counts[name] = self.counts.get(name, 0) + 1

    def read(self) -> dict[str, float]:
        """What was counted since the last time; the mean of none is NaN."""
        means = {
            name: self.sums[name] / self.counts[name] if name in self.counts else math.nan
            for name in ("loss", "gradient_norm")
        }
        found = self.last | means
        self.last, self.sums, self.counts = {}, {}, {}
        return found


@dataclass
class Loop:
    """Everything that a step needs, and what is done with its results."""

    config: ConfigDict
    mesh: jax.sharding.Mesh
    step: Callable[..., tuple[TrainState, Metrics]]  # compiled: (state, rows, *teacher)
    teacher: tuple[PyTree, ...]
    batches: Batches
    checkpoints: Checkpoints
    held_out: HeldOut
    log: Log
    stop: Stop
    pending: list[dict[str, Array]] = field(default_factory=list)  # metrics of steps under way
    interval: Interval = field(default_factory=Interval)  # those of the steps before
    named: int = 0  # images that failed to load and have been named in the log
    logged: bool = False

    def run(self, state: TrainState, start: int) -> TrainState:
        """Train from step `start` to the end, or until a signal; the last state."""
        train = self.config.train
        clock = Clock(train.batch_size)
        for step in range(start + 1, train.steps + 1):
            state = self._take_step(state, step, clock)
            stopping = self.stop.requested or self.checkpoints.reached_preemption(step)
            last = stopping or step == train.steps
            saving = last or step % train.checkpoint_every == 0
            if saving or step % train.log_every == 0:
                self.batches.agree()
            if last or step % train.log_every == 0:
                self._write_log(step, clock, everything=last)
            if saving:
                self.log.flush()  # what the checkpoint follows from is not lost before it
                self.checkpoints.save(state, position=step)
            if stopping:
                self.checkpoints.wait()
                self.log.say(
                    f"stopped by a signal; saved step {step}, run the same command to go on"
                )
                return state
            if self.held_out.due(step):
                self.held_out.evaluate(state.ema, step)
                clock.restart()
        return state

    def _take_step(self, state: TrainState, step: int, clock: Clock) -> TrainState:
        waiting = time.perf_counter()
        rows = parallel.to_devices(Rows.of(next(self.batches), self.config), self.mesh)
        clock.waited(time.perf_counter() - waiting)
        with jax.transfer_guard("disallow"):
            state, metrics = self.step(state, rows, *self.teacher)
        clock.stepped()
        self.pending.append(metrics)
        if len(self.pending) > AHEAD:
            self._finish(step - AHEAD)
        self.log.advance(step)
        return state

    def _write_log(self, step: int, clock: Clock, everything: bool) -> None:
        """One step late, unless this is the last: it never waits for the step under way."""
        while len(self.pending) > (not everything):
            self._finish(step)
        if self.interval.last:
            self.log.write(step, self.interval.read() | clock.read())
        if not self.logged and self.batches.converted:
            self.log.say(f"converted so far: {self.batches.converted}")
        self.logged = True
        for dropped in self.batches.bad[self.named :]:
            self.log.say(f"replaced by another image: {dropped.reason}")
        self.named = len(self.batches.bad)

    def _finish(self, step: int) -> None:
        """Waits for the oldest step under way."""
        metrics = {
            name: float(value) for name, value in jax.device_get(self.pending.pop(0)).items()
        }
        self.interval.add(metrics)
        self._check_finite(int(metrics["bad_in_a_row"]), step)

    def _check_finite(self, bad_in_a_row: int, step: int) -> None:
        most = self.config.train.max_bad_steps
        if bad_in_a_row >= most:
            raise TrainingDiverged(
                f"loss or gradient was not finite for {bad_in_a_row} updates in a row up to step "
                f"{step} (train.max_bad_steps = {most}); they were dropped and the last checkpoint "
                "is good: lower train.learning_rate"
            )
