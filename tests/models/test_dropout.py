"""Dropout's hashed mask."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr3_jax.models.dropout import Dropout, keep_mask, mix

pytestmark = pytest.mark.fast


def masks(rate, shape, count=1):
    keys = jax.random.split(jax.random.key(0), count)
    return np.stack([np.asarray(keep_mask(key, rate, shape)) for key in keys])


def test_the_hash_is_a_bijection_of_which_each_bit_flips_half_of_the_others():
    numbers = np.random.default_rng(0).choice(2**32, 2**16, replace=False).astype(np.uint32)
    assert len(np.unique(np.asarray(mix(jnp.asarray(numbers))))) == len(numbers)
    for bit in range(32):
        flipped = np.asarray(
            mix(jnp.asarray(numbers)) ^ mix(jnp.asarray(numbers ^ np.uint32(1 << bit)))
        )
        share = ((flipped[:, None] >> np.arange(32, dtype=np.uint32)) & 1).mean(0)
        # 2¹⁶ draws have a standard deviation of 0.002
        assert np.all(np.abs(share - 0.5) < 0.05), bit


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.5, 0.99])
def test_elements_are_dropped_at_the_rate_in_every_place_and_under_every_key(rate):
    kept = masks(rate, (64, 16, 16, 8), 20)
    sigma = np.sqrt(rate * (1 - rate))
    for axis in range(5):
        others = tuple(i for i in range(5) if i != axis)
        share, n = kept.mean(others), kept.size / kept.shape[axis]
        assert np.abs(share - (1 - rate)).max() < 5 * sigma / np.sqrt(n)


def test_neighbours_images_and_keys_are_independent():
    kept = masks(0.5, (16, 32, 32, 8), 8).astype(float) - 0.5
    bound = 5 * 0.25 / np.sqrt(kept.size / 2)
    for axis in range(5):
        for distance in (1, 2, 4):
            first = np.take(kept, range(kept.shape[axis] - distance), axis)
            second = np.take(kept, range(distance, kept.shape[axis]), axis)
            assert abs((first * second).mean()) < bound, (axis, distance)


def test_what_is_dropped_of_an_image_does_not_depend_on_how_many_there_are():
    """So no number of images makes the index of an element wrap around."""
    few, many = (masks(0.3, (count, 8, 8, 4))[0] for count in (2, 6))
    np.testing.assert_array_equal(few, many[:2])
    assert len(np.unique(many.reshape(6, -1), axis=0)) == 6


def test_it_scales_what_it_keeps_in_training_and_does_nothing_otherwise():
    x = jnp.full((4, 8, 8, 16), 2.0, jnp.bfloat16)
    rngs = {"dropout": jax.random.key(1)}
    y = Dropout(0.2).apply({}, x, True, rngs=rngs)
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(np.unique(np.asarray(y, np.float32)), [0, 2.5])
    assert Dropout(0.2).apply({}, x, False) is x
    assert Dropout(0.0).apply({}, x, True) is x
    assert not np.any(Dropout(1.0).apply({}, x, True))


def test_the_mask_does_not_depend_on_how_the_batch_is_split_over_devices():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    one = jax.jit(lambda key: keep_mask(key, 0.3, (16, 4, 4, 3)))(jax.random.key(5))
    eight = jax.jit(lambda key: keep_mask(key, 0.3, (16, 4, 4, 3)), out_shardings=split)(
        jax.random.key(5)
    )
    np.testing.assert_array_equal(one, eight)
