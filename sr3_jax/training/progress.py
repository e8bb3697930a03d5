"""What the user sees while training: a bar in a terminal, else plain lines; stats.jsonl always, TensorBoard if installed."""

import json
import math
import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sr3_jax.atomic import disk_errors
from sr3_jax.checkpoints import write_text
from sr3_jax.paths import AnyPath, is_remote


class Clock:
    """Step time, images/s and the share of time spent waiting for data, over the interval since the last `read`."""

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self._start, self._waited, self._steps = time.perf_counter(), 0.0, 0

    def waited(self, seconds: float) -> None:
        self._waited += seconds

    def stepped(self) -> None:
        self._steps += 1

    def read(self) -> dict[str, float]:
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


class Reporter:
    """Shows and records metrics. A context manager; silent and idle unless `main`."""

    def __init__(self, workdir: AnyPath, total: int, start: int, main: bool):
        self._main, self._total = main, total
        self._console = Console(quiet=not main, highlight=False, soft_wrap=True)
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
        self._writer = _tensorboard(workdir) if main else None
        self._remote, self._lines, self._written = is_remote(workdir), list[str](), time.monotonic()
        if main:
            self._lines = self._forget_after(start)

    def __enter__(self) -> "Reporter":
        self._bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()
        if self._main and self._remote:
            write_text(self._path, "".join(self._lines))
        if self._writer:
            self._writer.flush()

    def say(self, text: str) -> None:
        """Prints a line above the bar."""
        self._bar.console.print(text, markup=False)

    def advance(self, step: int) -> None:
        self._bar.update(self._task, completed=step)

    def log(self, step: int, metrics: dict[str, Any], show: bool = True) -> None:
        """Appends {"step": step, **metrics} to stats.jsonl, and to TensorBoard, and shows the main ones."""
        if not self._main:
            return
        line = {"step": step} | {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        self._record(json.dumps(line) + "\n")
        if self._writer:
            self._writer.write_scalars(step, metrics)
        if show and "loss" in metrics:
            text = (
                f"loss {metrics['loss']:.4f} · {metrics['seconds_per_step']:.3g} s/step · "
                f"{metrics['images_per_second']:.3g} images/s · data {metrics['data_wait']:.0%}"
            )
            self._bar.update(self._task, text=text)
            if not self._console.is_terminal:
                left = (self._total - step) * metrics["seconds_per_step"]
                self.say(f"step {step}/{self._total} · {text} · ETA {time.strftime('%H:%M:%S', time.gmtime(left))}")

    def _record(self, line: str) -> None:
        """Appends to stats.jsonl; in an object store the whole file is written anew, once a minute and at the end."""
        if not self._remote:
            with disk_errors(self._path), self._path.open("a") as file:
                file.write(line)
            return
        self._lines.append(line)
        if time.monotonic() - self._written > 60:
            write_text(self._path, "".join(self._lines))
            self._written = time.monotonic()

    def _forget_after(self, step: int) -> list[str]:
        """Drops lines of a future that a restart undid, and one that a kill left half-written; returns those left."""
        kept: list[str] = []
        if self._path.exists():
            for line in self._path.read_text().splitlines():
                try:
                    if json.loads(line)["step"] <= step:
                        kept.append(line + "\n")
                except ValueError:
                    continue
            with disk_errors(self._path):
                write_text(self._path, "".join(kept))
        return kept


def _tensorboard(workdir: AnyPath) -> Any:
    try:  # clu's writers import TensorFlow and TensorBoard, both of the extra [tensorboard]
        from clu import metric_writers
    except ImportError:
        return None
    return metric_writers.SummaryWriter(str(workdir / "tensorboard"))
