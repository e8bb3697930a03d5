"""The images of `sr3 serve`: one that is worked on, a few that wait, and the last few results."""

import queue
import secrets
import threading
from dataclasses import dataclass, field

from sr3_jax.errors import UserError
from sr3_jax.images import files
from sr3_jax.images.files import File
from sr3_jax.inference.sampling import Sampling
from sr3_jax.inference.upscaler import Cost, Upscaler

WAITING, RUNNING, DONE, FAILED, CANCELLED = "waiting", "running", "done", "failed", "cancelled"
KEPT = 20  # finished jobs that are kept at most
KEPT_BYTES = 2**28  # bytes that their images take at most
CLOSING = 5.0  # seconds in which a running job is to notice that the service ends


class TooBusy(UserError):
    """As many images wait as are allowed to."""


class TooLarge(UserError):
    """The result would have more pixels than allowed."""


class _Cancelled(Exception):
    """Whoever asked for the image does not want it any more."""


@dataclass(eq=False)
class Job:
    """One image to enlarge. `id` cannot be guessed, and whoever knows it may fetch the result."""

    name: str
    file: File | None  # None once the job has failed or was cancelled
    sampling: Sampling
    cost: Cost
    notes: list[str]
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    state: str = WAITING
    done: int = 0  # tiles × evaluations, of `total`
    error: str = ""
    result: bytes = b""  # a PNG file
    cancel: bool = False

    @property
    def total(self) -> int:
        """The work of the whole job, in tiles × evaluations."""
        return self.cost.tiles * self.cost.evaluations

    @property
    def bytes(self) -> int:
        """The bytes of memory that the job holds."""
        planes = (self.file.picture.colour, self.file.picture.alpha) if self.file else ()
        return len(self.result) + sum(plane.nbytes for plane in planes if plane is not None)

    def end(self, state: str) -> None:
        """Ends the job in a state; without a result its image is dropped."""
        if state != DONE:
            self.file = None
        self.state = state


class Jobs:
    """A queue of images, and the one thread that enlarges them. Safe to use from several threads.

    Args:
      upscaler: What enlarges them.
      waiting: How many images may wait.
      pixels: How many pixels a result may have.
    """

    def __init__(self, upscaler: Upscaler, *, waiting: int, pixels: int):
        self.upscaler, self.pixels = upscaler, pixels
        self._most_waiting = waiting
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()
        self._worker = threading.Thread(target=self._work, name="enlarging", daemon=True)
        self._worker.start()

    def add(self, data: bytes, name: str, sampling: Sampling) -> Job:
        """Takes an image file to be enlarged.

        Args:
          data: The file's content.
          name: The file's name.
          sampling: How it is enlarged.

        Raises:
          TooLarge: The result would have too many pixels.
          TooBusy: Too many images are waiting.
          UserError: It is no image that can be read, or `sampling` cannot be used.
        """
        height, width = files.header(data, name)
        cost = self.upscaler.cost(height, width, sampling)
        # The network's passes may make it larger than the scale asked for, to which it is resized
        made = self.upscaler.scale ** self.upscaler.passes(sampling.scale)
        if height * width * made**2 > self.pixels:
            raise TooLarge(
                f"{name} is {width}×{height} and would become {width * made}×{height * made}; "
                "this server makes up to "
                f"{self.pixels / 1e6:.0f} million pixels"
            )
        self._check_room()
        file = files.parse(data, name)
        job = Job(
            name, file, sampling, cost, [*file.notes, *self.upscaler.scale_notes(sampling.scale)]
        )
        with self._lock:
            self._check_room()
            self._jobs[job.id] = job
            self._forget()
        self._queue.put(job)
        return job

    def _check_room(self) -> None:
        if sum(job.state == WAITING for job in list(self._jobs.values())) >= self._most_waiting:
            raise TooBusy(f"{self._most_waiting} images are waiting already; try again in a while")

    def get(self, id: str) -> Job | None:
        """The job with that id; None if it is not known, or not any more."""
        return self._jobs.get(id)

    def ahead(self, job: Job) -> int:
        """How many images come before a waiting one, that being worked on included."""
        with self._lock:
            before = list(self._jobs.values())
        return (
            sum(other.state in (WAITING, RUNNING) for other in before[: before.index(job)])
            if job in before
            else 0
        )

    def cancel(self, job: Job) -> None:
        """Cancels a job.

        A waiting job never starts, a running one ends after its next tiles, and a finished one is
        forgotten.
        """
        job.cancel = True
        with self._lock:
            if job.state == WAITING:
                job.end(CANCELLED)
            elif job.state in (DONE, FAILED):
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

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            with self._lock:
                if job.state == CANCELLED:
                    continue
                job.state = RUNNING
            try:
                job.result = self._enlarge(job)
                job.end(DONE)
            except _Cancelled:
                job.end(CANCELLED)
            except Exception as error:  # one image must not end the service for all
                ours = f"{job.name}: {type(error).__name__}: {error}"
                job.error = str(error) if isinstance(error, UserError) else ours
                job.end(FAILED)

    def _enlarge(self, job: Job) -> bytes:
        assert job.file is not None

        def advance(count: int) -> None:
            job.done += count
            if job.cancel:
                raise _Cancelled

        advance(0)
        picture = self.upscaler.picture(job.file.picture, job.name, job.sampling, advance)
        data, notes = files.encode(picture, job.file.info, "PNG")
        job.notes += notes
        return data
