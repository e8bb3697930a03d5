"""Searches for the best noise levels to visit with only a few network evaluations.

This is the paper's search (section 2.4), for any sampler. The network is trained once, for all
noise levels; a sampling schedule is chosen afterwards, by its results on held-out images at a fixed
number of evaluations. The paper searched by FID; here the metric is a choice (FID and KID need the
weights of their network, and more held-out images than a small set has). The search space is small
and bounded:

    sampler         ancestral (posterior variance), ddim, dpm_solver, heun
    eta             0 to 1, of ddim and dpm_solver: how much noise is put back
    log_snr_start   1 to 9: the cleanest level
    1 / rho         0 to 1: the smaller, the more evenly the levels lie in the log-SNR

The first half of the trials are spread evenly over it (a Halton sequence); the second half are
random steps away from the best one so far. A trial depends only on its number and on the trials
before it, and is written to a file when it is done, so a stopped search can go on.

The images are those of the split "validation", never those of a table that is reported: the
held-out images, except for the AT&T faces, whose held-out people are a test set; there it is people
26-30. Every second image is searched on, and the others judge the winner.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import UInt8
from scipy.stats import qmc

from sr3_jax.checkpoints.checkpoint import Checkpoint, fingerprint
from sr3_jax.diffusion.registry import SAMPLERS
from sr3_jax.errors import UserError
from sr3_jax.evaluation import held_out
from sr3_jax.evaluation.contenders import to_uint8
from sr3_jax.images import plots
from sr3_jax.inference.upscaler import Upscaler
from sr3_jax.method import sampling_steps
from sr3_jax.metrics import distortion, distributions
from sr3_jax.metrics.distributions import Reference, Statistics
from sr3_jax.metrics.lpips import lpips
from sr3_jax.runtime.atomic import write_text
from sr3_jax.runtime.paths import AnyPath

RANGES = {"eta": (0.0, 1.0), "log_snr_start": (1.0, 9.0), "inverse_rho": (0.0, 1.0)}
METRICS = {"lpips": -1, "psnr": 1, "fid": -1, "kid": -1}  # 1: higher is better, -1: lower

Fields = dict[str, Any]  # of config.sample
# Such as metrics.networks.inception.Inception: from uint8 images to their features
FeatureNetwork = Callable[[np.ndarray], Any]


class Trial(NamedTuple):
    """A schedule that was tried, and its scores."""

    number: int
    point: list[float]  # in the unit cube: the sampler, then the values that RANGES bounds
    scores: dict[str, float]

    @property
    def fields(self) -> Fields:
        """The fields of config.sample that its point stands for."""
        return fields_of(np.array(self.point))


def fields_of(point: np.ndarray) -> Fields:
    """The fields of config.sample that a point of the unit cube stands for."""
    sampler = list(SAMPLERS)[min(int(point[0] * len(SAMPLERS)), len(SAMPLERS) - 1)]
    eta, start, inverse = (
        low + (high - low) * float(x)
        for x, (low, high) in zip(point[1:], RANGES.values(), strict=True)
    )
    return {
        "schedule": "log_snr",
        "sampler": sampler,
        "log_snr_start": round(start, 3),
        "rho": round(1 / inverse, 3) if inverse > 0.01 else 0.0,  # above 100 nothing changes
    } | ({"eta": round(eta, 3)} if SAMPLERS[sampler].uses_eta else {"variance": "posterior"})


def halton(number: int, dimensions: int) -> np.ndarray:
    """Point `number` (from 1) of the Halton sequence in the unit cube."""
    return qmc.Halton(dimensions, scramble=False).fast_forward(number).random()[0]


def propose(done: list[Trial], trials: int, metric: str) -> np.ndarray:
    """The point of the next trial, in the unit cube.

    Args:
      done: The trials so far.
      trials: How many there will be in all.
      metric: By which of METRICS the best one is chosen.
    """
    number = len(done)
    if number < trials // 2 or not done:
        return halton(number + 1, 1 + len(RANGES))
    best = max(done, key=lambda trial: METRICS[metric] * trial.scores[metric])
    rng = np.random.default_rng(number)
    reach = 0.25 * 0.93 ** (number - trials // 2)  # the steps become smaller and smaller
    step = rng.normal(0, reach, 1 + len(RANGES))
    step[0] = 0  # the sampler stays that of the best trial
    return np.clip(np.array(best.point) + step, 0, 1)


class Judge:
    """Scores schedules on a part of the held-out images.

    Args:
      upscaler: The network.
      images: The held-out images.
      rows: Which of them are used.
      inception: FID's network; without it there is no FID and no KID.
    """

    def __init__(
        self,
        upscaler: Upscaler,
        images: held_out.HeldOut,
        rows: np.ndarray,
        inception: FeatureNetwork | None = None,
    ):
        self.upscaler, self.config = upscaler, upscaler.checkpoint.config
        self.lr, self.hr = images.lr[rows], images.hr[rows]
        self.ids = [images.ids[i] for i in rows]
        self.signals = {name: values[rows] for name, values in images.signals.items()}
        self.inception = inception
        self.truth = self._statistics(self.hr)

    def _statistics(self, images: np.ndarray) -> Statistics | None:
        if self.inception is None:
            return None
        return distributions.statistics_of(self.inception, images)

    def __call__(self, evaluations: int, fields: Mapping[str, Any]) -> dict[str, float]:
        """The scores of a schedule: means over the images, with one sample of each.

        They are PSNR, SSIM, consistency and LPIPS (VGG), and with FID's network FID and KID.

        Args:
          evaluations: The number of network evaluations.
          fields: The fields of config.sample that differ from the checkpoint's.
        """
        steps = sampling_steps(self.config, evaluations, fields)
        output = to_uint8(self.upscaler.trial(self.lr, self.ids, steps, signals=self.signals))
        found = distortion.scores(output, self.hr, self.lr) | {"lpips": lpips(output, self.hr)}
        means = {name: float(values.mean()) for name, values in found.items()}
        made = self._statistics(output)
        if made is None or self.truth is None:
            return means
        fid = distributions.fid(made, Reference.of("held-out images", self.truth))
        return means | {"fid": fid, "kid": distributions.kid(made.sample, self.truth.sample)[0]}


class Found(NamedTuple):
    """The winner of a search, and its scores."""

    fields: Fields
    searched: dict[str, float]  # its scores on the images that were searched on
    held_out: dict[str, float]  # its scores on the other images
    before: dict[str, float]  # the scores of the checkpoint's own schedule on these other images


def search(
    checkpoint: Checkpoint,
    evaluations: int,
    trials: int,
    metric: str,
    folder: AnyPath,
    limit: int = 0,
    on_trial: Callable[[Trial], object] = lambda trial: None,
    inception: FeatureNetwork | None = None,
) -> Found:
    """Searches for a schedule, or goes on with a search that was stopped.

    Args:
      checkpoint: The network.
      evaluations: The number of network evaluations that the schedule may take.
      trials: How many schedules are tried in all.
      metric: What decides: one of METRICS.
      folder: Where the trials are written to, as trials.json.
      limit: How many of the held-out images are used; 0: all.
      on_trial: Called with every trial, also with those of an earlier run.
      inception: The network that FID and KID need.

    Raises:
      UserError: The metric, the checkpoint or the images do not allow a search, or `folder` holds
        another one.
    """
    if metric not in METRICS:
        raise UserError(f"--metric={metric} can be {' or '.join(METRICS)}")
    if metric in ("fid", "kid") and inception is None:
        raise UserError(f"--metric={metric} needs --inception=PATH, the weights of its network")
    if jax.process_count() > 1:
        raise UserError("search runs in one process, on all its devices")
    objective = checkpoint.method.objective
    if objective.choices.steps is not None:
        raise UserError(
            f"{checkpoint.name} is a {objective.title} network: it has no schedule to search for"
        )
    images = held_out.load(checkpoint.config, limit, "validation")
    least = 4 if inception else 2
    if images.total < least:
        raise UserError(
            f"a search needs at least {least} held-out images: some to search on, some to judge by"
        )
    upscaler = Upscaler(checkpoint)
    judge = Judge(upscaler, images, np.arange(0, len(images.ids), 2), inception)
    about = {
        "samplers": list(SAMPLERS),  # what the first coordinate of a point means
        "evaluations": evaluations,
        "metric": metric,
        "trials": trials,
        "step": checkpoint.step,
        "n": len(judge.ids),
        "parameters": fingerprint(checkpoint),
    }
    done = list(_recorded(folder, about))
    for trial in done:
        on_trial(trial)
    while len(done) < trials:
        point = propose(done, trials, metric)
        trial = Trial(
            len(done), point.round(6).tolist(), judge(evaluations, fields_of(point.round(6)))
        )
        done.append(trial)
        write_text(
            folder / "trials.json",
            json.dumps(about | {"done": [item._asdict() for item in done]}, indent=1),
        )
        on_trial(trial)
    best = max(done, key=lambda trial: METRICS[metric] * trial.scores[metric])
    others = Judge(upscaler, images, np.arange(1, len(images.ids), 2), inception)
    return Found(
        best.fields, best.scores, others(evaluations, best.fields), others(evaluations, {})
    )


def _recorded(folder: AnyPath, about: Mapping[str, Any]) -> Iterator[Trial]:
    """The trials of a search that was stopped; raises UserError if that was another search."""
    path = folder / "trials.json"
    if not path.exists():
        return
    try:
        found = json.loads(path.read_text())
        trials = [Trial(**entry) for entry in found["done"]]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged; remove it, and the search begins anew") from error
    differing = [
        f"{name}: {value!r} here, {found.get(name)!r} there"
        for name, value in about.items()
        if found.get(name) != value
    ]
    if differing:
        raise UserError(
            f"{path} is of another search ({'; '.join(differing)}); give another --output, "
            "or remove it"
        )
    yield from trials


def picture(trials: list[Trial], metric: str, size: int = 480) -> UInt8[np.ndarray, "h w 3"]:
    """A plot of every trial by its PSNR and LPIPS, with a colour for each sampler.

    A line joins the trials that no other trial beats in both.
    """
    canvas, axes = plots.empty(size, size)
    points = np.array([[trial.scores["psnr"], trial.scores["lpips"]] for trial in trials])
    best = [not np.any((points[:, 0] > x) & (points[:, 1] < y)) for x, y in points]
    front = points[best]
    axes.plot(*front[np.argsort(front[:, 0])].T, color="#bbbbbb")
    for sampler in SAMPLERS:
        axes.scatter(
            *points[[trial.fields["sampler"] == sampler for trial in trials]].T, label=sampler
        )
    axes.set(xlabel="PSNR, dB", ylabel="LPIPS (VGG)", title=f"{len(trials)} trials, by {metric}")
    axes.legend(framealpha=0.7)
    return plots.pixels(canvas)


def keep(path: AnyPath, evaluations: int, found: Found) -> None:
    """Adds the winner of a search to the schedules beside a checkpoint.

    It becomes the default for that number of network evaluations.

    Args:
      path: The JSON file of schedules, made if it is not there.
      evaluations: The number of network evaluations.
      found: The winner.
    """
    known = (json.loads(path.read_text()) if path.exists() else {}) | {
        str(evaluations): found.fields
    }
    write_text(
        path,
        json.dumps(dict(sorted(known.items(), key=lambda item: int(item[0]))), indent=2) + "\n",
    )
