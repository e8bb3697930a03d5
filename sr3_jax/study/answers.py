"""A study's subjects and answers in SQLite: an answer is on disk before the next trial begins."""

import math
import secrets
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sr3_jax.errors import UserError
from sr3_jax.study.study import Trial

TABLES = """
CREATE TABLE IF NOT EXISTS subjects (\
number INTEGER PRIMARY KEY, token TEXT UNIQUE NOT NULL, agreed TEXT);
CREATE TABLE IF NOT EXISTS answers (
    subject INTEGER NOT NULL REFERENCES subjects, number INTEGER NOT NULL, \
kind TEXT NOT NULL, stem TEXT NOT NULL,
    method INTEGER NOT NULL, real_left INTEGER NOT NULL, \
chose_left INTEGER NOT NULL, milliseconds REAL NOT NULL,
    shown INTEGER NOT NULL, at TEXT NOT NULL, PRIMARY KEY (subject, number));
CREATE TABLE IF NOT EXISTS shown (
    subject INTEGER NOT NULL, number INTEGER NOT NULL, times INTEGER NOT NULL, \
PRIMARY KEY (subject, number));
"""

LONGEST = 3_600_000.0  # milliseconds (an hour); longer times count as this: the subject was away
WANTED = "an answer is {left: true or false, milliseconds: a number}"


def checked(answer: Any) -> tuple[bool, float]:
    """Whether an answer is for the left image, and after how many milliseconds it was given.

    Args:
      answer: Parsed JSON. It may come from anyone, so nothing is assumed about it.

    Raises:
      ValueError: It is not an answer; the message says what one is.
    """
    try:
        left, milliseconds = answer["left"], float(answer["milliseconds"])
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(WANTED) from error
    if not isinstance(left, bool) or math.isnan(milliseconds) or milliseconds < 0:
        raise ValueError(WANTED)
    return left, min(milliseconds, LONGEST)


class Answers:
    """The file answers.sqlite in the folder of a study. Safe to use from several threads."""

    def __init__(self, folder: Path):
        try:
            self._database = sqlite3.connect(
                folder / "answers.sqlite", check_same_thread=False, isolation_level=None
            )
            self._database.row_factory = sqlite3.Row
            # An answer survives even a power cut
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.executescript(TABLES)
        except sqlite3.Error as error:
            raise UserError(f"{folder / 'answers.sqlite'} cannot be opened: {error}") from error
        self._lock = threading.Lock()

    def close(self) -> None:
        """Closes the file."""
        self._database.close()

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all that is done in it is written, or nothing."""
        with self._lock, self._database:  # which commits, or rolls back
            self._database.execute("BEGIN IMMEDIATE")
            yield self._database

    def _all(self, query: str, *values: Any) -> list[sqlite3.Row]:
        with self._lock:
            return self._database.execute(query, values).fetchall()

    def invite(self, count: int) -> list[str]:
        """The tokens of the first `count` subjects, made for those who have none yet.

        A token stands in the subject's link, and cannot be guessed.
        """
        with self._change() as database:
            database.executemany(
                "INSERT INTO subjects VALUES (?, ?, NULL) ON CONFLICT (number) DO NOTHING",
                [(number, secrets.token_hex(16)) for number in range(count)],
            )
        return [
            row["token"]
            for row in self._all("SELECT token FROM subjects ORDER BY number LIMIT ?", count)
        ]

    def subject(self, token: str) -> tuple[int, bool] | None:
        """The number of the subject with that token, and whether they have agreed to take part."""
        found = self._all("SELECT number, agreed FROM subjects WHERE token = ?", token)
        return (found[0]["number"], found[0]["agreed"] is not None) if found else None

    def agree(self, subject: int) -> None:
        """Notes when a subject has agreed to take part; only the first time counts."""
        with self._change() as database:
            database.execute(
                "UPDATE subjects SET agreed = COALESCE(agreed, ?) WHERE number = ?",
                (_now(), subject),
            )

    def given(self, subject: int) -> int:
        """How many trials the subject has answered; the next one has this number."""
        return int(
            self._all("SELECT COUNT(*) AS n FROM answers WHERE subject = ?", subject)[0]["n"]
        )

    def count_showing(self, subject: int, number: int) -> None:
        """Counts how often a trial was shown: more than once if the page was loaded again."""
        with self._change() as database:
            database.execute(
                "INSERT INTO shown VALUES (?, ?, 1) "
                "ON CONFLICT (subject, number) DO UPDATE SET times = times + 1",
                (subject, number),
            )

    def record(
        self, subject: int, number: int, trial: Trial, chose_left: bool, milliseconds: float
    ) -> bool:
        """Writes an answer.

        Args:
          subject: Whose answer it is.
          number: The number of the trial.
          trial: The trial.
          chose_left: Whether the left image was chosen.
          milliseconds: After what time.

        Returns:
          False if it is not the subject's next trial; then nothing is written.
        """
        with self._change() as database:
            (done,) = database.execute(
                "SELECT COUNT(*) FROM answers WHERE subject = ?", (subject,)
            ).fetchone()
            if done != number:
                return False
            times = database.execute(
                "SELECT times FROM shown WHERE subject = ? AND number = ?", (subject, number)
            ).fetchone()
            answer = {
                "left": chose_left,
                "milliseconds": milliseconds,
                "shown": times["times"] if times else 0,
                "at": _now(),
            }
            _insert(database, subject, number, trial, answer)
        return True

    def add(
        self, subject: int, trials: Sequence[Trial], given: Sequence[dict[str, Any]]
    ) -> int | None:
        """Writes those of a subject's answers that are not there yet.

        Who has answered has agreed to take part, so that is noted as well.

        Args:
          subject: Whose answers they are.
          trials: All trials of the subject.
          given: The answers from the first trial on, {"left", "milliseconds", "shown", "at"} each.

        Returns:
          How many were new. None, and nothing is written, if they contradict answers that are there
          already.
        """
        with self._change() as database:
            there = database.execute(
                "SELECT chose_left, milliseconds FROM answers WHERE subject = ? ORDER BY number",
                (subject,),
            ).fetchall()
            for row, answer in zip(there, given, strict=False):
                if (bool(row["chose_left"]), row["milliseconds"]) != (
                    answer["left"],
                    answer["milliseconds"],
                ):
                    return None
            database.execute(
                "UPDATE subjects SET agreed = COALESCE(agreed, ?) WHERE number = ?",
                (_now(), subject),
            )
            for number in range(len(there), len(given)):
                _insert(database, subject, number, trials[number], given[number])
        return max(0, len(given) - len(there))

    def all(self) -> list[dict[str, Any]]:
        """Every answer, in the order of subjects and trials."""
        return [dict(row) for row in self._all("SELECT * FROM answers ORDER BY subject, number")]


def _insert(
    database: sqlite3.Connection,
    subject: int,
    number: int,
    trial: Trial,
    answer: dict[str, Any],
) -> None:
    """Writes an answer, {"left", "milliseconds", "shown", "at"}."""
    database.execute(
        "INSERT INTO answers VALUES (:subject, :number, :kind, :stem, :method, :real_left, "
        ":left, :milliseconds, :shown, :at)",
        {"subject": subject, "number": number} | asdict(trial) | answer,
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
