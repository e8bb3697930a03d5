"""The samplers by name.

A new one is a function that makes `Steps`, in a file of its own, and its line here.

`sample.sampler`, `sr3 upscale --sampler` and the web page follow by themselves; `sr3 search` tries
the four below.
"""

from collections.abc import Callable
from typing import NamedTuple

from sr3_jax.diffusion.samplers import Steps, Variance, ancestral, ddim, dpm_solver, heun
from sr3_jax.diffusion.schedules import NoiseSchedule


class Sampler(NamedTuple):
    """How a sampler's table is made."""

    # Of a schedule, sample.variance and sample.eta
    table: Callable[[NoiseSchedule, Variance, float], Steps]
    evaluations_per_step: int = 1  # the last step, to where there is no noise, always takes one

    def steps(self, evaluations: int) -> int:
        """The most steps that so many network evaluations are enough for."""
        return (evaluations + self.evaluations_per_step - 1) // self.evaluations_per_step


SAMPLERS = {
    "ancestral": Sampler(lambda schedule, variance, eta: ancestral(schedule, variance)),
    "ddim": Sampler(lambda schedule, variance, eta: ddim(schedule, eta)),
    "dpm_solver": Sampler(lambda schedule, variance, eta: dpm_solver(schedule, eta)),
    "heun": Sampler(lambda schedule, variance, eta: heun(schedule), evaluations_per_step=2),
}
