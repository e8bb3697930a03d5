r"""Faces 256×256 → 1024×1024: the last stage of the paper's cascade.

The paper's network has 150M parameters (table A.1); this one has 149M.

    sr3 train --config=configs/faces_256_1024.py --workdir=DIR \
        --config.data.folder=FFHQ --config.data.eval_folder=CELEBA_HQ

One step on v5p:4x4x2, 32 chips with 8 images each, is estimated to take 530 ms, which is 6.3 % of
the chips' peak, and 48.9 of 95 GiB (benchmarks/tpu.md). Memory is the limit: 16 channels at 1024²
fill an eighth of the matrix unit's lanes. The estimate comes from

    sr3 compile --config=configs/faces_256_1024.py --topology=v5p:4x4x2

The paper has pictures of this network, and no numbers.

In a cascade its input is another network's output, so the conditioning is blurred in training
(paper, table 5). The paper does not state the kernel or its sigma: at most 0.6 LR pixels is ours.
"""

import sr3_jax.config


def get_config():
    config = sr3_jax.config.base()
    config.data.source, config.data.hr_size, config.data.lr_size = "folder", 1024, 256
    config.task.blur = 0.6
    config.model.channels, config.model.multipliers = 16, (1, 2, 4, 8, 16, 32, 32, 32)
    config.model.blocks, config.model.dropout = 2, 0.0
    # See benchmarks/tpu.md
    config.model.dtype, config.mesh.data, config.mesh.fsdp = "bfloat16", 1, -1
    return config
