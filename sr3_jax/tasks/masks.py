"""Random holes: what an inpainting network learns to fill.

Of every kind the shape is static, so they are made inside the compiled training step.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

Mask = Float[Array, "b _h _w 1"]  # 1 in the hole, 0 elsewhere
STROKES, BENDS = 4, 5  # brush strokes of a free-form hole, straight parts of each


def free_form(key: Key[Array, ""], b: int, height: int, width: int) -> Mask:
    """Holes as of a broad brush: strokes with bends, one to STROKES of them an image.

    A stroke starts anywhere; each of its parts turns by up to 120°, is up to a quarter of the
    image's side long, and all are between 1/20 and 1/8 of it thick (after the free-form masks of
    Yu et al. 2019, arXiv 1806.03589).
    """
    keys = jax.random.split(key, 6)
    side = min(height, width)
    shape = (b, STROKES, BENDS)
    start = jax.random.uniform(keys[0], (b, STROKES, 1, 2)) * _sides(height, width)[None, None]
    turn = jax.random.uniform(keys[1], shape, minval=-2.1, maxval=2.1)
    first = jax.random.uniform(keys[2], (b, STROKES, 1), maxval=2 * jnp.pi)
    angle = first + jnp.cumsum(turn, axis=2)
    length = jax.random.uniform(keys[3], shape, minval=side / 16, maxval=side / 4)
    moves = length[..., None] * jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-1)
    ends = start + jnp.cumsum(moves, axis=2)
    begins = ends - moves
    thick = jax.random.uniform(keys[4], (b, STROKES, 1), minval=side / 40, maxval=side / 16)
    count = jax.random.randint(keys[5], (b, 1, 1), 1, STROKES + 1)
    thick = jnp.where(jnp.arange(STROKES)[None, :, None] < count, thick, -1.0)

    places = (jnp.arange(size, dtype=jnp.float32) + 0.5 for size in (height, width))
    rows, columns = jnp.meshgrid(*places, indexing="ij")
    pixels = jnp.stack([rows, columns], axis=-1)

    def stroke(i: Array, hole: Array) -> Array:
        """Adds the part number i of all images."""
        begin, move = (x.reshape(b, -1, 2)[:, i][:, None, None] for x in (begins, moves))
        radius = jnp.broadcast_to(thick, shape).reshape(b, -1)[:, i][:, None, None]
        offset = pixels[None] - begin
        along = (offset * move).sum(-1) / jnp.maximum((move * move).sum(-1), 1e-6)
        distance = jnp.linalg.norm(offset - jnp.clip(along, 0, 1)[..., None] * move, axis=-1)
        return jnp.maximum(hole, (distance <= radius).astype(jnp.float32))

    hole = jax.lax.fori_loop(0, STROKES * BENDS, stroke, jnp.zeros((b, height, width)))
    return hole[..., None]


def box(key: Key[Array, ""], b: int, height: int, width: int) -> Mask:
    """Rectangles anywhere within an image, of a quarter to half of its sides."""
    size_key, place_key = jax.random.split(key)
    sides = _sides(height, width)
    size = jnp.round(sides * jax.random.uniform(size_key, (b, 2), minval=0.25, maxval=0.5))
    place = jnp.floor(jax.random.uniform(place_key, (b, 2)) * (sides - size + 1))
    return _rectangle(place, place + size, height, width)


def margins(key: Key[Array, ""], b: int, height: int, width: int) -> Mask:
    """All but a rectangle: the outside, for uncropping.

    For half of the images that is one side, up to half of the image; else all four, each up to a
    quarter of it.
    """
    one_key, side_key, size_key = jax.random.split(key, 3)
    share = jax.random.uniform(size_key, (b, 4), minval=1 / 16, maxval=0.25)
    only = jax.nn.one_hot(jax.random.randint(side_key, (b,), 0, 4), 4)
    one = jax.random.bernoulli(one_key, 0.5, (b, 1))
    share = jnp.where(one, 2 * share * only, share)  # top, left, bottom, right
    sides = _sides(height, width)
    begin, end = jnp.round(share[:, :2] * sides), jnp.round((1 - share[:, 2:]) * sides)
    return 1 - _rectangle(begin, end, height, width)


def centre(b: int, height: int, width: int) -> Mask:
    """A rectangle of half of the sides in the middle: where nothing may be random."""
    sides = _sides(height, width)
    begin = jnp.broadcast_to(jnp.round(sides / 4), (b, 2))
    return _rectangle(begin, begin + jnp.round(sides / 2), height, width)


def _sides(height: int, width: int) -> Float[Array, "1 2"]:
    return jnp.asarray([[height, width]], jnp.float32)


def _rectangle(begin: Any, end: Any, height: int, width: int) -> Mask:
    """1 from `begin` to before `end`, both (b, 2): rows and columns."""
    inside = [
        (place >= begin[:, i, None]) & (place < end[:, i, None])
        for i, place in enumerate(
            jnp.arange(size, dtype=jnp.float32)[None] for size in (height, width)
        )
    ]
    return (inside[0][:, :, None] & inside[1][:, None]).astype(jnp.float32)[..., None]


KINDS = {"free_form": free_form, "box": box, "uncrop": margins}
