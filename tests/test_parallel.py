"""Who holds what: the mesh, and how a parameter is split."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from sr3_jax import parallel
from sr3_jax.config import ConfigError
from tests.tiny import abstract_state, get_config, mesh_of

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("data", "fsdp", "shape"),
    [(-1, 1, (8, 1)), (-1, 4, (2, 4)), (2, 4, (2, 4)), (1, 8, (1, 8)), (1, -1, (1, 8)), (2, -1, (2, 4))],
)
def test_the_mesh_takes_all_devices(data, fsdp, shape):
    config = get_config()
    config.mesh.data, config.mesh.fsdp = data, fsdp
    mesh = parallel.make_mesh(config)
    assert (mesh.shape["data"], mesh.shape["fsdp"]) == shape
    assert mesh.devices.size == jax.device_count() == 8


@pytest.mark.parametrize(("data", "fsdp"), [(3, 1), (4, 4), (-1, 3), (-1, 16), (0, 1), (16, 1)])
def test_a_mesh_of_another_number_of_devices_is_refused_with_both_fields_and_the_number(data, fsdp):
    config = get_config()
    config.mesh.data, config.mesh.fsdp = data, fsdp
    with pytest.raises(ConfigError, match=rf"mesh\.data = {data} and mesh\.fsdp = {fsdp}: .*must be 8"):
        parallel.make_mesh(config)


@pytest.mark.parametrize(("batch", "accumulate"), [(12, 1), (4, 1), (8, 2), (48, 4)])
def test_a_batch_that_the_devices_cannot_share_is_refused_with_its_size(batch, accumulate):
    config = get_config()
    config.train.batch_size, config.train.accumulate = batch, accumulate
    with pytest.raises(ConfigError, match=rf"train\.accumulate = {batch // accumulate} must be divisible by .* 8$"):
        parallel.make_mesh(config)


def test_a_large_parameter_is_split_along_its_largest_divisible_axis_only_and_a_small_one_never():
    rng = np.random.default_rng(0)
    split = 0
    for _ in range(500):
        shape = tuple(int(n) for n in rng.integers(1, 200, rng.integers(0, 5)))
        size = int(rng.integers(1, 9))
        spec = parallel.fsdp_spec(shape, size)
        divisible = [n for n in shape if n % size == 0]
        named = [axis for axis, name in enumerate(spec) if name is not None]
        if np.prod(shape) < parallel.SMALLEST_SHARDED or not divisible or size == 1:
            assert spec == PartitionSpec()
        else:
            assert [spec[axis] for axis in named] == ["fsdp"]
            assert shape[named[0]] == max(divisible)
            split += 1
    assert split > 50


def test_a_device_holds_an_equal_share_of_parameters_ema_and_moments(monkeypatch):
    monkeypatch.setattr(parallel, "SMALLEST_SHARDED", 64)
    state = abstract_state(get_config(), mesh_of(jax.devices(), fsdp=4))
    adam = state.opt_state[1][0]
    split = 0
    for tree in (state.params, state.ema, adam.mu, adam.nu):
        assert jax.tree.map(lambda leaf: leaf.sharding.spec, tree) == jax.tree.map(
            lambda leaf: leaf.sharding.spec, state.params
        )
        for leaf in jax.tree.leaves(tree):
            whole = not leaf.sharding.spec
            assert np.prod(leaf.sharding.shard_shape(leaf.shape)) == leaf.size // (1 if whole else 4)
            split += not whole
    assert split >= 4 * 10


def test_the_rows_of_a_batch_go_to_the_devices_in_order_and_come_back():
    mesh = mesh_of(jax.devices(), fsdp=4)
    batch = {"image": np.arange(16 * 3, dtype=np.int32).reshape(16, 3)}
    placed = parallel.to_devices(batch, mesh)
    shards = placed["image"].addressable_shards
    assert {shard.data.shape for shard in shards} == {(2, 3)}
    rows = [np.asarray(shard.data) for shard in sorted(shards, key=lambda shard: shard.index[0].start)]
    np.testing.assert_array_equal(np.concatenate(rows), batch["image"])
    np.testing.assert_array_equal(parallel.gather(placed)["image"], batch["image"])
