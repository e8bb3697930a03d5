r"""Faces 64×64 from noise: the first stage of the paper's cascade 64 → 256 → 1024.

    sr3 train --config=configs/faces_64_base.py --workdir=DIR \
        --config.data.folder=FFHQ --config.data.eval_folder=CELEBA_HQ

The further stages are configs/faces_64_256.py and configs/faces_256_1024.py:

    sr3 generate --stage=BASE --stage=SR1 --stage=SR2 --count=64 --steps=256,100,40 --output=DIR

On v5e:4x8 a training step at batch 256 takes 20 ms at 41 % MFU and 0.9 GiB of a chip's memory, by
the TPU compiler's estimate (benchmarks/tpu.md): 500,000 steps in 3 hours.

The paper shows images of this cascade and names no numbers; its first stage is a DDPM, of a size
that it does not tell. This network is our choice.
"""

import sr3_jax.config


def get_config():
    config = sr3_jax.config.base()
    data, model = config.data, config.model
    config.task.kind = "generation"
    data.source, data.hr_size, data.lr_size = "folder", 64, 64
    model.channels, model.multipliers, model.blocks = 128, (1, 2, 3, 4), 2
    model.attention, model.dropout, model.predict = (16, 8), 0.1, "v"
    config.schedule.name = "cosine"
    config.sample.schedule, config.sample.steps = "respaced", 256
    config.train.loss = "l2"
    # See benchmarks/tpu.md
    model.dtype, config.mesh.data, config.mesh.fsdp = "bfloat16", 1, -1
    return config
