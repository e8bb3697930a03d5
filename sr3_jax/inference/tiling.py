"""Images larger than the network's, or smaller: tiled diffusion.

The whole picture is one diffusion: one canvas of y_t, one of noise. At every step the network sees
it in overlapping tiles, whose estimates of y_0 are blended before the sampler takes the step, so
that neighbours agree again before they can drift apart and no seam can form. Tiles are all of one
shape, so the network is compiled once, whatever the picture's size; the memory taken beside the
canvases is bounded by the tile and the number of tiles at a time.

Positions are in pixels of the LR image, so that tiles always lie on the network's own grid.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from sr3_jax.diffusion.samplers import Steps
from sr3_jax.tasks.task import Canvas

# (condition, y, gamma) of equal tiles, (n, t, t, c), to their y_0
DenoiseTiles = Callable[[np.ndarray, np.ndarray, float], np.ndarray]
OnTiles = Callable[[int], object]


class Noise(NamedTuple):
    """Where the noise of a canvas comes from: square blocks, each from its place."""

    block: Callable[[int, int, int], np.ndarray]  # (t, row, column) to a block of N(0, 1)
    side: int  # of a block, in pixels


class Axis(NamedTuple):
    """How one side of a picture is cut: where tiles begin, and what each of their pixels weighs."""

    starts: list[int]
    weights: list[Float[np.ndarray, " t"]]
    total: Float[np.ndarray, " size"]  # of the weights, over the whole side


def cut(size: int, tile: int, overlap: int) -> Axis:
    """Tiles of `tile` pixels over a side of `size` >= tile, which share at least `overlap` pixels.

    A weight rises from a quarter of the overlap inside the edge, where the convolutions' padding no
    longer shows, and falls likewise; at the picture's own edge it stays 1.
    """
    starts = np.round(np.linspace(0, size - tile, count(size, tile, overlap))).astype(int).tolist()
    place = np.arange(tile) + 0.5
    inside = np.clip((np.minimum(place, tile - place) - overlap / 4) / max(overlap / 2, 1), 1e-6, 1)
    weights, total = [], np.zeros(size)
    for start in starts:
        weight = inside.copy()
        if start == 0:
            weight[: tile // 2] = 1
        if start == size - tile:
            weight[tile // 2 :] = 1
        weights.append(weight)
        total[start : start + tile] += weight
    return Axis(starts, weights, total)


def count(size: int, tile: int, overlap: int) -> int:
    """How many tiles `cut` makes of a side."""
    return max(1, -(-(size - overlap) // (tile - overlap)))


class Plan(NamedTuple):
    """The tiles of a picture, in pixels of the HR image."""

    rows: Axis
    columns: Axis

    def windows(self) -> Iterator[tuple[slice, slice, Float[np.ndarray, "t_h t_w 1"]]]:
        """Where each tile lies, and its weights."""
        for top, down in zip(self.rows.starts, self.rows.weights, strict=True):
            for left, across in zip(self.columns.starts, self.columns.weights, strict=True):
                weight = (down[:, None] * across).astype(np.float32)[..., None]
                yield slice(top, top + len(down)), slice(left, left + len(across)), weight


def plan(height: int, width: int, tile: int | tuple[int, int], overlap: int, scale: int) -> Plan:
    """The tiles of an LR image of height × width, each at least a tile's / `scale`.

    `tile` and `overlap` are in HR pixels.
    """

    def axis(size: int, side: int) -> Axis:
        starts, weights, total = cut(size, side // scale, overlap // scale)
        return Axis(
            [start * scale for start in starts],
            [np.repeat(weight, scale) for weight in weights],
            np.repeat(total, scale),
        )

    tile_height, tile_width = (tile, tile) if isinstance(tile, int) else tile
    return Plan(axis(height, tile_height), axis(width, tile_width))


def fitting_tile(
    height: int, width: int, *, least: int, most: int, step: int, overlap: int, at_a_time: int
) -> tuple[int, int]:
    """Height and width of the tiles by which a picture is computed with the fewest pixels.

    All lengths are in HR pixels. Both are multiples of `step` between `least` and `most`,
    neighbours share `overlap`, and tiles are computed `at_a_time`, of which none should idle.
    """

    def choices(length: int) -> Iterator[int]:
        pieces = 1
        while True:
            side = max(least, -(-(length + (pieces - 1) * overlap) // (pieces * step)) * step)
            if side <= max(most, least):
                yield side
            if side == least or pieces > 2 + length // max(most - overlap, 1):
                return
            pieces += 1

    def cost(tile: tuple[int, int]) -> tuple[int, int]:
        tiles = math.prod(
            count(max(length, side), side, overlap)
            for length, side in zip((height, width), tile, strict=True)
        )
        return -(-tiles // at_a_time) * tile[0] * tile[1], tiles

    return min(itertools.product(choices(height), choices(width)), key=cost)


def diffuse(
    denoise: DenoiseTiles,
    condition: Canvas,
    noise: Noise,
    steps: Steps,
    tiles: Plan,
    batch: int,
    on_tiles: OnTiles = lambda count: None,
    channels: int | None = None,
) -> Canvas:
    """`samplers.sample` on a canvas.

    Args:
      denoise: The network, on `batch` tiles at a time; the last ones are repeated to fill it. For
        a table with a learned variance, v follows y_0 in its channels.
      condition: What the network is shown of the whole picture.
      noise: Its noise, in blocks.
      steps: The sampler's table.
      tiles: How the canvas is cut.
      batch: Tiles at a time.
      on_tiles: Called with the number of tiles each time that some are done.
      channels: Channels of y_0; by default the condition's.

    Returns:
      y_0, of the condition's height and width.
    """
    rows_left, channels = steps.evaluations, channels or condition.shape[-1]
    y = np.empty((*condition.shape[:2], channels), np.float32)
    add_noise(y, 0.0, 1.0, noise, rows_left + 1)
    before = np.zeros_like(y) if np.any(steps.previous) else None
    learned = steps.narrowing is not None
    for row in range(rows_left):
        gamma, keep, predicted, previous, strength = (float(column[row]) for column in steps[:5])
        seen = blend(
            denoise, (condition, y), tiles, batch, channels * (1 + learned), on_tiles, gamma
        )
        found = seen[..., :channels]
        y *= keep
        y += predicted * found
        if before is not None:
            if previous:
                y += previous * before
            before = found
        if strength and steps.narrowing is not None:
            own = strength * float(steps.narrowing[row]) ** (1 - seen[..., channels:])
            y += own * add_noise(np.empty_like(y), 0.0, 1.0, noise, rows_left - row)
        elif strength:
            add_noise(y, 1.0, strength, noise, rows_left - row)
    return y


def blend(
    function: Callable[..., np.ndarray],
    canvases: Sequence[Canvas],
    tiles: Plan,
    batch: int,
    channels: int,
    on_tiles: OnTiles = lambda count: None,
    *arguments: float,
) -> Canvas:
    """A function of canvases, computed on tiles, `batch` at a time, and blended where they overlap.

    `arguments` follow the tiles.
    """
    found = np.zeros((*canvases[0].shape[:2], channels), np.float32)
    windows = list(tiles.windows())
    for start in range(0, len(windows), batch):
        some = windows[start : start + batch]
        filled = [*some, *[some[-1]] * (batch - len(some))]
        seen = (
            np.stack([canvas[rows, columns] for rows, columns, _ in filled]) for canvas in canvases
        )
        for (rows, columns, weight), estimate in zip(
            some, function(*seen, *arguments), strict=False
        ):
            found[rows, columns] += weight * estimate[..., :channels]
        on_tiles(len(some))
    found *= 1 / (tiles.rows.total[:, None] * tiles.columns.total).astype(np.float32)[..., None]
    return found


def add_noise(y: Canvas, keep: float, strength: float, noise: Noise, t: int) -> Canvas:
    """Y ← keep · y + strength · z, block by block; returns y."""
    for row, top in enumerate(range(0, y.shape[0], noise.side)):
        for column, left in enumerate(range(0, y.shape[1], noise.side)):
            part = y[top : top + noise.side, left : left + noise.side]
            z = strength * noise.block(t, row, column)[: part.shape[0], : part.shape[1]]
            part[:] = keep * part + z if keep else z
    return y


def pad(lr: Canvas, height: int, width: int) -> Canvas:
    """The LR image, mirrored at its lower and right edges to at least height × width."""
    missing = (max(0, height - lr.shape[0]), max(0, width - lr.shape[1]))
    return (
        np.pad(lr, ((0, missing[0]), (0, missing[1]), (0, 0)), "symmetric") if any(missing) else lr
    )
