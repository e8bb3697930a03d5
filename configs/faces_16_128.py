r"""Faces 16×16 → 128×128: the paper's Task 1 (table A.1, 550M parameters; this network 561M).

    sr3 train --config=configs/faces_16_128.py --workdir=DIR \
        --config.data.folder=FFHQ --config.data.eval_folder=CELEBA_HQ

After 1M steps at batch 256 expect a PSNR of 23.04, an SSIM of 0.65 and a consistency of 2.68e-5
(paper, table 1, FFHQ → CelebA-HQ). The regression baseline has 23.96, 0.69 and 2.71e-5; its flags
are --config.objective=regression --config.train.learning_rate=1e-5.

One step on v5e:4x8, 32 chips with 8 images each, is estimated to take 117 ms, which is 55 % of the
chips' peak, and 4.5 of 16 GiB; so 33 hours in all (benchmarks/tpu.md). The estimate comes from

    sr3 compile --config=configs/faces_16_128.py --topology=v5e:4x8

The paper does not state its hardware. Three choices are not in the paper: attention at 16×16 is
ours, and EMA 0.9999 and the noise schedule are those of the same team's next paper.
"""

import sr3_jax.config


def get_config():
    config = sr3_jax.config.base()  # the base is this experiment
    config.data.source = "folder"
    # See benchmarks/tpu.md
    config.model.dtype, config.mesh.data, config.mesh.fsdp = "bfloat16", 1, -1
    return config
