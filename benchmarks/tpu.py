"""What each choice costs on a TPU, by the TPU compiler's estimate.

The network is the two finest levels of the one for 64→256.

    pip install '.[aot]'
    python benchmarks/tpu.py [NAME …]     # about two minutes a row on two cores; without names, all

A training step for v5e:2x2, one residual block a level, 8 images of 256² per chip unless the row
says otherwise. The whole network takes the compiler twenty minutes; these two levels are two thirds
of its time on the chip.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

from sr3_jax.profiling import chips

chips.prepare_environment()

import flax.linen as nn
from ml_collections import ConfigDict

import sr3_jax.config
from sr3_jax.models import blocks, dropout, normalization, platform, unet
from sr3_jax.profiling import aot
from sr3_jax.runtime import parallel

CHIPS = 4


def network(images: int = 8) -> ConfigDict:
    config = sr3_jax.config.base()
    config.data.hr_size, config.data.lr_size = 256, 64
    model = config.model
    model.channels, model.multipliers, model.blocks, model.dropout = 128, (1, 2), 1, 0.0
    model.attention, model.middle_attention, model.dtype = (), False, "bfloat16"
    config.train.batch_size = CHIPS * images
    config.mesh.data, config.mesh.fsdp = CHIPS, 1
    return config


def changed(**fields: object) -> ConfigDict:
    config = network()
    for name, value in fields.items():
        section, field = name.split("__")
        config[section][field] = value
    return config


@contextmanager
def nothing() -> Iterator[None]:
    yield


def patched(*targets: tuple[object, str, object]) -> Callable:
    """Other code in place of ours, while a row is compiled."""

    @contextmanager
    def patch() -> Iterator[None]:
        with ExitStack() as stack:
            for target in targets:
                stack.enter_context(mock.patch.object(*target))
            yield

    return patch


def flax_dropout(self: dropout.Dropout, x, train: bool):
    return nn.Dropout(self.rate)(x, deterministic=not train)


def own_gradient(x, scale, bias, groups, silu):
    return normalization._with_gradient(x, scale, bias, groups, silu)


ROWS: dict[str, tuple[ConfigDict, Callable]] = {
    "as it is, 8 images a chip": (network(), nothing),
    "1 image a chip": (network(1), nothing),
    "2 images a chip": (network(2), nothing),
    "4 images a chip": (network(4), nothing),
    "12 images a chip": (network(12), nothing),
    "16 images a chip": (network(16), nothing),
    "resampling by reshaping": (
        network(),
        patched(
            (blocks, "downsample", platform._downsample),
            (blocks, "upsample", platform._upsample),
            (unet, "upsample", platform._upsample),
        ),
    ),
    "GroupNorm with the CPU's gradient": (
        network(),
        patched((normalization, "group_norm", own_gradient)),
    ),
    "dropout 0.2": (changed(model__dropout=0.2), nothing),
    "dropout 0.2, bits by threefry": (
        changed(model__dropout=0.2),
        patched((dropout.Dropout, "__call__", nn.compact(flax_dropout))),
    ),
    "all recomputed": (changed(model__remat=(0, 1)), nothing),
    "plain strided convolutions": (changed(model__resample="plain"), nothing),
    "fsdp over the four chips": (changed(mesh__data=1, mesh__fsdp=CHIPS), nothing),
    "fsdp, weight gradients in windows": (
        changed(mesh__data=1, mesh__fsdp=CHIPS),
        patched((parallel, "compiler_options", lambda mesh: {})),
    ),
    "float32": (changed(model__dtype="float32"), nothing),
}


def main() -> None:
    names = sys.argv[1:] or list(ROWS)
    unknown = set(names) - ROWS.keys()
    if unknown:
        raise SystemExit(f"no row {sorted(unknown)[0]!r}; there are {', '.join(ROWS)}")
    print(
        "| | temporaries, GiB | HBM traffic, GB | time, ms | ms per image | MFU |\n"
        "|---|---|---|---|---|---|"
    )
    for name in names:
        config, around = ROWS[name]
        with around():
            e, _ = aot.estimate(config, "v5e:2x2", "train")
        if not e.fits:
            print(f"| {name} | {e.temporary_bytes / 2**30:.1f}: does not fit | | | | |", flush=True)
            continue
        print(
            f"| {name} | {e.temporary_bytes / 2**30:.2f} | {e.hbm_traffic / 1e9:.1f} "
            f"| {1000 * e.step_seconds:.1f} | {1000 * e.step_seconds / e.images_per_chip:.1f} "
            f"| {e.mfu:.1%} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
