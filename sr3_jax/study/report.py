"""The results of a study.

The fool rate of each method with its intervals, also by image; which subjects were left out; and
how long answers took.
"""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sr3_jax.images import arrays, plots
from sr3_jax.runtime.atomic import write_text
from sr3_jax.study.study import CATCH, MAIN, Study

Answer = dict[str, Any]  # a row of the table `answers`
CONFIDENCE = 1.959964  # 95 % of a normal distribution lie within so many standard deviations


def wilson(chosen: int, of: int) -> tuple[float, float]:
    """The 95 % interval (Wilson 1927) of a share, when `chosen` of so many were chosen."""
    if not of:
        return 0.0, 1.0
    z2, share = CONFIDENCE**2, chosen / of
    centre = (share + z2 / (2 * of)) / (1 + z2 / of)
    reach = CONFIDENCE * np.sqrt(share * (1 - share) / of + z2 / (4 * of * of)) / (1 + z2 / of)
    return max(0.0, float(centre - reach)), min(1.0, float(centre + reach))


def analyse(
    study: Study, answers: Sequence[Answer], least_catch: float = 0.8, seed: int = 0
) -> dict[str, Any]:
    """The report, as it is written to report.json.

    The Wilson interval ("interval") takes the trials as independent. "over_subjects" is the
    interval of a bootstrap of whole subjects, which is wider where people differ.

    Args:
      study: The study.
      answers: All answers.
      least_catch: Subjects who got a smaller share of their catch trials right are left out.
      seed: Of the bootstrap.
    """
    subjects = sorted({answer["subject"] for answer in answers})
    catch = {
        subject: [_right(a) for a in answers if a["subject"] == subject and a["kind"] == CATCH]
        for subject in subjects
    }
    excluded = [
        {"subject": subject, "catch_trials_right": float(np.mean(right))}
        for subject, right in catch.items()
        if right and np.mean(right) < least_catch
    ]
    kept = set(subjects) - {one["subject"] for one in excluded}
    used = [a for a in answers if a["subject"] in kept and a["kind"] == MAIN]
    found: dict[str, Any] = {
        "task": study.task,
        "subjects": len(kept),
        "excluded": excluded,
        "least_catch": least_catch,
        "trials": len(used),
        "trials_shown_again": sum(a["shown"] > 1 for a in used),
        "methods": {},
    }
    rng = np.random.default_rng(seed)
    for k, method in enumerate(study.methods):
        of_method = [a for a in used if a["method"] == k]
        by_image = {
            stem: _share([a for a in of_method if a["stem"] == stem])
            for stem in sorted({a["stem"] for a in of_method})
        }
        ranked = sorted(by_image, key=lambda stem: (-by_image[stem]["fool_rate"], stem))
        times = [a["milliseconds"] / 1000 for a in of_method]
        found["methods"][method] = _share(of_method) | {
            "over_subjects": _bootstrap(of_method, rng),
            "median_seconds": float(np.median(times)) if times else None,
            "best": ranked[:5],
            "worst": ranked[::-1][:5],
            "images": by_image,
        }
    return found


def _right(answer: Answer) -> bool:
    return bool(answer["chose_left"]) == bool(answer["real_left"])


def _share(answers: Sequence[Answer]) -> dict[str, Any]:
    fooled = sum(not _right(answer) for answer in answers)
    n = len(answers)
    return {"fool_rate": fooled / n if n else None, "n": n, "interval": wilson(fooled, n)}


def _bootstrap(
    answers: Sequence[Answer], rng: np.random.Generator, draws: int = 2000
) -> tuple[float, float] | None:
    subjects = sorted({answer["subject"] for answer in answers})
    if len(subjects) < 2:  # of one there is no interval
        return None
    fooled = [[not _right(a) for a in answers if a["subject"] == s] for s in subjects]
    counts = np.array([[sum(of_one), len(of_one)] for of_one in fooled], float)
    drawn = counts[rng.integers(len(subjects), size=(draws, len(subjects)))].sum(1)
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])
    return float(low), float(high)


def table(report: dict[str, Any]) -> str:
    """The report in Markdown: a table with a row for each method, and the best and worst images."""
    lines = [
        f"Task {report['task']}: {report['subjects']} subjects, {report['trials']} trials; "
        f"{len(report['excluded'])} subjects "
        f"left out, with fewer than {report['least_catch']:.0%} of the catch trials right.",
        "",
        "| method | fool rate | 95 % (Wilson) | 95 % over subjects | n | median time |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    pictures: list[str] = []
    for name, values in report["methods"].items():
        if not values["n"]:
            lines.append(f"| {name} | | | | 0 | |")
            continue
        low, high = values["interval"]
        over = values["over_subjects"]
        between = f"{over[0]:.1%} – {over[1]:.1%}" if over else "of one there is none"
        lines.append(
            f"| {name} | {values['fool_rate']:.1%} | {low:.1%} – {high:.1%} | "
            f"{between} | {values['n']} | "
            f"{values['median_seconds']:.1f} s |"
        )
        pictures += [
            "",
            f"{name}: best {', '.join(values['best'])}; worst {', '.join(values['worst'])}.",
        ]
    return "\n".join(lines + pictures) + "\n"


def plot(report: dict[str, Any]) -> np.ndarray:
    """A plot of the fool rates with their Wilson intervals, with a bar for each method."""
    methods = report["methods"]
    canvas, axes = plots.empty(640, 90 + 44 * len(methods))
    for row, found in enumerate(methods.values()):
        if found["n"]:
            rate = 100 * found["fool_rate"]
            axes.barh(row, rate, color="#1f77b4")
            axes.hlines(row, *(100 * np.array(found["interval"])), "k")
            axes.annotate(f"{rate:.1f} %", (rate, row), (4, 8), textcoords="offset points")
    axes.set_yticks(range(len(methods)), [name[:22] for name in methods], parse_math=False)
    axes.axvline(50, color="#999999")
    axes.set(xlabel="fool rate, %", xlim=(0, None))
    axes.invert_yaxis()
    return plots.pixels(canvas)


def save(output: Path, study: Study, answers: Sequence[Answer], report: dict[str, Any]) -> None:
    """Writes report.json, report.md, fool_rates.png and answers.csv.

    The last holds every answer, with the method's name and whether it is right.
    """
    write_text(output / "report.json", json.dumps(report, indent=2) + "\n")
    write_text(output / "report.md", table(report))
    arrays.write(output / "fool_rates.png", plot(report))
    text = io.StringIO()
    columns = (
        "subject number kind stem method real_left chose_left right milliseconds shown at".split()
    )
    names = {-1: "", **dict(enumerate(study.methods))}
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(
        answer | {"method": names[answer["method"]], "right": int(_right(answer))}
        for answer in answers
    )
    write_text(output / "answers.csv", text.getvalue())
