"""The queues of `sr3 serve`: one job that is worked on, a few that wait, and the last few."""

import abc
import queue
import secrets
import threading
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from sr3_jax.errors import UserError

WAITING, RUNNING, DONE, FAILED, CANCELLED = "waiting", "running", "done", "failed", "cancelled"
KEPT = 20  # finished jobs that are kept at most
KEPT_BYTES = 2**28  # bytes that their images take at most
CLOSING = 5.0  # seconds in which a running job is to notice that the service ends


class TooBusy(UserError):
    """As many jobs wait as are allowed to."""

    status = 503  # of the answer by HTTP


class TooLarge(UserError):
    """The result would have more pixels than allowed."""

    status = 413


class Cancelled(Exception):
    """Whoever asked for the job does not want it any more."""


@dataclass(eq=False, kw_only=True)
class Job(abc.ABC):
    """What was asked for. `id` cannot be guessed, and whoever knows it may fetch the result."""

    name: str  # in the message of an error of ours
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    state: str = WAITING
    done: int = 0  # of `total`
    error: str = ""
    cancel: bool = False

    @property
    @abc.abstractmethod
    def total(self) -> int:
        """The work of the whole job."""

    @property
    @abc.abstractmethod
    def bytes(self) -> int:
        """The bytes of memory that the job holds."""

    def end(self, state: str) -> None:
        """Ends the job in a state."""
        self.state = state

    def advance(self, count: int) -> None:
        """Counts work that is done; raises Cancelled if the rest is not wanted."""
        self.done += count
        if self.cancel:
            raise Cancelled


AnyJob = TypeVar("AnyJob", bound=Job)


class Queue(abc.ABC, Generic[AnyJob]):
    """Jobs in their order, and the one thread that works on them. Safe to use from several threads.

    Args:
      waiting: How many jobs may wait.
      jobs: What a user calls them.
    """

    def __init__(self, waiting: int, jobs: str):
        self._most_waiting, self._title = waiting, jobs
        self._queue: queue.SimpleQueue[AnyJob | None] = queue.SimpleQueue()
        self._jobs: dict[str, AnyJob] = {}
        self._lock = threading.Lock()
        self._worker = threading.Thread(target=self._work_off, name=f"work on {jobs}", daemon=True)
        self._worker.start()

    @abc.abstractmethod
    def work(self, job: AnyJob) -> None:
        """Does a job, and keeps its result in it; calls `advance` of the job on the way."""

    def put(self, job: AnyJob) -> None:
        """Takes a job; raises TooBusy if too many are waiting."""
        with self._lock:
            self.check_room()
            self._jobs[job.id] = job
            self._forget()
        self._queue.put(job)

    def check_room(self) -> None:
        """Raises TooBusy if too many jobs are waiting."""
        if sum(job.state == WAITING for job in list(self._jobs.values())) >= self._most_waiting:
            raise TooBusy(
                f"{self._most_waiting} {self._title} are waiting already; try again in a while"
            )

    def get(self, id: str) -> AnyJob | None:
        """The job with that id; None if it is not known, or not any more."""
        return self._jobs.get(id)

    def ahead(self, job: AnyJob) -> int:
        """How many jobs come before a waiting one, that being worked on included."""
        with self._lock:
            before = list(self._jobs.values())
        return (
            sum(other.state in (WAITING, RUNNING) for other in before[: before.index(job)])
            if job in before
            else 0
        )

    def cancel(self, job: AnyJob) -> None:
        """Cancels a job.

        A waiting job never starts, a running one ends when it next advances, and a finished one is
        forgotten.
        """
        job.cancel = True
        with self._lock:
            if job.state == WAITING:
                job.end(CANCELLED)
            elif job.state != RUNNING:
                self._jobs.pop(job.id, None)

    def close(self) -> None:
        """Cancels whatever runs or waits, and ends the thread."""
        for job in list(self._jobs.values()):
            job.cancel = True
        self._queue.put(None)
        self._worker.join(CLOSING)

    def _forget(self) -> None:
        """Drops the oldest finished jobs beyond what may be kept."""
        finished = [job for job in self._jobs.values() if job.state not in (WAITING, RUNNING)]
        size = sum(job.bytes for job in finished)
        while finished and (len(finished) > KEPT or size > KEPT_BYTES):
            oldest = finished.pop(0)
            size -= oldest.bytes
            del self._jobs[oldest.id]

    def _work_off(self) -> None:
        while (job := self._queue.get()) is not None:
            with self._lock:
                if job.state == CANCELLED:
                    continue
                job.state = RUNNING
            try:
                job.advance(0)
                self.work(job)
                job.end(DONE)
            except Cancelled:
                job.end(CANCELLED)
            except Exception as error:  # one job must not end the service for all
                ours = f"{job.name}: {type(error).__name__}: {error}"
                job.error = str(error) if isinstance(error, UserError) else ours
                job.end(FAILED)
