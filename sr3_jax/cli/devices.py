"""The flags of commands that run a network on this machine, and how its devices are found."""

from typing import TYPE_CHECKING

from sr3_jax.cli.options import Arguments, CheckpointName, Choice, Whole, option, together

if TYPE_CHECKING:
    from sr3_jax.checkpoints.checkpoint import Checkpoint

NAME = CheckpointName()


DEVICE = option("--device", type=Choice(["cpu", "gpu", "tpu"]), panel="Machine",
                help="By default the fastest there is.")  # fmt: skip
PRECISION = option("--precision", type=Choice(["float32", "bfloat16"]), panel="Machine",
                   help="Of the network; by default as trained.")  # fmt: skip
options = together(
    DEVICE,
    PRECISION,
    option("--tile", type=Whole(), default=0, panel="Machine",
           help="Side of a tile of a large image, in pixels of the result. "
                "By default by network, image and memory."),
    option("--batch", type=Whole(), default=0, panel="Machine",
           help="Tiles or small images at a time. By default by device."),
)  # fmt: skip
machine = together(
    DEVICE,
    PRECISION,
    option("--batch", type=Whole(), default=0, panel="Machine",
           help="Images at a time. By default by their size."),
)  # fmt: skip


def choose(device: str | None) -> None:
    """Tell JAX which platform to use, before it looks for any."""
    if device:
        import jax

        jax.config.update("jax_platforms", {"gpu": "cuda"}.get(device, device))


def load(args: Arguments) -> "Checkpoint":
    """Start the devices, and load --checkpoint in the --precision that is asked for."""
    from sr3_jax.checkpoints.names import load_checkpoint

    start()
    checkpoint = load_checkpoint(args.checkpoint)
    checkpoint.config.model.dtype = args.precision or checkpoint.config.model.dtype
    return checkpoint


def load_stages(args: Arguments) -> "list[Checkpoint]":
    """Start the devices, and load every --stage in the --precision that is asked for."""
    from sr3_jax.checkpoints.names import load_checkpoint

    start()
    checkpoints = [load_checkpoint(place) for place in args.stage]
    for checkpoint in checkpoints:
        checkpoint.config.model.dtype = args.precision or checkpoint.config.model.dtype
    return checkpoints


def start() -> None:
    """Join the other processes, if there are any; raise UserError when there is no such device."""
    from sr3_jax.runtime import parallel

    parallel.start()
