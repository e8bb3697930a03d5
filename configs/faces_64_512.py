"""Faces 64×64 → 512×512 (table A.1, 625M parameters; this network 610M).

sr3 train --config=configs/faces_64_512.py --workdir=DIR --config.data.folder=FFHQ --config.data.eval_folder=CELEBA_HQ
"""

import sr3_jax.config


def get_config():
    config = sr3_jax.config.base()
    config.data.source, config.data.hr_size, config.data.lr_size = "folder", 512, 64
    config.model.channels, config.model.multipliers, config.model.dropout = 64, (1, 2, 4, 8, 8, 16, 16), 0.0
    config.model.dtype, config.mesh.data, config.mesh.fsdp = "bfloat16", 1, -1  # see benchmarks/tpu.md
    return config
