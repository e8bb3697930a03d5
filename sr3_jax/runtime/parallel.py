"""Devices: the mesh, the sharding rules, distributed start-up.

The mesh has two axes. The batch is split over both; parameters, EMA and optimizer are split over
"fsdp" and replicated over "data". Everything else is left to the compiler.
"""

import contextlib
import errno
import functools
import os
import socket
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree
from ml_collections import ConfigDict

from sr3_jax.errors import ConfigError, UserError
from sr3_jax.runtime import limits

BATCH = PartitionSpec(("data", "fsdp"))
# Below this size a parameter is cheaper to keep whole than to gather.
SMALLEST_SHARDED = 2**16
# Seconds after which the other processes end when one has died; JAX's default is 100.
PATIENCE = 60
# What the numbers drawn depend on; the environment may say otherwise
SETTLED = {
    "jax_enable_x64": False,
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
}
# No more, since each holds its own copy of the parameters.
MOST_CPU_DEVICES = 8


def start(config: ConfigDict | None = None) -> None:
    """Joins the other processes of a cluster, if there is one, before JAX is used at all.

    Cloud TPU pods, SLURM and Open MPI are recognised. Any other cluster, such as Kubernetes, is
    described by the environment: SR3_COORDINATOR (host:port of process 0), SR3_PROCESSES (their
    number) and SR3_PROCESS (the number of this one). Open MPI 5 on several hosts needs the first of
    them. A process that SLURM or Open MPI has started alone on its host takes all GPUs there;
    several take one each. Without a cluster, this is a single process, and its CPU is split into as
    many devices as the config's mesh and batch size allow.
    """
    for name, value in SETTLED.items():
        jax.config.update(name, value)
    if jax.distributed.is_initialized():
        return
    place: dict[str, Any] = {"local_device_ids": _gpus(), "heartbeat_timeout_seconds": PATIENCE}
    if coordinator := os.environ.get("SR3_COORDINATOR") or _open_mpi_coordinator():
        place |= {
            "coordinator_address": coordinator,
            "num_processes": _whole_number("SR3_PROCESSES", "OMPI_COMM_WORLD_SIZE"),
            "process_id": _whole_number("SR3_PROCESS", "OMPI_COMM_WORLD_RANK"),
            # do not take the numbers of a cluster manager that this process may run under as well
            "cluster_detection_method": "deactivate",
        }
    try:
        jax.distributed.initialize(**place)
    except ValueError as error:  # what JAX raises when it finds no cluster
        if "coordinator_address" not in str(error):
            raise
        _split_cpu(config)
    _check_platform()


@contextlib.contextmanager
def settled() -> Iterator[None]:
    """Draws as always in a block, whatever the process's settings of JAX are."""
    with (
        jax.enable_x64(False),
        jax.default_prng_impl(SETTLED["jax_default_prng_impl"]),
        jax.threefry_partitionable(True),
    ):
        yield


def _check_platform() -> None:
    """Raises UserError if the platform that is asked for is not there."""
    wanted = getattr(jax.config, "jax_platforms")  # noqa: B009 (not in its types)
    if wanted in (None, "", "cpu"):
        return
    try:
        jax.devices()
    # a platform that fails; one whose plugin is not installed
    except (RuntimeError, AssertionError) as error:
        name = {"cuda": "gpu"}.get(wanted, wanted)
        asked = f"JAX_PLATFORMS={wanted}"
        if os.environ.get("JAX_PLATFORMS") != wanted:
            asked = f"--device={name}"
        extra = {
            "gpu": " (it needs the extra [cuda])",
            "tpu": " (it needs the extra [tpu])",
        }.get(name, "")
        detail = f": {str(error).splitlines()[0]}" if str(error) else ""
        raise UserError(f"{asked}: JAX finds none on this machine{extra}{detail}") from error


def _gpus() -> list[int] | None:
    """The numbers of the host's GPUs for this process; []: all of them; None: JAX decides.

    Under SLURM and Open MPI, JAX would give each process the GPU of its number on the host, even
    where it is the only process there.
    """
    if "JAX_LOCAL_DEVICE_IDS" in os.environ:
        return None
    if "OMPI_COMM_WORLD_LOCAL_SIZE" in os.environ:
        alone = os.environ["OMPI_COMM_WORLD_LOCAL_SIZE"] == "1"
        return [] if alone else [int(os.environ["OMPI_COMM_WORLD_LOCAL_RANK"])]
    tasks = os.environ.get("SLURM_NTASKS")
    return [] if tasks and tasks == os.environ.get("SLURM_STEP_NUM_NODES") else None


def _open_mpi_coordinator() -> str | None:
    """Where process 0 listens under Open MPI 5, host:port; None if this is not Open MPI 5.

    JAX itself finds it only under older versions of Open MPI, or, from some version of JAX on, with
    mpi4py.
    """
    processes = os.environ.get("OMPI_COMM_WORLD_SIZE")
    if processes is None or "OMPI_MCA_orte_hnp_uri" in os.environ:
        return None
    if os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE") != processes:
        raise UserError(
            "Open MPI 5 on several hosts needs a free port on process 0's: "
            "mpirun -x SR3_COORDINATOR=HOST:PORT …"
        )
    # All processes must know the port without asking, and the next job should have another: so it
    # is made from the job's name, in the range that JAX uses.
    job = zlib.crc32(os.environ.get("PMIX_NAMESPACE", "").encode())
    port = 61440 + job % 4096
    if os.environ.get("OMPI_COMM_WORLD_RANK") == "0" and _taken(port):
        raise UserError(
            f"another program on this host uses port {port}, which this job would take: choose "
            "another, mpirun -x SR3_COORDINATOR=localhost:PORT …"
        )
    return f"localhost:{port}"


def _taken(port: int) -> bool:
    """Whether a port of this host is in use; JAX would end without a word."""
    with socket.socket(socket.AF_INET6 if socket.has_ipv6 else socket.AF_INET) as trial:
        try:
            trial.bind(("", port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


def _whole_number(variable: str, open_mpi: str) -> int:
    value = os.environ.get(variable) or os.environ.get(open_mpi, "")
    if not value.isdecimal():
        raise UserError(
            f"SR3_COORDINATOR is set, so {variable} must be a whole number, not {value!r}"
        )
    return int(value)


def _split_cpu(config: ConfigDict | None) -> None:
    """Splits the CPU into one device per core, as far as the config's mesh and batch allow.

    With a single device, most convolutions use one core only (benchmarks/README.md).
    """
    if "JAX_NUM_CPU_DEVICES" in os.environ or "host_platform_device_count" in os.environ.get(
        "XLA_FLAGS", ""
    ):
        return

    def possible(count: int) -> bool:
        try:
            return config is None or bool(mesh_shape(config, count))
        except ConfigError:
            return False

    count = next((n for n in range(min(limits.cores(), MOST_CPU_DEVICES), 1, -1) if possible(n)), 1)
    with contextlib.suppress(RuntimeError):  # JAX has started already: leave it as it is
        jax.config.update("jax_num_cpu_devices", count)


def mesh_shape(config: ConfigDict, count: int) -> tuple[int, int]:
    """The sizes (data, fsdp) of the mesh for `count` devices.

    Raises:
      ConfigError: the config's mesh has another number of devices, or the batch is not divisible.
    """
    fsdp, data = config.mesh.fsdp, config.mesh.data
    data, fsdp = (count // fsdp if data == -1 else data), (count // data if fsdp == -1 else fsdp)
    if data * fsdp != count:
        raise ConfigError(
            f"mesh.data = {config.mesh.data} and mesh.fsdp = {config.mesh.fsdp}: their product "
            f"must be {count}, the number of devices (-1: all that the other leaves)"
        )
    micro_batch = config.train.batch_size // config.train.accumulate
    if micro_batch % count:
        raise ConfigError(
            f"train.batch_size / train.accumulate = {micro_batch} must be divisible by the number "
            f"of devices, {count}"
        )
    return data, fsdp


def make_mesh(config: ConfigDict, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh of config.mesh over `devices`, by default all; raises as `mesh_shape` does."""
    return _mesh(mesh_shape(config, len(devices or jax.devices())), devices)


def local_mesh(count: int | None = None) -> Mesh:
    """A mesh of this process's own devices, at most `count`, for its own share of some work."""
    devices = jax.local_devices()[:count]
    return _mesh((len(devices), 1), devices)


def _mesh(shape: tuple[int, int], devices: Sequence[jax.Device] | None) -> Mesh:
    return jax.make_mesh(shape, ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2, devices=devices)


def fsdp_spec(shape: tuple[int, ...], size: int) -> PartitionSpec:
    """How a parameter of `shape` is split over `size` devices.

    Along its longest axis that `size` divides; small parameters are not split.
    """
    axes = [axis for axis in range(len(shape)) if shape[axis] % size == 0]
    if size == 1 or not axes or np.prod(shape) < SMALLEST_SHARDED:
        return PartitionSpec()
    longest = max(axes, key=lambda axis: (shape[axis], axis))
    return PartitionSpec(*("fsdp" if axis == longest else None for axis in range(longest + 1)))


def shardings(abstract: PyTree, mesh: Mesh) -> PyTree:
    """The sharding of every array in a tree of arrays or shapes, by `fsdp_spec`."""
    return jax.tree.map(
        lambda leaf: NamedSharding(mesh, fsdp_spec(leaf.shape, mesh.shape["fsdp"])), abstract
    )


def gather_params(params: PyTree, mesh: Mesh, dtype: Any) -> PyTree:
    """Gathers sharded parameters on every device, in `dtype`, for one use.

    Their gradients come back sharded. Left to itself, the compiler may instead keep the parameters
    split and gather the activations, which are far larger.
    """

    def gather(leaf: jax.Array, sharding: NamedSharding) -> jax.Array:
        if sharding.is_fully_replicated:
            return leaf

        @jax.custom_vjp
        def whole(leaf: jax.Array) -> jax.Array:
            # converted to the narrower type before it is sent to the other devices
            return jax.lax.with_sharding_constraint(
                jax.lax.with_sharding_constraint(leaf.astype(dtype), sharding), replicated(mesh)
            )

        def backward(_: None, gradient: jax.Array) -> tuple[jax.Array]:
            return (jax.lax.with_sharding_constraint(gradient, sharding).astype(leaf.dtype),)

        whole.defvjp(lambda leaf: (whole(leaf), None), backward)
        return whole(leaf)

    return jax.tree.map(gather, params, shardings(params, mesh))


def compiler_options(mesh: Mesh) -> dict[str, str]:
    """Options for the compiler of the mesh's devices."""
    # With fsdp, the compiler would split weight gradients into one convolution per shard, to
    # overlap them with communication. That is made for matrix products of language models; here it
    # copies every feature map and doubles the memory (benchmarks/tpu.md).
    tpu = {"xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000"}
    return tpu if mesh.devices.flat[0].platform == "tpu" else {}


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: its first axis is split over all devices."""
    return NamedSharding(mesh, BATCH)


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of an array that is whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def to_devices(batch: PyTree, mesh: Mesh) -> PyTree:
    """Global arrays of a batch, of which each process gives its `rows` as NumPy arrays."""
    here = sum(device.process_index == jax.process_index() for device in mesh.devices.flat)
    size = len(jax.tree.leaves(batch)[0]) * mesh.size // here
    own = rows(mesh, size)

    def place(local: np.ndarray) -> jax.Array:
        def part(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None
            first, last, _ = index[0].indices(size)
            return local[np.searchsorted(own, np.arange(first, last))]

        shape = (size, *local.shape[1:])
        return jax.make_array_from_callback(shape, batch_sharding(mesh), part)

    return jax.tree.map(place, batch)


def rows(mesh: Mesh, size: int) -> np.ndarray:
    """The rows of a batch of `size` that this process's devices hold, in order.

    A mesh need not go through the processes one after the other: JAX lays it out along the links
    of a TPU slice, where a host's devices are often not neighbours in the batch.

    Raises:
      ConfigError: the devices cannot share so many rows evenly.
    """
    if size % mesh.size:
        raise ConfigError(f"train.batch_size = {size} must be divisible by {mesh.size} devices")
    held = batch_sharding(mesh).addressable_devices_indices_map((size,)).values()
    parts = [np.arange(size)[index] for index in held if index is not None]
    return np.unique(np.concatenate(parts))


def is_main() -> bool:
    """Whether this process writes the files and talks to the user."""
    return jax.process_index() == 0


class Shard(NamedTuple):
    """One of several parts of some work, done by machines that do not know of each other.

    Piece k belongs to shard k modulo the number of shards, however many processes each shard has.

    Example:
      Shard(1, 4) is what the user calls --shard=2/4: of 10 pieces the numbers 1, 5 and 9.
    """

    index: int = 0  # type: ignore[assignment]  # from 0; tuple's methods are of no use here
    count: int = 1  # type: ignore[assignment]  # of all shards

    def __str__(self) -> str:
        """As the user gives it, counted from 1."""
        return f"{self.index + 1}/{self.count}"

    def share(self, count: int) -> np.ndarray:
        """The numbers of those of `count` pieces of work that are this shard's and process's."""
        return np.arange(self.index, count, self.count)[jax.process_index() :: jax.process_count()]

    def shifted(self, by: int) -> "Shard":
        """The shard that has piece k where this one has piece k + `by`.

        With several small pieces of work, it keeps the first shard from getting the beginning of
        each.
        """
        return Shard((self.index - by) % self.count, self.count)


def share(count: int) -> np.ndarray:
    """The numbers of those of `count` pieces of work that are this process's."""
    return Shard().share(count)


def combine(mine: np.ndarray, where: np.ndarray, count: int) -> np.ndarray:
    """Puts together an array of which every process has some rows; all processes get it.

    The values are passed on bit by bit, in any type.

    Args:
      mine: this process's rows.
      where: their numbers; every row belongs to one process at most, and is 0 if to none.
      count: the number of rows of the result.
    """
    mine = np.ascontiguousarray(mine)
    whole = np.zeros((count, *mine.shape[1:]), mine.dtype)
    whole[where] = mine
    if jax.process_count() == 1:
        return whole
    from jax.experimental import multihost_utils

    # As bytes, since JAX would narrow float64. Each row is zero in all processes but one.
    parts = multihost_utils.process_allgather(whole.reshape(count, -1).view(np.uint8))
    return np.bitwise_or.reduce(parts, axis=0).view(mine.dtype).reshape(whole.shape)


def worst(code: int) -> int:
    """The highest code of all processes, such as an exit code, on each of them."""
    return int(
        combine(np.array([code]), np.array([jax.process_index()]), jax.process_count()).max()
    )


LONGEST = 2000  # bytes of a text that processes agree on


def first_text(text: str) -> str:
    """The first text, in the order of the processes, that is not empty; "" if all are.

    So what only one process has found ends all of them, and none waits for another.
    """
    mine = np.zeros((1, LONGEST), np.uint8)
    encoded = np.frombuffer(text.encode(), np.uint8)[:LONGEST]
    mine[0, : len(encoded)] = encoded
    texts = combine(mine, np.array([jax.process_index()]), jax.process_count())
    found = next((row for row in texts if row.any()), texts[0])
    return found.tobytes().rstrip(b"\0").decode(errors="ignore")


def gather(tree: PyTree) -> PyTree:
    """Arrays that are sharded over all processes, whole, as NumPy arrays on each of them."""
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(tree, tiled=True)


@functools.cache  # a program that is made anew is compiled anew
def _replicating(mesh: Mesh) -> Callable[[PyTree], PyTree]:
    return jax.jit(lambda tree: tree, out_shardings=replicated(mesh))


def whole_on(mesh: Mesh, tree: PyTree) -> PyTree:
    """Arrays, however sharded over all processes, whole on each device of a local mesh."""
    if all(
        leaf.is_fully_addressable for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)
    ):
        return jax.device_put(tree, replicated(mesh))
    whole = _replicating(jax.tree.leaves(tree)[0].sharding.mesh)(tree)
    return jax.device_put(
        jax.tree.map(lambda leaf: leaf.addressable_data(0), whole), replicated(mesh)
    )
