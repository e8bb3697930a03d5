"""Devices: the mesh, the sharding rules, distributed start-up.

The mesh has two axes. The batch is split over both; parameters, EMA and optimizer are split over
"fsdp" and replicated over "data". Everything else is left to the compiler.
"""

import contextlib
import os
import zlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree
from ml_collections import ConfigDict

from sr3_jax.errors import ConfigError, UserError

BATCH = PartitionSpec(("data", "fsdp"))
# Below this size a parameter is cheaper to keep whole than to gather.
SMALLEST_SHARDED = 2**16
# In seconds: so long after a process has died the others end. JAX's default is 100.
PATIENCE = 60
# Each holds its own copy of the parameters.
MOST_CPU_DEVICES = 8


def start(config: ConfigDict | None = None) -> None:
    """Joins the cluster's other processes, when there is one; must run before anything else touches JAX.

    Cloud TPU pods, SLURM and Open MPI are found. Anything else, Kubernetes too, names itself by
    SR3_COORDINATOR (host:port of process 0), SR3_PROCESSES and SR3_PROCESS; Open MPI 5 on several
    hosts by the first of them. A process that SLURM or Open MPI has started alone on its host takes
    all GPUs there; several take one each. With no cluster, this is a single process, and its CPU
    becomes as many devices as the config's mesh and batch allow.
    """
    if jax.distributed.is_initialized():
        return
    place: dict[str, Any] = {"local_device_ids": _gpus(), "heartbeat_timeout_seconds": PATIENCE}
    coordinator = os.environ.get("SR3_COORDINATOR") or _open_mpi_coordinator()
    if coordinator:
        place["coordinator_address"] = coordinator
        place["num_processes"] = _whole_number("SR3_PROCESSES", "OMPI_COMM_WORLD_SIZE")
        place["process_id"] = _whole_number("SR3_PROCESS", "OMPI_COMM_WORLD_RANK")
        # a cluster around this one is not ours, nor are its numbers
        place["cluster_detection_method"] = "deactivate"
    try:
        jax.distributed.initialize(**place)
    except ValueError as error:  # what JAX raises when it finds no cluster
        if "coordinator_address" not in str(error):
            raise
        _split_cpu(config)


def _gpus() -> list[int] | None:
    """The host's GPUs for this process: none named means all of them, None what JAX thinks.

    Under SLURM and Open MPI that is the one of the process's number on its host, even where it is
    the only process there.
    """
    if "JAX_LOCAL_DEVICE_IDS" in os.environ:
        return None
    if "OMPI_COMM_WORLD_LOCAL_SIZE" in os.environ:
        alone = os.environ["OMPI_COMM_WORLD_LOCAL_SIZE"] == "1"
        return [] if alone else [int(os.environ["OMPI_COMM_WORLD_LOCAL_RANK"])]
    tasks = os.environ.get("SLURM_NTASKS")
    return [] if tasks and tasks == os.environ.get("SLURM_STEP_NUM_NODES") else None


def _open_mpi_coordinator() -> str | None:
    """Where process 0 of Open MPI 5 listens.

    JAX knows the older ones only, or from some version on needs mpi4py.
    """
    processes = os.environ.get("OMPI_COMM_WORLD_SIZE")
    if processes is None or "OMPI_MCA_orte_hnp_uri" in os.environ:
        return None
    if os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE") != processes:
        raise UserError(
            "Open MPI 5 on several hosts needs a free port on process 0's: mpirun -x SR3_COORDINATOR=HOST:PORT …"
        )
    # All must know the port without asking, and the next job should have another: the job's name,
    # in the range that JAX uses.
    job = zlib.crc32(os.environ.get("PMIX_NAMESPACE", "").encode())
    return f"localhost:{61440 + job % 4096}"


def _whole_number(variable: str, open_mpi: str) -> int:
    value = os.environ.get(variable) or os.environ.get(open_mpi, "")
    if not value.isdecimal():
        raise UserError(
            f"SR3_COORDINATOR is set, so {variable} must be a whole number, not {value!r}"
        )
    return int(value)


def _split_cpu(config: ConfigDict | None) -> None:
    """A device a core, since one device leaves all cores but one idle in most convolutions (benchmarks/README.md)."""
    if "JAX_NUM_CPU_DEVICES" in os.environ or "host_platform_device_count" in os.environ.get(
        "XLA_FLAGS", ""
    ):
        return
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )

    def possible(count: int) -> bool:
        try:
            return config is None or bool(mesh_shape(config, count))
        except ConfigError:
            return False

    count = next((n for n in range(min(cores, MOST_CPU_DEVICES), 1, -1) if possible(n)), 1)
    with contextlib.suppress(RuntimeError):  # JAX has started: it stays as it is
        jax.config.update("jax_num_cpu_devices", count)


def mesh_shape(config: ConfigDict, count: int) -> tuple[int, int]:
    """(data, fsdp) for `count` devices; raises ConfigError when they or the batch do not divide."""
    fsdp, data = config.mesh.fsdp, config.mesh.data
    data, fsdp = (count // fsdp if data == -1 else data), (count // data if fsdp == -1 else fsdp)
    if data * fsdp != count:
        raise ConfigError(
            f"mesh.data = {config.mesh.data} and mesh.fsdp = {config.mesh.fsdp}: their product must be {count}, the number of "
            "devices (-1: all that the other leaves)"
        )
    micro_batch = config.train.batch_size // config.train.accumulate
    if micro_batch % count:
        raise ConfigError(
            f"train.batch_size / train.accumulate = {micro_batch} must be divisible by the number of devices, {count}"
        )
    return data, fsdp


def make_mesh(config: ConfigDict, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh of config.mesh over the devices, by default all; raises ConfigError when they or the batch do not divide."""
    return _mesh(mesh_shape(config, len(devices or jax.devices())), devices)


def local_mesh(count: int | None = None) -> Mesh:
    """This process's own devices, at most `count` of them, for work that the processes share out among them."""
    devices = jax.local_devices()[:count]
    return _mesh((len(devices), 1), devices)


def _mesh(shape: tuple[int, int], devices: Sequence[jax.Device] | None) -> Mesh:
    return jax.make_mesh(shape, ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2, devices=devices)


def fsdp_spec(shape: tuple[int, ...], size: int) -> PartitionSpec:
    """How a parameter of `shape` is split over `size` devices: along its largest axis that `size` divides, if it is large."""
    axes = [axis for axis in range(len(shape)) if shape[axis] % size == 0]
    if size == 1 or not axes or np.prod(shape) < SMALLEST_SHARDED:
        return PartitionSpec()
    longest = max(axes, key=lambda axis: (shape[axis], axis))
    return PartitionSpec(*("fsdp" if axis == longest else None for axis in range(longest + 1)))


def shardings(abstract: PyTree, mesh: Mesh) -> PyTree:
    """The sharding of every array of a tree of shapes, by `fsdp_spec`."""
    return jax.tree.map(
        lambda leaf: NamedSharding(mesh, fsdp_spec(leaf.shape, mesh.shape["fsdp"])), abstract
    )


def gather_params(params: PyTree, mesh: Mesh, dtype: Any) -> PyTree:
    """Sharded parameters whole on every device, in `dtype`, for one use; their gradients come back sharded.

    Left to itself, the compiler may rather keep the parameters split and gather the activations,
    which are far larger.
    """

    def gather(leaf: jax.Array) -> jax.Array:
        sharding = NamedSharding(mesh, fsdp_spec(leaf.shape, mesh.shape["fsdp"]))
        if sharding.is_fully_replicated:
            return leaf

        @jax.custom_vjp
        def whole(leaf: jax.Array) -> jax.Array:
            # narrowed before it travels
            return jax.lax.with_sharding_constraint(
                jax.lax.with_sharding_constraint(leaf.astype(dtype), sharding), replicated(mesh)
            )

        def backward(_: None, gradient: jax.Array) -> tuple[jax.Array]:
            return (jax.lax.with_sharding_constraint(gradient, sharding).astype(leaf.dtype),)

        whole.defvjp(lambda leaf: (whole(leaf), None), backward)
        return whole(leaf)

    return jax.tree.map(gather, params)


def compiler_options(mesh: Mesh) -> dict[str, str]:
    """What the compiler of the mesh's devices must be told."""
    if mesh.devices.flat[0].platform != "tpu":
        return {}
    # With fsdp, it would split weight gradients into one convolution per shard, overlapped with
    # their communication: made for matrix products of language models, it copies every feature map
    # and doubles the memory (benchmarks/tpu.md).
    return {"xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000"}


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first axis over all devices."""
    return NamedSharding(mesh, BATCH)


def replicated(mesh: Mesh) -> NamedSharding:
    """Whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def to_devices(batch: PyTree, mesh: Mesh) -> PyTree:
    """This process's part of a batch, as NumPy arrays, to global arrays."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(
        lambda array: jax.make_array_from_process_local_data(sharding, array), batch
    )


def is_main() -> bool:
    """Whether this process writes the files and talks to the user."""
    return jax.process_index() == 0


def share(count: int) -> np.ndarray:
    """Which of `count` pieces of work are this process's."""
    return np.arange(jax.process_index(), count, jax.process_count())


def combine(mine: np.ndarray, where: np.ndarray, count: int) -> np.ndarray:
    """`count` rows, on every process, of which this one brings `mine` as rows `where` and others bring the rest; bits kept."""
    mine = np.ascontiguousarray(mine)
    whole = np.zeros((count, *mine.shape[1:]), mine.dtype)
    whole[where] = mine
    if jax.process_count() == 1:
        return whole
    from jax.experimental import multihost_utils

    # As bytes: JAX would narrow float64. Each row is zero in all processes but one.
    parts = multihost_utils.process_allgather(whole.reshape(count, -1).view(np.uint8))
    return np.bitwise_or.reduce(parts, axis=0).view(mine.dtype).reshape(whole.shape)


def worst(code: int) -> int:
    """The highest exit code of all processes, on each of them."""
    return int(
        combine(np.array([code]), np.array([jax.process_index()]), jax.process_count()).max()
    )


def gather(tree: PyTree) -> PyTree:
    """Arrays sharded over all processes as NumPy arrays on each of them."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(tree, tiled=True)


def whole_on(mesh: Mesh, tree: PyTree) -> PyTree:
    """Arrays, however sharded over all processes, whole on each device of a local mesh."""
    leaves = jax.tree.leaves(tree)
    if all(leaf.is_fully_addressable for leaf in leaves if isinstance(leaf, jax.Array)):
        return jax.device_put(tree, replicated(mesh))
    everywhere = jax.tree.map(lambda leaf: NamedSharding(leaf.sharding.mesh, PartitionSpec()), tree)
    whole = jax.jit(lambda tree: tree, out_shardings=everywhere)(tree)
    return jax.device_put(
        jax.tree.map(lambda leaf: leaf.addressable_data(0), whole), replicated(mesh)
    )
