"""Tiled diffusion: the same picture as in one piece, without seams, whatever the size."""

import functools

import jax
import numpy as np
import pytest
from PIL import Image
from skimage import data as photographs

from sr3_jax.diffusion import samplers, schedules
from sr3_jax.inference import tiling
from sr3_jax.inference.sampling import Sampling
from sr3_jax.tasks import operations
from tests.tiny import tiny_checkpoint

SCALE = 4


@pytest.mark.fast
@pytest.mark.parametrize(
    ("size", "tile", "overlap"),
    [(32, 32, 8), (33, 32, 8), (57, 32, 8), (100, 32, 12), (1000, 64, 16)],
)
def test_tiles_cover_a_side_and_share_at_least_the_overlap(size, tile, overlap):
    axis = tiling.cut(size, tile, overlap)
    assert len(axis.starts) == tiling.count(size, tile, overlap)
    assert (axis.starts[0], axis.starts[-1]) == (0, size - tile)
    assert all(
        after - before <= tile - overlap
        for before, after in zip(axis.starts, axis.starts[1:], strict=False)
    )
    covered = np.zeros(size)
    for start, weight in zip(axis.starts, axis.weights, strict=True):
        assert (len(weight), weight.min() > 0, weight.max()) == (tile, True, 1)
        covered[start : start + tile] += weight
    np.testing.assert_allclose(covered, axis.total)
    assert axis.total.min() > 0.4  # somewhere each pixel lies well inside a tile


@pytest.mark.fast
def test_a_tile_counts_least_near_its_own_edges_and_fully_at_the_pictures():
    first, *_, last = tiling.cut(100, 32, 8).weights
    assert (first[0], last[-1]) == (1, 1)
    assert first[-1] < 1e-3 > last[0]
    assert np.all(np.diff(first[16:]) <= 0)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("height", "width", "tiles", "excess"),
    [
        (512, 512, 2, 1.13),  # two cores, a half each
        (1024, 1024, 2, 1.07),
        (4000, 3000, 12, 1.16),
        (8000, 6000, 48, 1.16),
        (900, 100, 2, 1.5),
        (40, 50, 1, 17.0),
    ],
)
def test_tiles_that_fit_a_picture_waste_little_and_idle_no_core(height, width, tiles, excess):
    limits = {"least": 128, "most": 1088, "step": 32, "overlap": 64}
    tile = tiling.fitting_tile(height, width, **limits, at_a_time=2)
    counts = [
        tiling.count(max(length, side), side, 64)
        for length, side in zip((height, width), tile, strict=True)
    ]
    assert np.prod(counts) == tiles
    assert all(128 <= side <= 1088 and side % 32 == 0 for side in tile)
    computed = -(-np.prod(counts) // 2) * 2 * tile[0] * tile[1]
    assert computed / (height * width) <= excess


def photograph(height, width):
    crop = Image.fromarray(photographs.coffee()).resize(
        (width, height), Image.Resampling.BICUBIC, box=(0, 0, 600, 400)
    )
    return np.asarray(crop, np.float32)[..., :3] / 127.5 - 1


def ramp(height, width):
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    return (
        np.stack([rows / height, columns / width, (rows + columns) / (height + width)], axis=-1)
        * 1.6
        - 0.8
    )


def local(condition, y, gamma):
    """A denoiser that looks at the pixels around: what padding at a tile's edge would show in."""
    total = np.zeros_like(condition)
    for canvas, share in ((condition, 0.8), (y, 0.2 * gamma)):
        padded = np.pad(canvas, ((0, 0), (2, 2), (2, 2), (0, 0)))  # zeros, as a convolution's
        size = canvas.shape[1:3]
        total += share * np.mean(
            [padded[:, i : i + size[0], j : j + size[1]] for i in range(5) for j in range(5)],
            axis=0,
        )
    return np.tanh(1.5 * total).astype(np.float32)


def noise(t, row, column):
    return np.random.default_rng([t, row, column]).standard_normal((16, 16, 3)).astype(np.float32)


def diffused(
    lr,
    tile,
    overlap=16,
    denoise=local,
    batch=3,
    on_tiles=lambda count: None,
    sampler=samplers.dpm_solver,
):
    side = tile // SCALE
    padded = tiling.pad(lr, side, side)
    condition = operations.resize_canvas(padded, SCALE * padded.shape[0], SCALE * padded.shape[1])
    plan = tiling.plan(*padded.shape[:2], tile, overlap, SCALE)
    steps = sampler(schedules.log_snr(4, 4.0, -8.0))
    out = tiling.diffuse(denoise, condition, tiling.Noise(noise, 16), steps, plan, batch, on_tiles)
    return out[: SCALE * lr.shape[0], : SCALE * lr.shape[1]]


def in_one_piece(lr, tile=32, sampler=samplers.dpm_solver):
    """The same, the network seeing all of the canvas at once."""
    padded = tiling.pad(lr, tile // SCALE, tile // SCALE)
    height, width = SCALE * padded.shape[0], SCALE * padded.shape[1]
    condition = operations.resize_canvas(padded, height, width)[None]
    steps = sampler(schedules.log_snr(4, 4.0, -8.0))
    count = steps.evaluations

    def whole(t):
        blocks = [
            [noise(t, row, column) for column in range(-(-width // 16))]
            for row in range(-(-height // 16))
        ]
        return np.concatenate([np.concatenate(row, axis=1) for row in blocks])[
            None, :height, :width
        ]

    y, before = whole(count + 1), 0
    for row in range(count):
        found = local(condition, y, float(steps.gamma[row]))
        y = steps.keep[row] * y + steps.predicted[row] * found + steps.previous[row] * before
        y, before = y + steps.noise[row] * whole(count - row), found
    return y[0, : SCALE * lr.shape[0], : SCALE * lr.shape[1]]


# In and off the grid of tiles of 32; the last smaller than one
SIZES = [(24, 24), (25, 31), (23, 40), (17, 16), (5, 60)]


@pytest.mark.parametrize("picture", [ramp, photograph])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_there_is_no_seam(picture, height, width):
    """The error beside the borders of tiles is no larger than far from them.

    The error is the difference from the picture computed in one piece.
    """
    lr = picture(height, width)
    error = np.abs(diffused(lr, 32) - in_one_piece(lr))
    plan = tiling.plan(max(height, 8), max(width, 8), 32, 16, SCALE)
    near = np.zeros(error.shape[:2], bool)
    for rows, columns, _ in plan.windows():
        for edge in (rows.start, rows.stop):
            if 0 < edge < SCALE * height:
                near[edge - 2 : edge + 2] = True
        for edge in (columns.start, columns.stop):
            if 0 < edge < SCALE * width:
                near[:, edge - 2 : edge + 2] = True
    assert near.any()
    assert error[near].mean() <= 1.05 * error[~near].mean() + 1e-6
    assert error.max() < 0.02


def test_tiles_without_blending_would_show():
    """The test above can fail: cut apart, the same picture has an error at the borders."""
    lr = photograph(24, 24)
    error = np.abs(diffused(lr, 32, overlap=0) - in_one_piece(lr))
    assert error[30:34].mean() > 5 * error[12:20].mean()


@pytest.mark.parametrize("sampler", [samplers.dpm_solver, samplers.ancestral, samplers.heun])
def test_one_tile_is_what_the_sampler_makes_of_the_picture(sampler):
    lr = photograph(8, 8)
    np.testing.assert_allclose(
        diffused(lr, 32, sampler=sampler), in_one_piece(lr, sampler=sampler), atol=1e-5
    )


def test_tiles_are_of_one_shape_and_counted():
    shapes, counts = set(), []

    def denoise(condition, y, gamma):
        shapes.add(condition.shape)
        return local(condition, y, gamma)

    for height, width in SIZES:
        diffused(ramp(height, width), 32, denoise=denoise, batch=4, on_tiles=counts.append)
    assert shapes == {(4, 32, 32, 3)}
    assert sum(counts) == 4 * sum(
        tiling.count(max(h, 8), 8, 4) * tiling.count(max(w, 8), 8, 4) for h, w in SIZES
    )


def test_an_image_of_the_networks_own_size_is_the_same_in_tiles(colour):
    lr = photograph(8, 8)
    engine = colour.engine
    [wanted] = colour.enlarge(lr[None], 5, Sampling())
    condition = operations.resize_canvas(lr, 16, 16)
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 5), 0)
    plan = tiling.plan(8, 8, 16, 4, 2)
    y_0 = tiling.diffuse(
        functools.partial(engine.denoise_tiles, {}),
        condition,
        tiling.Noise(functools.partial(engine.noise_block, key), 16),
        engine.table(Sampling()),
        plan,
        engine.batch_size,
    )
    np.testing.assert_allclose(
        np.clip(engine.method.decode(y_0, condition), -1, 1), wanted, atol=1e-5
    )


@pytest.mark.parametrize(("height", "width"), [(7, 9), (8, 8), (3, 30), (1, 1)])
def test_any_size_is_enlarged(colour, height, width):
    out = colour(photograph(height, width) / 2 + 0.5)
    assert out.shape == (2 * height, 2 * width, 3)
    assert 0 <= out.min() <= out.max() <= 1
    assert colour.cost(height, width)[:2] == out.shape[:2]


def test_neither_the_tiles_at_a_time_nor_the_devices_change_the_picture(colour):
    from sr3_jax.inference.upscaler import Upscaler

    lr = photograph(20, 13) / 2 + 0.5
    other = Upscaler(tiny_checkpoint(channels=3), batch_size=8)
    assert (other.engine.mesh.size, colour.engine.mesh.size) == (8, 1)
    np.testing.assert_allclose(other(lr), colour(lr), atol=1e-5)
