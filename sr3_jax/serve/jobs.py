"""The images that `sr3 serve` enlarges."""

from dataclasses import dataclass

from sr3_jax.images import files
from sr3_jax.images.encoding import encode
from sr3_jax.images.files import File
from sr3_jax.images.formats import FORMATS
from sr3_jax.inference.sampling import Sampling
from sr3_jax.inference.upscaler import Cost, Upscaler
from sr3_jax.serve import queues
from sr3_jax.serve.queues import DONE, Queue, TooLarge


@dataclass(eq=False, kw_only=True)
class Job(queues.Job):
    """One image to enlarge."""

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


class Jobs(Queue[Job]):
    """A queue of images, and the one thread that enlarges them. Safe to use from several threads.

    Args:
      upscaler: What enlarges them.
      waiting: How many images may wait.
      pixels: How many pixels a result may have.
    """

    def __init__(self, upscaler: Upscaler, *, waiting: int, pixels: int):
        self.upscaler, self.pixels = upscaler, pixels
        super().__init__(waiting, "images")

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
        self.check_room()
        file = self.upscaler.prepared(files.parse(data, name), sampling)
        job = Job(name=name, file=file, sampling=sampling, cost=cost, notes=[*file.notes])
        self.put(job)
        return job

    def work(self, job: Job) -> None:
        """Enlarges an image."""
        assert job.file is not None
        picture = self.upscaler.picture(job.file.picture, job.name, job.sampling, job.advance)
        job.result, notes = encode(picture, FORMATS["PNG"], job.file.metadata)
        job.notes += notes
