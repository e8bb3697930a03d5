"""Pictures as the upscaler works on them: colour and alpha in float, from any kind of image.

They are converted back to the kind of image that was given.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from PIL import Image as PillowImage

from sr3_jax.errors import UserError
from sr3_jax.images import decoding

GREY_TOLERANCE = 2.1 / 255  # a level of 8 bits, in [-1, 1], and rounding
Plane = Float[np.ndarray, "_h _w _c"]


class Picture(NamedTuple):
    """A picture in float, in [-1, 1]; alpha from -1 (clear) to 1 (opaque)."""

    colour: Plane  # grey (h, w, 1) or RGB (h, w, 3)
    alpha: Plane | None = None  # (h, w, 1)
    levels: int = 255  # the largest value in the picture's own format, 255 or 65,535; 0: float

    def quantized(self, levels: int | None = None) -> np.ndarray:
        """All channels, colour and alpha, rounded to uint8 or uint16; or float in [0, 1].

        Args:
          levels: 255, 65,535, or 0 for float; None: the picture's own.
        """
        levels = self.levels if levels is None else levels
        values = (
            self.colour
            if self.alpha is None
            else np.concatenate([self.colour, self.alpha], axis=-1)
        )
        values = (np.clip(values, -1, 1) + 1) / 2
        return (
            np.rint(values * levels).astype(np.uint8 if levels == 255 else np.uint16)
            if levels
            else values
        )


def from_array(array: np.ndarray, name: str = "the image") -> Picture:
    """The picture in an array (h, w) or (h, w, 1 to 4): uint8, uint16, bool or float in [0, 1].

    Raises UserError for anything else; `name` stands for the array in the message.
    """
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in (1, 2, 3, 4):
        raise UserError(
            f"{name} has the shape {array.shape}; it can be (height, width) or (height, width, "
            "channels) with 1 (grey), 2 (and alpha), 3 (RGB) or 4 (RGBA) channels"
        )
    if not array.size:
        raise UserError(f"{name} has the shape {array.shape}: there is nothing to enlarge")
    if array.dtype == bool:
        array = array.astype(np.uint8) * np.uint8(255)
    levels = {"uint8": 255, "uint16": 65535}.get(array.dtype.name, 0)
    if not levels and array.dtype.kind != "f":
        raise UserError(
            f"{name} has values of type {array.dtype}; "
            "they can be uint8, uint16, or float in [0, 1]"
        )
    values = np.asarray(array, np.float32) / (levels or 1)
    if not levels:
        if not np.isfinite(values).all():
            raise UserError(f"{name} has values that are not finite (NaN or infinity)")
        if values.min() < 0 or values.max() > 1:
            raise UserError(
                f"{name} has values from {values.min():g} to {values.max():g}; "
                "floats must lie in [0, 1]"
            )
    values = values * 2 - 1
    if values.shape[-1] in (2, 4):
        return Picture(values[..., :-1], values[..., -1:], levels)
    return Picture(values, None, levels)


def filled(picture: Picture) -> Picture:
    """The picture with the colour of clear pixels replaced by that of the nearest other pixels.

    What stands under clear pixels is arbitrary, often black, and a network that looks around each
    pixel would draw it into the edge. Pixels that are not wholly clear stay as they are.
    """
    if picture.alpha is None:
        return picture
    clear = picture.alpha[..., 0] <= -1
    if not clear.any() or clear.all():
        return picture
    from scipy import ndimage  # a fifth of a second, for pictures that need it

    nearest = ndimage.distance_transform_edt(clear, return_distances=False, return_indices=True)
    return picture._replace(colour=picture.colour[tuple(nearest)])


def is_grey(picture: Picture) -> bool:
    """Whether a picture has no colour, although it may have three channels.

    JPEG may set the three a level of 8 bits apart; what has more bits was not JPEG.
    """
    colour = picture.colour
    apart = GREY_TOLERANCE if picture.levels == 255 else GREY_TOLERANCE * 255 / 65535
    return bool((np.abs(colour - colour[..., :1]) <= apart).all())


def from_image(image: Any, name: str = "the image") -> Picture:
    """The picture in a Pillow image, a NumPy or a JAX array; raises UserError for anything else."""
    if isinstance(image, PillowImage.Image):
        return from_pillow(image, name)
    if isinstance(image, np.ndarray | jax.Array):
        return from_array(np.asarray(image), name)
    raise UserError(
        f"{name} is a {type(image).__name__}; it can be a Pillow image, a NumPy or a JAX array"
    )


def from_pillow(image: PillowImage.Image, name: str = "the image") -> Picture:
    """The picture in a Pillow image of any mode, upright; raises ImageError if it is damaged."""
    return from_array(decoding.of_pillow(image, name), name)


def to_image(picture: Picture, like: Any) -> Any:
    """The picture as the kind of image that `like` is: of Pillow, NumPy or JAX.

    Arrays have the type of `like`, and its number of axes unless there is colour now. A Pillow
    image has the colour profile, which its `save` writes, and in its `info` EXIF without
    orientation, XMP and resolution.
    """
    if isinstance(like, PillowImage.Image):
        image = to_pillow(picture)
        kept = decoding.metadata_of(like)
        if kept.icc[16:20] == b"GRAY" and picture.colour.shape[-1] == 3:
            kept = kept._replace(icc=b"")  # it has colours now
        image.info.update(kept.info)
        if kept.icc:  # JPEG's `save` does not look into `info`
            image.encoderinfo = {"icc_profile": kept.icc}
        return image
    values = picture.quantized()
    if like.dtype == bool:
        values = values >= 128
    elif not picture.levels:
        values = values.astype(like.dtype)
    values = values[..., 0] if like.ndim == 2 and values.shape[-1] == 1 else values
    return jnp.asarray(values) if isinstance(like, jax.Array) else values


def to_pillow(picture: Picture) -> PillowImage.Image:
    """The picture with 8 bits a channel, or 16 for grey without alpha: Pillow has no others."""
    deep = picture.levels == 65535 and picture.colour.shape[-1] == 1 and picture.alpha is None
    values = picture.quantized(65535 if deep else 255)
    return PillowImage.fromarray(values[..., 0] if values.shape[-1] == 1 else values)
