"""JPEG compression as an operation on batches, with a quality for each image, in JAX.

It is what libjpeg does in its default settings (ITU-T T.81, baseline; JFIF 1.02 for the colours),
up to the rounding inside of its integer cosine transforms: colours to luma and chroma, chroma at
half the resolution (4:2:0) or not (4:4:4), the cosine transform of 8×8 blocks, rounding by the
quality's quantisation tables, and all of it back, with libjpeg's triangle filter for the chroma
("fancy upsampling"). The entropy coding between the two halves loses nothing, and is left out.

Levels inside are 0 to 255, float32 holding whole numbers, as libjpeg rounds after every part.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from sr3_jax.tasks.operations import to_uint8
from sr3_jax.tasks.task import Images

Planes = Float[Array, "b h w c"]  # levels, 0 to 255

# T.81, tables K.1 and K.2: the quantisation of luma and chroma at quality 50
LUMA = (
    *(16, 11, 10, 16, 24, 40, 51, 61),
    *(12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56),
    *(14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77),
    *(24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101),
    *(72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA = (
    *(17, 18, 24, 47, 99, 99, 99, 99),
    *(18, 21, 26, 66, 99, 99, 99, 99),
    *(24, 26, 56, 99, 99, 99, 99, 99),
    *(47, 66, 99, 99, 99, 99, 99, 99),
    *(99,) * 32,
)
# The orthonormal cosine transform of 8 values: row k is frequency k
_K = np.arange(8)
DCT = np.sqrt(np.where(_K == 0, 1, 2) / 8)[:, None] * np.cos(
    np.pi * (2 * _K[None] + 1) * _K[:, None] / 16
)


def jpeg(images: Images, quality: Float[Array, " b"], subsample: Bool[Array, " b"]) -> Images:
    """Each image as it is after it was saved as a JPEG file and opened again.

    Args:
      images: (b, h, w, 1 or 3) in [-1, 1]; they are rounded to 8 bits first.
      quality: 1 to 100 for each image, as libjpeg counts it, rounded to a whole number.
      subsample: whether an image's chroma has half the resolution (4:2:0); without effect on grey.

    Returns:
      Images of the same shape, whose values are 8-bit levels.
    """
    levels = to_uint8(images).astype(jnp.float32)
    if images.shape[-1] == 1:
        return _code(levels, quality, LUMA) / 127.5 - 1
    planes = _to_ycc(levels)
    luma, chroma = planes[..., :1], planes[..., 1:]
    luma = _code(luma, quality, LUMA)
    full = _code(chroma, quality, CHROMA)
    height, width = images.shape[1:3]
    half = _code(_halve(chroma), quality, CHROMA)[:, :, : (width + 1) // 2]
    half = _enlarge(half)[:, :height, :width]
    chroma = jnp.where(subsample[:, None, None, None], half, full)
    return _to_rgb(jnp.concatenate([luma, chroma], axis=-1)) / 127.5 - 1


def quantisation(quality: Float[Array, " b"], table: tuple[int, ...]) -> Float[Array, "b 8 8"]:
    """The table of a quality: row u, column v is the step of vertical frequency u, horizontal v."""
    quality = jnp.clip(jnp.round(quality), 1, 100)
    percent = jnp.where(quality < 50, jnp.floor(5000 / quality), 200 - 2 * quality)
    steps = jnp.asarray(table, jnp.float32).reshape(8, 8)
    return jnp.clip(jnp.floor((steps[None] * percent[:, None, None] + 50) / 100), 1, 255)


def _code(planes: Planes, quality: Float[Array, " b"], table: tuple[int, ...]) -> Planes:
    """Levels after the transform, the rounding of its coefficients, and the transform back."""
    b, h, w, c = planes.shape
    # Incomplete blocks are filled with the image's last row and column
    padded = jnp.pad(planes, ((0, 0), (0, -h % 8), (0, -w % 8), (0, 0)), mode="edge")
    blocks = padded.reshape(b, -(-h // 8), 8, -(-w // 8), 8, c) - 128
    steps = quantisation(quality, table)[:, None, :, None, :, None]
    # Each of the two passes ends with whole numbers: four times as fine between them, and eight
    # times as fine as the levels at their end. Halves are rounded away from zero by the tables.
    dct = jnp.asarray(DCT * np.sqrt(8), jnp.float32)
    along_rows = _rounded(4 * jnp.einsum("vj,byixjc->byixvc", dct, blocks, precision="highest"))
    both = _rounded(jnp.einsum("ui,byixvc->byuxvc", dct, along_rows, precision="highest") / 4)
    coefficients = jnp.sign(both) * jnp.floor(jnp.abs(both) / (8 * steps) + 0.5) * steps
    columns = _rounded(4 * jnp.einsum("ui,byuxvc->byixvc", dct, coefficients, precision="highest"))
    blocks = _rounded(jnp.einsum("vj,byixvc->byixjc", dct, columns, precision="highest") / 32)
    return jnp.clip(blocks + 128, 0, 255).reshape(padded.shape)[:, :h, :w]


def _rounded(values: Array) -> Array:
    return jnp.floor(values + 0.5)


def _to_ycc(levels: Planes) -> Planes:
    """Luma and the two chroma of RGB (JFIF, section 7), in 16 bits after the point."""
    red, green, blue = jnp.moveaxis(levels.astype(jnp.int32), -1, 0)
    luma = 19595 * red + 38470 * green + 7471 * blue + 2**15
    blueness = -11059 * red - 21709 * green + 2**15 * blue + (128 << 16) + 2**15 - 1
    redness = 2**15 * red - 27439 * green - 5329 * blue + (128 << 16) + 2**15 - 1
    return (jnp.stack([luma, blueness, redness], axis=-1) >> 16).astype(jnp.float32)


def _to_rgb(planes: Planes) -> Planes:
    """The inverse of `_to_ycc`."""
    luma, blueness, redness = jnp.moveaxis(planes.astype(jnp.int32), -1, 0)
    blueness, redness = blueness - 128, redness - 128
    red = luma + (91881 * redness + 2**15 >> 16)
    green = luma + (-22554 * blueness - 46802 * redness + 2**15 >> 16)
    blue = luma + (116130 * blueness + 2**15 >> 16)
    return jnp.clip(jnp.stack([red, green, blue], axis=-1), 0, 255).astype(jnp.float32)


def _halve(planes: Planes) -> Float[Array, "b _h _w c"]:
    """Means of 2×2 pixels; halves are rounded down and up in turn, as libjpeg does.

    The width is filled up to whole blocks here, where a block is made of 16 columns.
    """
    b, h, w, c = planes.shape
    padded = jnp.pad(planes, ((0, 0), (0, h % 2), (0, -w % 16), (0, 0)), mode="edge")
    sums = padded.reshape(b, (h + 1) // 2, 2, padded.shape[2] // 2, 2, c).sum(axis=(2, 4))
    bias = 1 + jnp.arange(sums.shape[2], dtype=jnp.float32) % 2
    return jnp.floor((sums + bias[None, None, :, None]) / 4)


def _enlarge(planes: Planes) -> Float[Array, "b _h _w c"]:
    """Twice as large by a triangle filter, rounded as libjpeg does."""
    padded = jnp.pad(planes, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    above, rows, below = padded[:, :-2], padded[:, 1:-1], padded[:, 2:]
    b, h, w, c = planes.shape
    rows = jnp.stack([3 * rows + above, 3 * rows + below], axis=2).reshape(b, 2 * h, w + 2, c)
    before, columns, after = rows[:, :, :-2], rows[:, :, 1:-1], rows[:, :, 2:]
    left, right = 3 * columns + before + 8, 3 * columns + after + 7
    return jnp.floor(jnp.stack([left, right], axis=3).reshape(b, 2 * h, 2 * w, c) / 16)
