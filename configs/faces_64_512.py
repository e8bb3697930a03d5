r"""Faces 64×64 → 512×512 (table A.1, 625M parameters; this network 610M).

    sr3 train --config=configs/faces_64_512.py --workdir=DIR \
        --config.data.folder=FFHQ --config.data.eval_folder=CELEBA_HQ

One step on v5e:4x8, 32 chips with 8 images each, the three finest levels recomputed, is estimated
to take 848 ms, which is 32 % of the chips' peak, and 14.8 of 16 GiB (benchmarks/tpu.md). The
estimate comes from

    sr3 compile --config=configs/faces_64_512.py --topology=v5e:4x8

The paper has pictures of this network, and no numbers.
"""

import sr3_jax.config


def get_config():
    config = sr3_jax.config.base()
    config.data.source, config.data.hr_size, config.data.lr_size = "folder", 512, 64
    config.model.channels, config.model.multipliers, config.model.dropout = (
        64,
        (1, 2, 4, 8, 8, 16, 16),
        0.0,
    )
    config.model.remat = (0, 1, 2)  # 64 channels at 512²: half of a TPU's 128 lanes are padding
    # See benchmarks/tpu.md
    config.model.dtype, config.mesh.data, config.mesh.fsdp = "bfloat16", 1, -1
    return config
