"""Faces 16×16 → 128×128: the paper's Task 1 (table A.1, 550M parameters; this network 561M).

    sr3 train --config=configs/faces_16_128.py --workdir=DIR --config.data.folder=FFHQ --config.data.eval_folder=CELEBA_HQ

Expect after 1M steps at batch 256 (paper, table 1, FFHQ → CelebA-HQ): PSNR 23.04, SSIM 0.65,
consistency 2.68e-5; the regression baseline (--config.objective=regression
--config.train.learning_rate=1e-5): 23.96, 0.69, 2.71e-5. One step on v5e:4x8, 32 chips with 8
images each: estimated 117 ms, 55 % of the chips' peak, 4.5 of 16 GiB; so 33 hours in all (`sr3
compile --config=configs/faces_16_128.py --topology=v5e:4x8`; benchmarks/tpu.md). The paper does not
state its hardware. Not in the paper, so ours: attention at 16×16, EMA 0.9999 and the noise schedule
(both of the same team's next paper).
"""

import sr3_jax.config


def get_config():
    config = sr3_jax.config.base()  # the base is this experiment
    config.data.source = "folder"
    # See benchmarks/tpu.md
    config.model.dtype, config.mesh.data, config.mesh.fsdp = "bfloat16", 1, -1
    return config
