"""`sr3 demo`: the shipped networks at work.

They enlarge faces and photographs that they were not trained on, and an image of the user's. Each
result stands beside what was given, plain interpolation and the truth.
"""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
from PIL import Image

from sr3_jax.data.faces import OrlFaces
from sr3_jax.data.public_photos import PublicPhotos
from sr3_jax.errors import UserError
from sr3_jax.images import arrays, files, sheet
from sr3_jax.images.pixels import Picture, to_pillow
from sr3_jax.inference.sampling import Sampling
from sr3_jax.inference.upscaler import Upscaler
from sr3_jax.tasks import operations

FACES = (40, 91)  # two of the 100 images of people 31-40
SQUARES = ("chelsea/0-0", "coffee/0-1", "china/0-0")  # the last one does not come out well
SIDE = 384  # the side of the part of the user's image that compare.png shows, in pixels


def run(output: Path, image: Path | None = None) -> list[Path]:
    """Writes the demo's pictures; returns their files.

    Args:
      output: The folder of demo.png and, if there is an image of the user's, of yours.png, the
        enlarged image, and compare.png, its middle beside bicubic.
      image: The user's image.

    Raises:
      UserError: `output` is not empty, or `image` cannot be read. Then nothing is made.
    """
    if output.exists() and any(output.iterdir()):
        raise UserError(f"{output} is not empty: choose another --output")
    file = files.parse(files.load(image), str(image)) if image else None
    faces, photos = Upscaler.load("faces-16-64"), Upscaler.load("photos-4x")
    source, public = OrlFaces(range(31, 41)), PublicPhotos(128)
    columns: dict[str, list[np.ndarray]] = {"given": [], "bicubic": [], "sr3": [], "truth": []}
    for place in FACES:
        truth = Image.fromarray(source[place].pixels[14:106, :, 0]).resize(
            (64, 64), Image.Resampling.BICUBIC
        )
        _add(columns, np.asarray(truth)[..., None], faces)
    for name in SQUARES:
        _add(columns, public[public.names.index(name)].pixels, photos)
    written = [output / "demo.png"]
    arrays.write(written[0], sheet.grid(columns, cell=256))
    if file is not None and image is not None:
        large = photos.picture(file.picture, image.name, Sampling())
        written += [output / "yours.png", output / "compare.png"]
        files.write(written[1], large, file.metadata)
        arrays.write(written[2], _compare(file.picture.colour, large.colour))
    return written


def _add(columns: dict[str, list[np.ndarray]], truth: np.ndarray, upscaler: Upscaler) -> None:
    """Adds a row: the truth (h, w, c), made smaller by the network's task, and enlarged again."""
    task = upscaler.checkpoint.method.task
    lr = task.corrupt(operations.to_float(jnp.asarray(truth[None]))).image
    small, bicubic = (
        np.asarray(operations.to_uint8(images_))[0] for images_ in (lr, task.condition(lr))
    )
    for column, pixels in zip(
        columns.values(), (small, bicubic, upscaler(small), truth), strict=True
    ):
        column.append(pixels)


def _compare(small: np.ndarray, large: np.ndarray) -> np.ndarray:
    """The middle of the user's image as enlarged, pixel for pixel, beside the same by bicubic."""
    height, width = large.shape[:2]
    bicubic = to_pillow(Picture(small)).resize((width, height), Image.Resampling.BICUBIC)
    top, left = max(0, (height - SIDE) // 2), max(0, (width - SIDE) // 2)
    both = {
        "bicubic": np.asarray(bicubic).reshape(height, width, -1),
        "sr3": Picture(large).quantized(),
    }
    return sheet.grid(
        {title: [one[top : top + SIDE, left : left + SIDE]] for title, one in both.items()},
        cell=SIDE,
    )
