"""Who holds what: the mesh, how a parameter is split, and which processes are one run."""

import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from sr3_jax.errors import ConfigError, UserError
from sr3_jax.runtime import parallel
from tests.tiny import abstract_state, get_config, mesh_of

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("data", "fsdp", "shape"),
    [
        (-1, 1, (8, 1)),
        (-1, 4, (2, 4)),
        (2, 4, (2, 4)),
        (1, 8, (1, 8)),
        (1, -1, (1, 8)),
        (2, -1, (2, 4)),
    ],
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
    with pytest.raises(
        ConfigError, match=rf"mesh\.data = {data} and mesh\.fsdp = {fsdp}: .*must be 8"
    ):
        parallel.make_mesh(config)


@pytest.mark.parametrize(("batch", "accumulate"), [(12, 1), (4, 1), (8, 2), (48, 4)])
def test_a_batch_that_the_devices_cannot_share_is_refused_with_its_size(batch, accumulate):
    config = get_config()
    config.train.batch_size, config.train.accumulate = batch, accumulate
    with pytest.raises(
        ConfigError, match=rf"train\.accumulate = {batch // accumulate} must be divisible by .* 8$"
    ):
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
            assert np.prod(leaf.sharding.shard_shape(leaf.shape)) == leaf.size // (
                1 if whole else 4
            )
            split += not whole
    assert split >= 4 * 10


def test_the_rows_of_a_batch_go_to_the_devices_in_order_and_come_back():
    mesh = mesh_of(jax.devices(), fsdp=4)
    batch = {"image": np.arange(16 * 3, dtype=np.int32).reshape(16, 3)}
    placed = parallel.to_devices(batch, mesh)
    shards = placed["image"].addressable_shards
    assert {shard.data.shape for shard in shards} == {(2, 3)}
    rows = [
        np.asarray(shard.data) for shard in sorted(shards, key=lambda shard: shard.index[0].start)
    ]
    np.testing.assert_array_equal(np.concatenate(rows), batch["image"])
    np.testing.assert_array_equal(parallel.gather(placed)["image"], batch["image"])


@pytest.mark.parametrize("processes", [1, 3])
def test_each_piece_of_work_belongs_to_one_process_of_one_shard_whatever_the_others_run_on(
    monkeypatch, processes
):
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    of_shard = []
    for index in range(4):
        found = []
        for process in range(processes):
            monkeypatch.setattr(jax, "process_index", lambda process=process: process)
            found += parallel.Shard(index, 4).share(30).tolist()
            assert parallel.share(30).tolist() == list(range(process, 30, processes))
        assert len(set(found)) == len(found)
        of_shard.append(set(found))
    assert of_shard == [set(range(index, 30, 4)) for index in range(4)]
    assert str(parallel.Shard(1, 4)) == "2/4"
    assert parallel.Shard(5, 9).share(5).tolist() == []


def test_a_shifted_shard_has_the_same_pieces_of_a_longer_row():
    for by in (0, 1, 3, 10):
        for index in range(4):
            shard = parallel.Shard(index, 4)
            wanted = [piece - by for piece in shard.share(30) if piece >= by]
            assert shard.shifted(by).share(30 - by).tolist() == wanted
            assert shard.shifted(by).shifted(-by) == shard


# -- start: which cluster, and which of the host's GPUs

SLURM = {
    "SLURM_JOB_ID": "17",
    "SLURM_STEP_NODELIST": "node[3-6]",
    "SLURM_STEP_NUM_NODES": "4",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
}
OPEN_MPI_5 = {
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "PMIX_NAMESPACE": "prterun-node3-18242@1",
}
NAMED = {"SR3_COORDINATOR": "node3:1234", "SR3_PROCESSES": "4", "SR3_PROCESS": "3"}


@pytest.fixture
def started(monkeypatch):
    """started(variables) is what `start` asks of JAX in this environment."""

    def begin(variables):
        for name in list(os.environ):
            if (
                name.startswith(("SLURM_", "OMPI_", "PMIX_", "SR3_"))
                or name == "JAX_LOCAL_DEVICE_IDS"
            ):
                monkeypatch.delenv(name)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        asked = {}
        monkeypatch.setattr(jax.distributed, "is_initialized", lambda: False)
        monkeypatch.setattr(jax.distributed, "initialize", lambda **place: asked.update(place))
        parallel.start()
        return asked

    return begin


def test_one_task_a_node_takes_all_gpus_and_the_rest_is_left_to_jax(started):
    asked = started(SLURM)
    assert asked["local_device_ids"] == []
    assert asked.keys() == {"local_device_ids", "heartbeat_timeout_seconds"}


@pytest.mark.parametrize(
    "variables",
    [SLURM | {"SLURM_NTASKS": "8"}, SLURM | {"JAX_LOCAL_DEVICE_IDS": "2,3"}, {}],
    ids=["two tasks", "told", "alone"],
)
def test_otherwise_jax_chooses_the_gpus(started, variables):
    assert started(variables)["local_device_ids"] is None


def test_two_ranks_of_open_mpi_5_on_one_host_meet_there_with_a_gpu_each(started):
    one, other = (
        started(OPEN_MPI_5),
        started(OPEN_MPI_5 | {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}),
    )
    assert (one["num_processes"], one["process_id"], one["local_device_ids"]) == (2, 1, [1])
    assert (other["num_processes"], other["process_id"], other["local_device_ids"]) == (2, 0, [0])
    assert one["coordinator_address"] == other["coordinator_address"]
    host, port = one["coordinator_address"].split(":")
    assert host == "localhost"
    assert 61440 <= int(port) <= 65535
    assert (
        started(OPEN_MPI_5 | {"PMIX_NAMESPACE": "prterun-node3-18243@1"})["coordinator_address"]
        != f"localhost:{port}"
    )


def test_open_mpi_5_on_several_hosts_is_told_the_coordinator_or_refused(started):
    spread = OPEN_MPI_5 | {"OMPI_COMM_WORLD_LOCAL_SIZE": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}
    with pytest.raises(UserError, match="mpirun -x SR3_COORDINATOR=HOST:PORT"):
        started(spread)
    asked = started(spread | {"SR3_COORDINATOR": "node3:1234"})
    assert asked["coordinator_address"] == "node3:1234"
    assert (asked["num_processes"], asked["process_id"], asked["local_device_ids"]) == (2, 1, [])


def test_a_port_that_is_taken_is_a_sentence_that_says_how_to_take_another(started, monkeypatch):
    first = OPEN_MPI_5 | {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}
    port = int(started(first)["coordinator_address"].rpartition(":")[2])
    with socket.socket(socket.AF_INET6) as other:
        other.bind(("", port))
        other.listen()
        with pytest.raises(UserError, match=f"uses port {port}.* mpirun -x SR3_COORDINATOR="):
            started(first)
        started(first | {"OMPI_COMM_WORLD_RANK": "1"})  # does not listen


def test_a_text_that_processes_agree_on_is_cut_and_empty_if_all_are_silent():
    assert parallel.first_text("") == ""
    assert parallel.first_text("zu viele Bilder: größer") == "zu viele Bilder: größer"
    assert parallel.first_text("ä" * 2000) == "ä" * 1000


def test_open_mpi_4_is_left_to_jax(started):
    assert "coordinator_address" not in started(
        OPEN_MPI_5 | {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911"}
    )


def test_what_the_variables_name_goes_before_a_cluster_around_it(started):
    asked = started(SLURM | NAMED)
    assert (asked["coordinator_address"], asked["num_processes"], asked["process_id"]) == (
        "node3:1234",
        4,
        3,
    )
    assert asked["cluster_detection_method"] == "deactivate"
    with pytest.raises(UserError, match="SR3_PROCESS must be a whole number, not 'x'"):
        started(NAMED | {"SR3_PROCESS": "x"})


OUT_OF_ORDER = """
import sys
import jax, numpy as np
from jax.sharding import AxisType, Mesh
from sr3_jax.runtime import parallel
parallel.start()
devices = sorted(jax.devices(), key=lambda device: device.id)
assert [device.process_index for device in devices] == [0, 0, 1, 1]
order = np.array(devices)[[0, 2, 1, 3]].reshape(2, 2)
mesh = Mesh(order, ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
rows = parallel.rows(mesh, 8)
assert rows.tolist() == {0: [0, 1, 4, 5], 1: [2, 3, 6, 7]}[jax.process_index()], rows
batch = parallel.to_devices({"number": rows, "image": rows[:, None] * np.ones((1, 3))}, mesh)
for shard in batch["number"].addressable_shards:
    assert np.asarray(shard.data).tolist() == np.arange(8)[shard.index].tolist()
whole = jax.jit(lambda image: image, out_shardings=parallel.replicated(mesh))
gathered = whole(batch["image"])
assert np.asarray(gathered)[:, 0].tolist() == list(range(8))
"""


def test_rows_follow_the_devices_that_own_them_where_the_mesh_is_out_of_order():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    place = {
        "SR3_COORDINATOR": f"localhost:{port}",
        "SR3_PROCESSES": "2",
        "JAX_NUM_CPU_DEVICES": "2",
        "JAX_PLATFORMS": "cpu",
    }
    started = [
        subprocess.Popen(
            [sys.executable, "-c", OUT_OF_ORDER],
            env=os.environ | place | {"SR3_PROCESS": str(number)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    for process in started:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said[-2000:]
