"""The images that `sr3 serve --stage=…` makes from noise."""

import io
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int, UInt8

from sr3_jax.images import arrays
from sr3_jax.inference.classes import folder_of, labels_of
from sr3_jax.inference.generator import Drawing, Generator, Stage
from sr3_jax.serve import queues
from sr3_jax.serve.queues import Queue

AT_A_TIME = 4  # images: few, so that the first ones are soon seen and a job can be stopped


@dataclass(eq=False, kw_only=True)
class Generation(queues.Job):
    """Some images to make, which can be fetched as soon as they are there."""

    count: int
    stages: list[Stage]
    titles: list[str]  # of each image its class; "" where there are none
    labels: Int[np.ndarray, " n"] | None
    seed: int
    images: list[bytes] = field(default_factory=list)  # PNG files

    @property
    def total(self) -> int:
        """The work of the whole job, in images × stages."""
        return self.count * len(self.stages)

    @property
    def bytes(self) -> int:
        """The bytes of memory that the job holds."""
        return sum(map(len, self.images))

    def file_name(self, number: int) -> str:
        """What an image is called when it is saved: its class, the seed, its number."""
        title = folder_of(self.titles[number]) if self.titles[number] else "image"
        return f"{title} seed {self.seed} {number + 1}.png".replace(" ", "-")


class Generations(Queue[Generation]):
    """A queue of images to make, and the one thread that makes them. Safe to use from threads.

    Args:
      generator: What makes them.
      waiting: How many requests may wait.
    """

    def __init__(self, generator: Generator, *, waiting: int):
        self.generator = generator
        super().__init__(waiting, "requests")

    def add(self, count: int, classes: str, drawing: Drawing) -> Generation:
        """Takes a request for images.

        Args:
          count: How many.
          classes: Of which classes; see `labels_of`.
          drawing: How they are drawn.

        Raises:
          TooBusy: Too many requests are waiting.
          UserError: The networks cannot be used like that.
        """
        self.check_room()
        first = self.generator.checkpoints[0]
        stages = self.generator.stages(drawing)
        labels = labels_of(first, classes, np.arange(count), drawing.seed)
        names = self.generator.class_names
        titles = [""] * count if labels is None else [names[label] for label in labels]
        job = Generation(
            name="the images",
            count=count,
            stages=stages,
            titles=titles,
            labels=labels,
            seed=drawing.seed,
        )
        self.put(job)
        return job

    def work(self, job: Generation) -> None:
        """Makes the images, a few at a time."""
        # Where there are many devices, at least one image for each
        few = min(engine.padded(AT_A_TIME) for engine in self.generator.engines)
        for start in range(0, job.count, few):
            numbers = np.arange(start, min(start + few, job.count))
            labels = None if job.labels is None else job.labels[numbers]
            made = self.generator.images(job.stages, numbers, labels, job.advance)[-1]
            job.images += [_png(image) for image in made]


def _png(image: UInt8[np.ndarray, "h w c"]) -> bytes:
    buffer = io.BytesIO()
    arrays.to_pillow(image).save(buffer, "PNG")
    return buffer.getvalue()
