"""Uploaded images of which `sr3 serve` makes pictures; those that it enlarges."""

from dataclasses import dataclass

from sr3_jax.images import files
from sr3_jax.images.encoding import encode
from sr3_jax.images.files import File
from sr3_jax.images.formats import FORMATS
from sr3_jax.inference.files import Worker
from sr3_jax.inference.sampling import Sampling
from sr3_jax.inference.upscaler import Cost, Upscaler
from sr3_jax.serve import queues
from sr3_jax.serve.queues import DONE, Queue, TooLarge


@dataclass(eq=False, kw_only=True)
class Job(queues.Job):
    """One image, of which a picture is made."""

    worker: Worker  # what makes it
    file: File | None  # None once the job has failed or was cancelled
    sampling: Sampling
    cost: Cost
    notes: list[str]
    result: bytes = b""  # a PNG file

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
        super().end(state)


class Pictures(Queue[Job]):
    """A queue of images, and the one thread that makes pictures of them. Safe to use from threads.

    Args:
      waiting: How many images may wait.
      pixels: How many pixels a result may have.
    """

    def __init__(self, *, waiting: int, pixels: int):
        self.pixels = pixels
        super().__init__(waiting, "images")

    def check_pixels(self, name: str, given: tuple[int, int], made: tuple[int, int]) -> None:
        """Raises TooLarge if an image, or what it becomes, both (height, width), is too large."""
        if made[0] * made[1] > self.pixels:
            becomes = f" and would become {made[1]}×{made[0]}" if made != given else ""
            raise TooLarge(
                f"{name} is {given[1]}×{given[0]}{becomes}; this server makes up to "
                f"{self.pixels / 1e6:.0f} million pixels"
            )

    def take(self, worker: Worker, data: bytes, name: str, sampling: Sampling, cost: Cost) -> Job:
        """Takes an image file, of which a worker is to make a picture at that cost.

        Raises:
          TooBusy: Too many images are waiting.
          UserError: It is no image that can be read.
        """
        self.check_room()
        file = worker.prepared(files.parse(data, name), sampling)
        notes = [*file.notes]
        job = Job(name=name, worker=worker, file=file, sampling=sampling, cost=cost, notes=notes)
        self.put(job)
        return job

    def work(self, job: Job) -> None:
        """Makes the picture of an image."""
        assert job.file is not None
        picture = job.worker.picture(job.file.picture, job.name, job.sampling, job.advance)
        job.result, notes = encode(picture, FORMATS["PNG"], job.file.metadata)
        job.notes += notes


class Jobs(Pictures):
    """A queue of images to enlarge.

    Args:
      upscaler: What enlarges them.
      waiting: How many images may wait.
      pixels: How many pixels a result may have.
    """

    def __init__(self, upscaler: Upscaler, *, waiting: int, pixels: int):
        self.upscaler = upscaler
        super().__init__(waiting=waiting, pixels=pixels)

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
        self.check_pixels(name, (height, width), (height * made, width * made))
        return self.take(self.upscaler, data, name, sampling, cost)
