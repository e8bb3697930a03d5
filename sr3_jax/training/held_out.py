"""The evaluation of held-out images that a run does on the way."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import PyTree, UInt8
from ml_collections import ConfigDict

from sr3_jax.checkpoints.checkpoint import Checkpoint
from sr3_jax.checkpoints.exported import best_psnr, export
from sr3_jax.images import arrays
from sr3_jax.objectives import build_objective
from sr3_jax.runtime import parallel
from sr3_jax.runtime.paths import AnyPath
from sr3_jax.training.log import Log

# EMA parameters -> (metrics, a picture). The caller's: training does not know inference.
Evaluate = Callable[[PyTree], tuple[dict[str, float], UInt8[np.ndarray, "h w c"]]]


@dataclass(frozen=True)
class HeldOut:
    """When it is due, and where its results go."""

    measure: Evaluate | None
    config: ConfigDict
    workdir: AnyPath
    log: Log

    def due(self, step: int) -> bool:
        """Whether it comes after this step."""
        train = self.config.train
        return self.measure is not None and (
            step % train.evaluate_every == 0 or step == train.steps
        )

    def catch_up(self, ema: PyTree, step: int) -> None:
        """Evaluate at the step that a run resumes from, if it was stopped after saving it."""
        if step and self.due(step):
            # only the main process knows, and all of them must do the same
            missing = parallel.is_main() and step not in self.log.evaluated
            if parallel.worst(int(missing)):
                self.evaluate(ema, step)

    def evaluate(self, ema: PyTree, step: int) -> None:
        """Log the metrics, write the picture; keep the best parameters where the objective does."""
        assert self.measure is not None
        metrics, picture = self.measure(ema)
        # The paper picks the regression network by its held-out PSNR, SR3 not at all. All processes
        # must take part in gathering.
        candidate = parallel.gather(ema) if build_objective(self.config).keeps_best else None
        self.log.write(step, {f"eval_{name}": value for name, value in metrics.items()})
        words = " · ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        self.log.say(f"step {step} held-out: {words}")
        if not parallel.is_main():
            return
        arrays.write(self.workdir / "samples" / f"{step:08d}.png", picture)
        best = self.workdir / "best.safetensors"
        if candidate is not None and metrics["psnr"] > best_psnr(best):
            checkpoint = Checkpoint(self.config, candidate, step, str(best))
            export(checkpoint, best, {"psnr": str(metrics["psnr"])})
