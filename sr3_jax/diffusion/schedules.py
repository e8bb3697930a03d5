"""Noise schedules: tables of gamma, and the training distribution p(gamma).

Symbols (Saharia et al. 2021, section 2.1):
    alpha_t = 1 - beta_t,   gamma_t = alpha_1 · ... · alpha_t,   gamma_0 = 1,
    log-SNR lambda_t = log(gamma_t / (1 - gamma_t)).
Tables have T + 1 entries, t = 0 (clean) to t = T (nearly pure noise).

In float32 none of gamma, 1 - gamma, alpha and beta can be computed from another without losing
digits (computed as 1 - alpha, beta is off by up to 1.3 %). So each is computed in float64 from log
gamma, and converted once.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

# Linear beta from 1e-6 to 0.01 in 2000 steps is not stated in the SR3 paper, but in the same team's
# next one (Palette, section 4).
TRAINING_STEPS = 2000


class NoiseSchedule(NamedTuple):
    """The tables of one schedule; a pytree, so it passes through `jit`.

    All have shape (T + 1,), float32.
    """

    gamma: jax.Array  # the product of all alpha up to t; falls from 1
    one_minus_gamma: jax.Array  # the variance of the noise in y_t
    alpha: jax.Array  # alpha_0 = 1
    beta: jax.Array  # 1 - alpha; beta_0 = 0

    @property
    def angle(self) -> jax.Array:
        """Phi of each level, with cos phi = √gamma and sin phi = √(1 - gamma); 0 to π/2."""
        return jnp.arctan2(jnp.sqrt(self.one_minus_gamma), jnp.sqrt(self.gamma))

    @property
    def steps(self) -> int:
        """T, the number of network evaluations when sampling."""
        return self.gamma.shape[0] - 1


def from_log_gamma(log_gamma: np.ndarray) -> NoiseSchedule:
    """The schedule with gamma_t = exp(log_gamma[t]), t = 1 ... T; gamma_0 = 1 is added.

    Raises ValueError unless 0 > log_gamma[0] > log_gamma[1] > ...
    """
    log_gamma = np.concatenate([[0.0], np.asarray(log_gamma, np.float64)])
    log_alpha = np.diff(log_gamma, prepend=0.0)
    if len(log_gamma) < 2 or not np.all(np.isfinite(log_gamma)) or not np.all(log_alpha[1:] < 0):
        raise ValueError(
            "a noise schedule needs at least one step and a gamma that falls strictly from 1 "
            "at every step"
        )
    return _schedule(log_gamma, log_alpha)


def _schedule(log_gamma: np.ndarray, log_alpha: np.ndarray) -> NoiseSchedule:
    """The tables of logarithms in float64."""
    tables = np.exp(log_gamma), -np.expm1(log_gamma), np.exp(log_alpha), -np.expm1(log_alpha)
    with jax.ensure_compile_time_eval():  # constants, also when asked for inside a jitted function
        return NoiseSchedule(*(jnp.asarray(table.astype(np.float32)) for table in tables))


def _log_gamma(schedule: NoiseSchedule) -> np.ndarray:
    """Log gamma, t = 1 ... T, in float64: from gamma or 1 - gamma, whichever has more digits."""
    gamma, one_minus = (
        np.asarray(table, np.float64)[1:] for table in (schedule.gamma, schedule.one_minus_gamma)
    )
    with np.errstate(divide="ignore"):  # of the one that is not chosen
        return np.where(gamma < 0.5, np.log(gamma), np.log1p(-one_minus))


def from_gamma(gamma: np.ndarray) -> NoiseSchedule:
    """The schedule that visits the levels `gamma`, float64 of shape (T,), cleanest first."""
    with np.errstate(all="ignore"):  # `from_log_gamma` refuses what is not a schedule
        return from_log_gamma(np.log(np.asarray(gamma, np.float64)))


def from_beta(beta: np.ndarray) -> NoiseSchedule:
    """The schedule with these beta_t, t = 1 ... T, in (0, 1)."""
    with np.errstate(all="ignore"):
        return from_log_gamma(np.cumsum(np.log1p(-np.asarray(beta, np.float64))))


def quadratic(steps: int, beta_start: float, beta_end: float) -> NoiseSchedule:
    """√beta linear in t, from beta_1 = beta_start to beta_T = beta_end (DDPM's code knows it)."""
    return from_beta(np.linspace(beta_start**0.5, beta_end**0.5, steps) ** 2)


def cosine_beta(steps: int) -> NoiseSchedule:
    """The cosine schedule of Nichol & Dhariwal (2021, eq. 17) as they made it, for their networks.

    Gamma_t is cos²((t / T + 0.008) / 1.008 · π/2), but no beta is above 0.999.
    """
    angle = (np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2
    gamma = np.cos(angle) ** 2
    return from_beta(np.minimum(1 - gamma[1:] / gamma[:-1], 0.999))


def linear(
    steps: int = TRAINING_STEPS, beta_start: float = 1e-6, beta_end: float = 0.01
) -> NoiseSchedule:
    """Beta linear in t, from beta_1 = beta_start to beta_T = beta_end, both in (0, 1)."""
    with np.errstate(all="ignore"):
        return from_log_gamma(np.cumsum(np.log1p(-np.linspace(beta_start, beta_end, steps))))


def linear_to(steps: int, gamma_end: float, beta_start: float = 1e-4) -> NoiseSchedule:
    """Beta linear in t from `beta_start`, its end chosen such that gamma_T = gamma_end.

    Sampling must use the same gamma_T as training: at a lower gamma the network was never trained,
    and at a higher one y_T is not yet pure noise. The end of beta is found by bisection, since log
    gamma_T falls monotonically in beta_end.

    Raises ValueError if there is no such end, as with too many steps of beta_start or more.
    """
    if not 0 < gamma_end < 1 or steps * np.log1p(-beta_start) <= np.log(gamma_end):
        raise ValueError(
            f"no linear beta from {beta_start} reaches gamma_T = {gamma_end} in {steps} steps"
        )
    if steps == 1:
        return from_gamma(np.array([gamma_end]))
    low, high = beta_start, 1 - 1e-15
    for _ in range(200):
        middle = (low + high) / 2
        too_noisy = np.log1p(-np.linspace(beta_start, middle, steps)).sum() < np.log(gamma_end)
        low, high = (low, middle) if too_noisy else (middle, high)
    if middle > 1 - 1e-14:
        raise ValueError(
            f"no linear beta from {beta_start} reaches gamma_T = {gamma_end} in {steps} steps"
        )
    return linear(steps, beta_start, low)


def cosine(steps: int, log_snr_start: float = 10.0, log_snr_end: float = -10.0) -> NoiseSchedule:
    """Gamma = cos²(phi), with the angle phi equally spaced.

    It goes from the level lambda_1 = log_snr_start to lambda_T = log_snr_end. This is the cosine
    schedule of Nichol & Dhariwal (2021, section 3.2), with its ends cut at given log-SNRs instead
    of by an offset and a largest beta (Ho & Salimans 2022, section 2). It has most of its steps
    near lambda = 0, where most of an image is decided.
    """
    start, end = (np.arctan(np.exp(-level / 2)) for level in (log_snr_start, log_snr_end))
    return from_log_gamma(
        2 * np.log(np.cos(np.linspace(start, end, steps) if steps != 1 else np.array([end])))
    )


def log_snr(
    steps: int, log_snr_start: float = 10.0, log_snr_end: float = -10.0, rho: float = 0.0
) -> NoiseSchedule:
    """Levels equally spaced in the log-SNR, from log_snr_start at t = 1 to log_snr_end at t = T.

    Good for few steps, as each divides the noise by about the same factor. A single step goes
    straight to log_snr_end.

    With rho > 0 the levels are equally spaced in s^(1/rho), s = √((1 - gamma) / gamma) (Karras et
    al. 2022, eq. 5, where rho is 7). The smaller rho is, the more of the levels are noisy ones. In
    the limit of infinite rho they are equally spaced in the log-SNR; rho = 0 stands for that limit.
    """
    levels = np.linspace(log_snr_start, log_snr_end, steps)
    if rho:
        levels = (
            -2
            * rho
            * np.log(
                np.linspace(np.exp(-log_snr_start / 2 / rho), np.exp(-log_snr_end / 2 / rho), steps)
            )
        )
    if steps == 1:
        levels = np.array([log_snr_end])
    return from_log_gamma(-np.logaddexp(0.0, -levels))  # log sigmoid(lambda)


def respaced(schedule: NoiseSchedule, steps: int) -> NoiseSchedule:
    """`steps` of the levels of `schedule`, equally spaced in t; the last is always among them."""
    if not 1 <= steps <= schedule.steps:
        raise ValueError(f"cannot take {steps} steps from a schedule of {schedule.steps}")
    t = np.round(np.linspace(0, schedule.steps, steps + 1)).astype(int)[1:]
    return from_log_gamma(_log_gamma(schedule)[t - 1])


def visiting(schedule: NoiseSchedule, t: np.ndarray) -> NoiseSchedule:
    """Those levels of `schedule` that have the numbers t, 1 to T, rising."""
    return from_log_gamma(_log_gamma(schedule)[np.asarray(t) - 1])


def timestep_respacing(schedule: NoiseSchedule, steps: int) -> NoiseSchedule:
    """`steps` levels from the first to the last, as guided-diffusion's timestep_respacing=STEPS."""
    if not 1 <= steps <= schedule.steps:
        raise ValueError(f"cannot take {steps} steps from a schedule of {schedule.steps}")
    if steps == 1:  # theirs would be the first level, which has hardly any noise
        return visiting(schedule, np.array([schedule.steps]))
    return visiting(schedule, 1 + np.round(np.linspace(0, schedule.steps - 1, steps)).astype(int))


def ddim_respacing(schedule: NoiseSchedule, steps: int) -> NoiseSchedule:
    """Every n-th level from the first on, as guided-diffusion's timestep_respacing=ddimSTEPS.

    Its noisiest level is not that of training. Sampling starts from pure noise all the same, which
    does not show where gamma is small there: 0.0039 for 25 steps of the cosine schedule.

    Raises ValueError if there is no such n, or if gamma of the noisiest level is above 0.01.
    """
    for stride in range(1, schedule.steps + 1):
        t = np.arange(1, schedule.steps + 1, stride)
        if len(t) == steps:
            break
    else:
        raise ValueError(f"no whole stride takes {steps} steps from a schedule of {schedule.steps}")
    start = float(np.exp(_log_gamma(schedule)[t[-1] - 1]))
    if start > 0.01:
        raise ValueError(
            f"they would start at gamma = {start:.2g}, where much of the picture is still to be "
            'seen; "timestep_respacing" starts at the noisiest level'
        )
    return visiting(schedule, t)


def truncated(schedule: NoiseSchedule, gamma_end: float) -> NoiseSchedule:
    """The levels of `schedule` that have more noise than gamma_end, down to that and no further.

    Its gamma_0 is gamma_end. Sampling by it leaves y_t of that level, for the next stage of a
    cascade that has been trained on such inputs (truncated conditioning augmentation, Ho et al.
    2021, arXiv 2106.15282).

    Raises ValueError if no level has more noise.
    """
    if not 0 < gamma_end < 1:
        raise ValueError(f"gamma = {gamma_end:g} is no noise level that sampling could end at")
    levels = _log_gamma(schedule)
    noisier = levels[levels < np.log(gamma_end) - 1e-6]
    if not len(noisier):
        raise ValueError(f"no level of the schedule has more noise than gamma = {gamma_end:g}")
    log_gamma = np.concatenate([[np.log(gamma_end)], noisier])
    return _schedule(log_gamma, np.diff(log_gamma, prepend=log_gamma[0]))


def sample_gamma(
    key: Key[Array, ""], schedule: NoiseSchedule, batch: int
) -> Float[Array, " batch"]:
    """Draws a gamma for each image from p(gamma) = sum_t U(gamma_{t-1}, gamma_t) / T.

    As in the paper, section 2.4: t is uniform in 1 ... T, then gamma is uniform between gamma_{t-1}
    and gamma_t. Every image has a t of its own. One t for the whole batch, as a well-known port has
    it, gives the same mean of the gradient, but a much larger variance.

    float32 is enough: 1 - gamma is exact for gamma >= 1/2, so the noise that is added always fits
    the level that the network is told.
    """
    t_key, u_key = jax.random.split(key)
    t = jax.random.randint(t_key, (batch,), 1, schedule.steps + 1)
    u = jax.random.uniform(u_key, (batch,))
    low, high = schedule.gamma[t], schedule.gamma[t - 1]
    return low + u * (high - low)
