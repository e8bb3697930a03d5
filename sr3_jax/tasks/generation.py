"""Generation: images from noise alone, or of a class; the first stage of a cascade."""

from jaxtyping import Array, Key

from sr3_jax.tasks.same_size import SameSize
from sr3_jax.tasks.task import Canvas, Given, Images


class Generation(SameSize):
    """There is nothing to make an image from: the input is an image without channels.

    It still has a height and a width, those of the result, so whatever handles inputs (batches,
    tiles, devices) handles these.
    """

    input_channels = condition_channels = 0

    def corrupt(
        self, image: Images, key: Key[Array, ""] | None = None, *, train: bool = False
    ) -> Given:
        """All that is left of an image is its size: (b, h, w, 0)."""
        return Given(image[..., :0])

    def condition(self, image: Images) -> Images:
        """The same image without channels."""
        return image

    def condition_canvas(self, image: Canvas) -> Canvas:
        """The same image without channels."""
        return image

    def compose(self, image: Canvas, output: Canvas) -> Canvas:
        """The output as it is."""
        return output
