"""What a study consists of, and which trials a subject sees.

It is the paper's two-alternative forced choice (section 4.1).

Two images are shown side by side for three seconds: the reference, and a method's version of it.
Task 1 also shows the LR image and asks which is the better high-quality version of it; task 2 does
not, and asks which one is from a camera. The fool rate of a method is the share of trials in which
its image was chosen: 50 % if it cannot be told from the truth.

A study is a folder:

    study.json         the task, what is shown how long, how many trials, methods and stems
    images/            reference/STEM.png, lr/STEM.png, method-K/STEM.png:
                       re-encoded alike, without metadata
    answers.sqlite     subjects and answers
    links.txt          the subjects' links, once it is served or exported
"""

import hashlib
import io
import itertools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from sr3_jax.errors import UserError
from sr3_jax.images import arrays, pairs
from sr3_jax.runtime.atomic import new_folder, replacing, write_text

QUESTIONS = {
    1: "Which of the two images is the better high-quality version of the small image?",
    2: "Which image would you guess is from a camera?",
}
TRAINING, CATCH, MAIN = "training", "catch", "main"
SPOILED = 8  # how many times smaller a catch trial's false image has been


@dataclass(frozen=True)
class Study:
    """study.json."""

    task: int  # 1 or 2
    seconds: float  # that the images are shown
    per_subject: int  # main trials
    training: int  # trials before them, with feedback
    catch: int  # trials among them whose answer is plain
    methods: list[str]
    stems: list[str]
    seed: int


def description(study: Study) -> dict[str, Any]:
    """What the page says of the study."""
    return {
        "training": study.training,
        "task": study.task,
        "question": QUESTIONS[study.task],
        "seconds": study.seconds,
    }


@dataclass(frozen=True)
class Trial:
    """One pair of images: the reference, and another.

    The other is a method's or, for training and catch trials, spoiled.
    """

    kind: str
    stem: str
    method: int  # of Study.methods; -1: spoiled
    real_left: bool


class Design(NamedTuple):
    """What subjects are to see."""

    task: int  # the paper's: 1, which is better, the LR image shown; 2, which is from a camera
    seconds: float = 3.0  # how long a pair is shown
    per_subject: int = 50  # pairs; at most the images that the other trials leave
    training: int = 3  # pairs before those, with feedback
    catch: int = 5  # pairs among them with a plain answer
    seed: int = 0  # of the order of images and methods


def create(
    output: Path,
    reference: Path,
    candidates: Mapping[str, Path],
    lr: Path | None,
    design: Design,
) -> Study:
    """Make the folder of a study from folders of images that belong together by their stems.

    A subject sees no image twice.

    Args:
      output: The new folder.
      reference: The real images.
      candidates: Of each method the folder of its images.
      lr: The LR images, which task 1 shows.
      design: What subjects are to see.

    Raises:
      UserError: Images are missing, too few, or of different sizes.
    """
    if design.task == 1 and lr is None:
        raise UserError("task 1 shows the LR images: give --lr=DIR")
    others = {f"method-{k}": folder for k, folder in enumerate(candidates.values())} | (
        {"lr": lr} if lr and design.task == 1 else {}
    )
    stems, files = pairs.match(reference, others)
    spare = design.training + design.catch
    if len(stems) <= spare:
        raise UserError(
            f"{reference} holds {len(stems)} images; "
            f"a study needs more than the {spare} of training and catch trials"
        )
    for stem in stems:  # all is checked before anything is written
        size = arrays.read_size(files["reference"][stem])
        for name in files.keys() - {"reference", "lr"}:
            other = arrays.read_size(files[name][stem])
            if other != size:
                raise UserError(
                    f"{files[name][stem]} is {other[0]}×{other[1]} and "
                    f"{files['reference'][stem]} is {size[0]}×{size[1]}; "
                    "a pair must have one size"
                )
    study = Study(
        design.task,
        design.seconds,
        min(design.per_subject, len(stems) - spare),
        design.training,
        design.catch,
        list(candidates),
        stems,
        design.seed,
    )
    with new_folder(output) as made:
        for name, stem in itertools.product(files, stems):
            with replacing(made / "images" / name / f"{stem}.png") as temporary:
                temporary.write_bytes(encode(pairs.read_rgb(files[name][stem])))
        write_text(made / "study.json", json.dumps(asdict(study), indent=2) + "\n")
    return study


def load(folder: Path) -> Study:
    """Raises UserError for a folder that is no study."""
    try:
        return Study(**json.loads((folder / "study.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{folder} is not a study (sr3 study create): {error}") from error


def encode(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """A PNG without compression.

    Its size depends on the image's size alone, not on how much detail is in it.
    """
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


def spoil(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """The image as anyone can tell it from the original.

    It is made eight times smaller and enlarged again.
    """
    whole = Image.fromarray(image)
    small = whole.resize(
        (max(1, whole.width // SPOILED), max(1, whole.height // SPOILED)), Image.Resampling.BOX
    )
    return np.asarray(small.resize(whole.size, Image.Resampling.BICUBIC))


def trials(study: Study, subject: int) -> list[Trial]:
    """What subject number `subject` (from 0) sees, in order.

    It is a function of the study and the number alone.

    Subjects share out the images: those of one round see each image once, as far as the numbers
    divide, and from round to round an image goes to the next method. Sides are random, half of them
    left.
    """
    n, count = len(study.stems), study.per_subject
    per_round = max(1, n // count)
    round_, place = divmod(subject, per_round)
    order = _rng(study.seed, "round", round_).permutation(n)
    mine = order[place * count : (place + 1) * count]
    rng = _rng(study.seed, "subject", subject)
    # the methods in the order of a shuffled list of images, one further each round
    first = np.argsort(_rng(study.seed, "methods").permutation(n))
    main = [
        Trial(MAIN, study.stems[i], int((first[i] + round_) % len(study.methods)), False)
        for i in mine
    ]
    spare = rng.permutation(np.setdiff1d(order, mine))  # no image is seen twice

    def plain(kind: str, i: int) -> Trial:
        return Trial(kind, study.stems[spare[i]], -1, False)

    shuffled: list[Trial] = [main[i] for i in rng.permutation(len(main))]
    for i in range(study.catch):
        shuffled.insert(int(rng.integers(1, len(shuffled) + 1)), plain(CATCH, study.training + i))
    found = [plain(TRAINING, i) for i in range(study.training)] + shuffled
    left = rng.permutation(np.arange(len(found)) % 2 == 0)
    return [replace(trial, real_left=bool(side)) for trial, side in zip(found, left, strict=True)]


def images(folder: Path, study: Study, trial: Trial) -> dict[str, bytes]:
    """PNG files by where they stand: "left", "right" and, in task 1, "lr"."""
    real = (folder / "images" / "reference" / f"{trial.stem}.png").read_bytes()
    if trial.method < 0:
        with Image.open(io.BytesIO(real)) as image:
            other = encode(spoil(np.asarray(image)))
    else:
        other = (folder / "images" / f"method-{trial.method}" / f"{trial.stem}.png").read_bytes()
    sides = {"left": real, "right": other} if trial.real_left else {"left": other, "right": real}
    if study.task == 1:
        sides["lr"] = (folder / "images" / "lr" / f"{trial.stem}.png").read_bytes()
    return sides


def _rng(*parts: object) -> np.random.Generator:
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))
