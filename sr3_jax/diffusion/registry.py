"""The samplers by name.

To add one, write a function that makes its `Steps`, in a file of its own, and list it in SAMPLERS.

`sample.sampler`, `sr3 upscale --sampler`, `sr3 search` and the web page find it by themselves.
"""

from collections.abc import Callable
from typing import NamedTuple

from sr3_jax.diffusion.samplers import Steps, Variance, ancestral, ddim, dpm_solver, heun
from sr3_jax.diffusion.schedules import NoiseSchedule


class Sampler(NamedTuple):
    """How a sampler's table is made."""

    # From a schedule, sample.variance and sample.eta
    table: Callable[[NoiseSchedule, Variance, float], Steps]
    uses_eta: bool = False  # else sample.eta changes nothing
    evaluations_per_step: int = 1  # the last step, to where there is no noise, always takes one

    def steps(self, evaluations: int) -> int:
        """How many steps can be taken in at most that many network evaluations."""
        return (evaluations + self.evaluations_per_step - 1) // self.evaluations_per_step


SAMPLERS = {
    "ancestral": Sampler(lambda schedule, variance, eta: ancestral(schedule, variance)),
    "ddim": Sampler(lambda schedule, variance, eta: ddim(schedule, eta), uses_eta=True),
    "dpm_solver": Sampler(lambda schedule, variance, eta: dpm_solver(schedule, eta), uses_eta=True),
    "heun": Sampler(lambda schedule, variance, eta: heun(schedule), evaluations_per_step=2),
}
