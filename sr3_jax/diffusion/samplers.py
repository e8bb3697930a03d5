"""Samplers: from noise y_T to an image y_0.

All of them are linear in what they have seen. With D the network's estimate of y_0 at the current y
and gamma, D' the estimate before, and z ~ N(0, I), one network evaluation takes y to

    (1)  keep · y + predicted · D + previous · D' + noise · z

So a sampler is a table with one row per evaluation, which holds these four numbers and the level.
It is computed once, in float64, and `sample` runs any table. Below, gamma and gamma' are the levels
before and after a step from t to t-1, and s = √((1 - gamma) / gamma) is the noise relative to the
signal.

`keys` holds one random key per image. The noise of image i at a row depends on keys[i] and the row
alone, and not on batch size, position in the batch, padding or the number of devices. Memory does
not grow with the number of rows.
"""

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from sr3_jax.diffusion.schedules import NoiseSchedule
from sr3_jax.diffusion.types import Denoiser, Images, Keys

Variance = Literal["beta", "posterior", "learned"]
VARIANCES: tuple[str, ...] = get_args(Variance)
Table = np.ndarray | Array


class Steps(NamedTuple):
    """The table of a sampler, eq. (1): float32 arrays of shape (evaluations,), a pytree.

    The noisiest level comes first.
    """

    gamma: Table  # the level of y, told to the network
    keep: Table
    predicted: Table
    previous: Table
    noise: Table
    # With a learned variance: what `noise` is multiplied by where the network asks for the least
    narrowing: Table | None = None

    @property
    def evaluations(self) -> int:
        """The number of network evaluations."""
        return self.gamma.shape[0]


class _Levels(NamedTuple):
    """A schedule's tables for the steps t = T ... 1, in float64; `_next` is the value at t-1."""

    gamma: np.ndarray
    gamma_next: np.ndarray
    one_minus: np.ndarray  # 1 - gamma
    one_minus_next: np.ndarray
    alpha: np.ndarray
    beta: np.ndarray


def _levels(schedule: NoiseSchedule) -> _Levels:
    gamma, one_minus, alpha, beta = (np.asarray(table, np.float64)[::-1] for table in schedule)
    return _Levels(gamma[:-1], gamma[1:], one_minus[:-1], one_minus[1:], alpha[:-1], beta[:-1])


def _table(*columns: Table) -> Steps:
    return Steps(*(np.asarray(column, np.float32) for column in columns))


def ancestral(schedule: NoiseSchedule, variance: Variance = "beta") -> Steps:
    """Algorithm 2 of the paper (section 2.3).

    y_{t-1} = (y_t - (1 - alpha_t) / √(1 - gamma_t) · epsilon) / √alpha_t + √variance · z,
    z = 0 at t = 1.

    The fraction is the mean of the posterior q(y_{t-1} | y_0, y_t) at the predicted y_0 (section
    2.3). It is computed in that form here: the number is the same, but a y_0 that was clipped is
    taken into account.

    Args:
      schedule: the levels.
      variance: "beta" is the paper's, 1 - alpha_t, which is right if y_0 is itself N(0, I);
        "posterior" is that of q, which is right if y_0 is known. With few steps "beta" leaves
        visible grain. "learned" lies between the two, where the network says for each pixel:
        log variance = v · log beta_t + (1 - v) · log posterior (Nichol & Dhariwal 2021, eq. 15).
    """
    c = _levels(schedule)
    keep = np.sqrt(c.alpha) * c.one_minus_next / c.one_minus
    predicted = np.sqrt(c.gamma_next) * c.beta / c.one_minus
    ratio = c.one_minus_next / c.one_minus  # of the posterior's variance to beta_t
    noise = np.sqrt(c.beta * (ratio if variance == "posterior" else 1))
    noise[-1] = 0
    steps = _table(c.gamma, keep, predicted, 0 * keep, noise)
    if variance != "learned":
        return steps
    ratio[-1] = 1  # where there is no noise
    return steps._replace(narrowing=np.sqrt(ratio).astype(np.float32))


def ddim(schedule: NoiseSchedule, eta: float = 0.0) -> Steps:
    """Denoising diffusion implicit models (Song et al. 2021, eq. 12), of first order.

    y_{t-1} = √gamma' D + √(1 - gamma' - sigma²) epsilon + sigma z,
    sigma² = eta² (1 - gamma') / (1 - gamma) · beta_t.

    eta = 0 is deterministic; eta = 1 is `ancestral` with the posterior's variance.
    """
    c = _levels(schedule)
    # √(1 - gamma' - sigma²), in a form that loses no digits in a difference
    direction = np.sqrt(
        c.one_minus_next * ((1 - eta**2) + eta**2 * c.alpha * c.one_minus_next / c.one_minus)
    )
    keep = direction / np.sqrt(c.one_minus)  # epsilon = (y - √gamma D) / √(1 - gamma)
    predicted = np.sqrt(c.gamma_next) - np.sqrt(c.gamma) * keep
    noise = eta * np.sqrt(c.one_minus_next * c.beta / c.one_minus)
    return _table(c.gamma, keep, predicted, 0 * keep, noise)


def dpm_solver(schedule: NoiseSchedule, eta: float = 0.0) -> Steps:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2).

    It is `ddim` with D extrapolated along the log-SNR from the estimate before: D is replaced by
    D + (D - D') / (2 r), r = h_before / h, h the steps in log(1 / s). It is of second order at
    eta = 0; eta = 1 is its stochastic form, SDE-DPM-Solver++(2M). The first step, which has no D',
    and the last, whose h is infinite, are plain steps of `ddim`.
    """
    c = _levels(schedule)
    base = ddim(schedule, eta)
    with np.errstate(divide="ignore"):
        h = np.log(c.one_minus / c.gamma) / 2 - np.log(c.one_minus_next / c.gamma_next) / 2
    share = np.zeros_like(h)
    share[1:-1] = h[1:-1] / (2 * h[:-2])
    predicted = np.asarray(base.predicted, np.float64)
    return _table(c.gamma, base.keep, predicted * (1 + share), -predicted * share, base.noise)


def heun(schedule: NoiseSchedule) -> Steps:
    """Heun's method on the probability flow, in its exponential form.

    Each step but the last is a `ddim` step, then a second evaluation where it ended, and a
    correction for D, the estimate of y_0, being linear in the log-SNR between the two:
    y + √gamma' · (h - 1 + exp(-h)) / h · (D' - D), with h the step in log(√gamma / √(1 - gamma))
    (Hochbruck & Ostermann 2010, eq. 2.39 and φ_2; the trapezoidal rule of Karras et al. 2022,
    algorithm 1, has exp(h) - 1 over 2 there, which grows without bound in large steps). It is of
    second order, and takes 2 T - 1 evaluations for T steps.
    """
    c = _levels(schedule)
    base = ddim(schedule)
    # s / s', with s = √(1 - gamma) / √gamma
    ratio = np.sqrt(c.one_minus[:-1] / c.gamma[:-1] / (c.one_minus_next[:-1] / c.gamma_next[:-1]))
    h = np.log(ratio)
    correction = np.sqrt(c.gamma_next[:-1]) * (h - 1 + np.exp(-h)) / h
    rows = 2 * schedule.steps - 1
    columns = [np.zeros(rows) for _ in range(5)]
    for column, values in zip(
        columns, (c.gamma, base.keep, base.predicted, base.previous, base.noise), strict=True
    ):
        column[::2] = values
    for column, values in zip(
        columns, (c.gamma_next[:-1], np.ones_like(ratio), correction, -correction), strict=False
    ):
        column[1::2] = values
    return _table(*columns)


def noise_like(images: Images, keys: Keys, t: int | Array) -> Images:
    """Standard normal noise of the images' shape; that of image i is made from keys[i] and t."""
    return jax.vmap(
        lambda key: jax.random.normal(jax.random.fold_in(key, t), images.shape[1:], images.dtype)
    )(keys)


def advance(
    row: Steps, y: Images, before: Images, seen: Array, noise: Images | None
) -> tuple[Images, Images]:
    """One evaluation, eq. (1).

    Args:
      row: of a table: a number in each of its columns.
      y: the images so far.
      before: what the network made of them one row ago.
      seen: what it makes of them now; further channels are the share of the widest variance.
      noise: standard normal noise; None: none is added.

    Returns:
      y after the row, and the `before` of the next.
    """
    found, share = seen[..., : y.shape[-1]], seen[..., y.shape[-1] :]
    after: Any = row.keep * y + row.predicted * found + row.previous * before
    if noise is None:
        return after, found
    strength = row.noise if row.narrowing is None else row.noise * row.narrowing ** (1 - share)
    return after + strength * noise, found


def sample(
    denoise: Denoiser, condition: PyTree, keys: Keys, steps: Steps, *, shape: tuple[int, ...]
) -> Images:
    """Draws y_T ~ N(0, I) and applies eq. (1) row by row; a pure function, for `jit`.

    The noise of a row is numbered by the evaluations that are left, and that of y_T by one more
    than there are.

    Args:
      denoise: the network. Its channels after those of `shape` are v, the share of the widest
        variance, for a table with a learned one.
      condition: its first argument.
      keys: one random key per image.
      steps: the sampler's table.
      shape: of the images, (b, h, w, c).

    Returns:
      y_0 of each image.
    """
    count = steps.evaluations
    quiet = isinstance(steps.noise, np.ndarray) and not steps.noise.any()
    table = jax.tree.map(jnp.asarray, steps)

    def step(index: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        y, before = carry
        row = jax.tree.map(lambda column: column[index], table)
        seen = denoise(condition, y, jnp.broadcast_to(row.gamma, y.shape[:1]))
        noise = None if quiet else noise_like(y, keys, count - index)
        return advance(row, y, before, seen, noise)

    y_T = noise_like(jnp.zeros(shape), keys, count + 1)
    return jax.lax.fori_loop(0, count, step, (y_T, jnp.zeros(shape)))[0]
