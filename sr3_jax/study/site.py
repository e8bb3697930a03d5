"""A study as files for any web host, without a server of ours; the answers come back as files.

    index.html            says that a link is needed
    page/                 the page's style and script, those of the served study
    TOKEN/                a subject's page: index.html, trials.js and, for trial number N,
                          N-left.png, N-right.png and, in task 1, N-lr.png

The files do not tell which images are real, except for the practice trials, where the subject is
told anyway. The subject's browser keeps the answers (but a private window loses them) until the
subject saves them as answers-TOKEN.json.
"""

import json
import re
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

from sr3_jax.errors import UserError
from sr3_jax.runtime.atomic import new_folder
from sr3_jax.study import study as studies
from sr3_jax.study.answers import WANTED, Answers, checked
from sr3_jax.study.study import TRAINING, Study

PAGE = Path(__file__).parent / "page"
SCRIPT = '<script src="../page/page.js" defer></script>'
NO_LINK = (
    '<!doctype html><meta charset="utf-8"><title>A study of images</title>'
    "<p>Open the link that you were sent.\n"
)


def export(
    output: Path, folder: Path, study: Study, answers: Answers, subjects: int
) -> tuple[list[str], int]:
    """Writes the site of a study.

    Args:
      output: The site's folder.
      folder: The study's folder.
      study: The study.
      answers: Its answers, for the subjects' tokens.
      subjects: How many subjects there are to be; the site is for the first so many.

    Returns:
      The subjects' tokens, and the site's size in bytes.

    Raises:
      UserError: `output` is not empty.
    """
    with new_folder(output) as made:
        tokens = answers.invite(subjects)
        shutil.copytree(PAGE, made / "page", ignore=shutil.ignore_patterns("*.html"))
        (made / "index.html").write_text(NO_LINK)
        html = (
            (PAGE / "index.html")
            .read_text()
            .replace(SCRIPT, f'<script src="trials.js" defer></script>\n{SCRIPT}')
        )
        for subject, token in enumerate(tokens):
            trials = studies.trials(study, subject)
            (made / token).mkdir()
            (made / token / "index.html").write_text(html)
            about = studies.description(study) | {
                "token": token,
                "total": len(trials),
                "practice": [trial.real_left for trial in trials if trial.kind == TRAINING],
            }
            (made / token / "trials.js").write_text(
                f'"use strict";\nself.TRIALS = {json.dumps(about, indent=2)};\n'
            )
            for number, trial in enumerate(trials):
                for side, image in studies.images(folder, study, trial).items():
                    (made / token / f"{number}-{side}.png").write_bytes(image)
    return tokens, sum(path.stat().st_size for path in output.rglob("*"))


def collect(study: Study, answers: Answers, file: Path) -> int:
    """Adds the answers in a file that a subject has saved to the study; returns how many are new.

    A file may be given again, and so may a longer file after a shorter one of the same subject.

    Raises:
      UserError: The file cannot be read, is not of this study, or contradicts answers that are
        there already. Then none of it is added.
    """
    token, given = _read(file)
    found = answers.subject(token)
    if found is None:
        raise UserError(f"{file} is not of this study: it has no subject {token}")
    subject, _ = found
    trials = studies.trials(study, subject)
    if len(given) > len(trials):
        raise UserError(
            f"{file} has {len(given)} answers; a subject of this study has {len(trials)} trials"
        )
    added = answers.add(subject, trials, given)
    if added is None:
        raise UserError(
            f"{file} contradicts the answers of subject {subject} that are there already"
        )
    return added


def _read(file: Path) -> tuple[str, list[dict[str, Any]]]:
    """The token and the answers of a file: {"left", "milliseconds", "shown", "at"} each."""
    try:
        content = json.loads(file.read_bytes())
        token, given = content["token"], []
        for entry in content["answers"]:
            left, milliseconds = checked(entry)
            shown, at = entry["shown"], entry["at"]
            if not (isinstance(shown, int) and 0 < shown < 10**6):
                raise ValueError(WANTED)
            # Only a time may get into the tables, whatever the file says
            at = datetime.fromisoformat(at).isoformat(timespec="seconds")
            given.append({"left": left, "milliseconds": milliseconds, "shown": shown, "at": at})
        if not re.fullmatch(r"[0-9a-f]{1,64}", token):
            raise ValueError(WANTED)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{file} is not a file of answers, as a study's page saves it") from error
    return token, given
