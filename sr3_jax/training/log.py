"""What the user sees while training: a bar in a terminal, or plain lines.

The numbers go to stats.jsonl, and to TensorBoard where it is installed.
"""

import contextlib
import json
import math
import sys
import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sr3_jax.runtime.atomic import disk_errors, write_text
from sr3_jax.runtime.paths import AnyPath, is_remote


class Clock:
    """Step time, images/s and the share of time spent waiting for data, since the last `read`."""

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self.restart()

    def waited(self, seconds: float) -> None:
        """Count time spent waiting for data."""
        self._waited += seconds

    def stepped(self) -> None:
        """Count a step."""
        self._steps += 1

    def read(self) -> dict[str, float]:
        """The interval's numbers; the next one begins."""
        now = time.perf_counter()
        elapsed, steps = max(now - self._start, 1e-9), max(self._steps, 1)
        rates = {
            "seconds_per_step": elapsed / steps,
            "images_per_second": steps * self._batch_size / elapsed,
            "data_wait": self._waited / elapsed,
        }
        self.restart()
        return rates

    def restart(self) -> None:
        """Forgets the time since the last `read`: it was spent on something else."""
        self._start, self._waited, self._steps = time.perf_counter(), 0.0, 0


class Log:
    """Shows and records metrics. A context manager; silent and idle unless `main`."""

    def __init__(self, workdir: AnyPath, total: int, start: int, main: bool):
        self._main, self._total = main, total
        pipe = not sys.stdout.isatty()  # no terminal, though notebooks set FORCE_COLOR
        self._console = Console(
            quiet=not main, highlight=False, soft_wrap=True, force_terminal=False if pipe else None
        )
        self._path = workdir / "stats.jsonl"
        self._bar = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not (main and self._console.is_terminal),
        )
        self._task = self._bar.add_task("", total=total, completed=start, text="")
        self._remote, self._written = is_remote(workdir), time.monotonic()
        self.evaluated: set[int] = set()  # steps of which stats.jsonl holds an evaluation
        self._lines = self._forget_after(start) if main else []
        with disk_errors(workdir):
            self._writer = _tensorboard(workdir) if main else None

    def __enter__(self) -> "Log":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        # What ended the block says why, and not what fails after it
        with contextlib.nullcontext() if error is None else contextlib.suppress(Exception):
            self.flush()
            if self._writer:
                with disk_errors(self._path.parent / "tensorboard"):
                    self._writer.flush()

    def flush(self) -> None:
        """Makes sure that stats.jsonl holds all that was logged."""
        if self._main and self._remote:
            with disk_errors(self._path):
                write_text(self._path, "".join(self._lines))
            self._written = time.monotonic()

    def say(self, text: str) -> None:
        """Prints a line above the bar."""
        self._bar.console.print(text, markup=False)

    def advance(self, step: int) -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=step)

    def write(self, step: int, metrics: dict[str, Any], show: bool = True) -> None:
        """Append the metrics of a step to stats.jsonl and TensorBoard; show the main ones."""
        if not self._main:
            return
        line = {"step": step} | {
            name: value if math.isfinite(value) else None for name, value in metrics.items()
        }
        self._record(json.dumps(line) + "\n")
        if self._writer:
            with disk_errors(self._path.parent / "tensorboard"):
                self._writer.write_scalars(step, metrics)
        if show and "loss" in metrics:
            text = (
                f"loss {metrics['loss']:.4f} · {metrics['seconds_per_step']:.3g} s/step · "
                f"{metrics['images_per_second']:.3g} images/s · data {metrics['data_wait']:.0%}"
            )
            if metrics.get("bad_steps"):
                text += f" · {metrics['bad_steps']:.0f} updates dropped"
            self._bar.update(self._task, text=text)
            if not self._console.is_terminal:
                left = (self._total - step) * metrics["seconds_per_step"]
                self.say(f"step {step}/{self._total} · {text} · ETA {_duration(left)}")

    def _record(self, line: str) -> None:
        """Append a line to stats.jsonl.

        An object store cannot append: the whole file is written anew, once a minute.
        """
        if self._remote:
            self._lines.append(line)
            if time.monotonic() - self._written > 60:
                self.flush()
        else:
            with disk_errors(self._path), self._path.open("a") as file:
                file.write(line)

    def _forget_after(self, step: int) -> list[str]:
        """Drop lines of steps that a restart undid, and half-written ones; return the others."""
        kept: list[str] = []
        if self._path.exists():
            for line in self._path.read_text().splitlines():
                # half a line, or none of ours
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    found = json.loads(line)
                    if found["step"] <= step:
                        kept.append(line + "\n")
                        if any(name.startswith("eval_") for name in found):
                            self.evaluated.add(found["step"])
            with disk_errors(self._path):
                write_text(self._path, "".join(kept))
        return kept


def _duration(seconds: float) -> str:
    """Days if there are any, and hours:minutes:seconds."""
    days, rest = divmod(round(seconds), 24 * 3600)
    return (f"{days} d " if days else "") + f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"


def _tensorboard(workdir: AnyPath) -> Any:
    try:  # clu's writers import TensorFlow and TensorBoard, both of the extra [tensorboard]
        from clu import metric_writers
    except ImportError:
        return None
    return metric_writers.SummaryWriter(str(workdir / "tensorboard"))
