"""The noise levels that a config describes, of training and of sampling."""

import math

import numpy as np
from ml_collections import ConfigDict

from sr3_jax.diffusion import schedules
from sr3_jax.diffusion.schedules import NoiseSchedule
from sr3_jax.errors import ConfigError


def training_schedule(config: ConfigDict) -> NoiseSchedule:
    """The noise schedule of training, which p(gamma) is made from."""
    c = config.schedule
    if c.name == "linear":
        return schedules.linear(c.steps, c.beta_start, c.beta_end)
    if c.name == "quadratic":
        return schedules.quadratic(c.steps, c.beta_start, c.beta_end)
    if c.name == "cosine_beta":
        return schedules.cosine_beta(c.steps)
    if c.name == "cosine":
        return schedules.cosine(c.steps, c.log_snr_start, c.log_snr_end)
    return schedules.log_snr(c.steps, c.log_snr_start, c.log_snr_end)


def sampling_schedule(config: ConfigDict, steps: int) -> NoiseSchedule:
    """The noise schedule of sampling, with `steps` levels.

    Whatever the training schedule, it ends where that ends, at the same gamma_T; but for
    "ddim_respacing", which guided-diffusion ends before.

    Raises:
      ConfigError: config.sample cannot give that many levels.
    """
    training, sample = training_schedule(config), config.sample
    gamma_end, one_minus = (
        float(np.asarray(training.gamma)[-1]),
        float(np.asarray(training.one_minus_gamma)[-1]),
    )
    try:
        if sample.schedule == "linear":
            return schedules.linear_to(steps, gamma_end, sample.beta_start)
        if sample.schedule == "log_snr":
            return schedules.log_snr(
                steps, sample.log_snr_start, math.log(gamma_end / one_minus), sample.rho
            )
        chosen = {
            "respaced": schedules.respaced,
            "timestep_respacing": schedules.timestep_respacing,
            "ddim_respacing": schedules.ddim_respacing,
        }[sample.schedule]
        return chosen(training, steps)
    except ValueError as error:
        raise ConfigError(
            f"sample.schedule = {sample.schedule!r} cannot give {steps} steps: {error}"
        ) from error


def truncated_schedule(schedule: NoiseSchedule, end: float) -> NoiseSchedule:
    """Those levels of a schedule that have more noise than gamma = end, and that at its end.

    Raises:
      ConfigError: none has.
    """
    try:
        return schedules.truncated(schedule, end)
    except ValueError as error:
        raise ConfigError(f"sampling cannot end that early: {error}") from error
