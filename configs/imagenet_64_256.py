"""Natural images 64×64 → 256×256 (table A.1, 625M parameters; this network 617M).

    sr3 train --config=configs/imagenet_64_256.py --workdir=DIR --config.data.name=imagenet2012

Expect after 1M steps at batch 256 (paper, table 2): FID 5.2, IS 180.1, PSNR 26.4, SSIM 0.762; the
regression baseline 15.2, 121.1, 27.9, 0.801. One step on v5e:4x8, 32 chips with 8 images each:
estimated 337 ms, 62 % of the chips' peak, 8.8 of 16 GiB; so 94 hours in all (`sr3 compile
--config=configs/imagenet_64_256.py --topology=v5e:4x8`; benchmarks/tpu.md). The paper's hardware is
not stated. Largest central crop, area-resampled; images whose shorter side is below 256 are
dropped, as in the paper.
"""

import sr3_jax.config


def get_config():
    config = sr3_jax.config.base()
    config.data.source, config.data.name = "tfds", "imagenet2012"
    config.data.hr_size, config.data.lr_size = 256, 64
    config.data.max_bad_fraction = 1.0  # small images are part of ImageNet
    config.model.multipliers, config.model.dropout = (1, 2, 4, 4, 8, 8), 0.0
    # See benchmarks/tpu.md
    config.model.dtype, config.mesh.data, config.mesh.fsdp = "bfloat16", 1, -1
    return config
