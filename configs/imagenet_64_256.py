"""Natural images 64×64 → 256×256 (table A.1, 625M parameters; this network 617M).

    sr3 train --config=configs/imagenet_64_256.py --workdir=DIR --config.data.name=imagenet2012

After 1M steps at batch 256 expect an FID of 5.2, an IS of 180.1, a PSNR of 26.4 and an SSIM of
0.762 (paper, table 2). The regression baseline has 15.2, 121.1, 27.9 and 0.801.

One step on v5e:4x8, 32 chips with 8 images each, is estimated to take 337 ms, which is 62 % of the
chips' peak, and 8.8 of 16 GiB; so 94 hours in all (benchmarks/tpu.md). The estimate comes from

    sr3 compile --config=configs/imagenet_64_256.py --topology=v5e:4x8

The paper does not state its hardware. As in the paper, an image is its largest central crop,
area-resampled, and images whose shorter side is below 256 are dropped.

As the second stage of a cascade (table 4) it must forgive what the first, configs/
imagenet_64_base.py, gets wrong. Behind a colon, `:cascade` adds what makes it so in training. Half
of the LR images are blurred, by up to one LR pixel, of which the network is not told (table 5: FID
11.3 with blur, 13.1 without; how much, the paper does not say). Half get noise, of which it is told
(Cascaded Diffusion, arXiv 2106.15282), so that a user can choose how much (`sr3 generate
--augment`). It is not told of classes.
"""

import sr3_jax.config


def get_config(use="alone"):
    if use not in ("alone", "cascade"):
        raise ValueError(f"{use!r} is not known; there are alone, cascade")
    config = sr3_jax.config.base()
    if use == "cascade":
        config.task.blur, config.task.augment = 1.0, 50.0
    config.data.source, config.data.name = "tfds", "imagenet2012"
    config.data.hr_size, config.data.lr_size = 256, 64
    config.data.max_bad_fraction = 1.0  # small images are part of ImageNet
    config.model.multipliers, config.model.dropout = (1, 2, 4, 4, 8, 8), 0.0
    # See benchmarks/tpu.md
    config.model.dtype, config.mesh.data, config.mesh.fsdp = "bfloat16", 1, -1
    return config
