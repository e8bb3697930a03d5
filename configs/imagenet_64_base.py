"""ImageNet 64×64 by class, from noise: the first stage of the cascade of table 4.

    sr3 train --config=configs/imagenet_64_base.py --workdir=DIR --config.data.name=imagenet2012

The second stage is configs/imagenet_64_256.py:cascade. The paper names neither this network nor its
training; it only reports an FID of 11.3 at 256×256 for the two together (table 4), over 50,000
images. This one is of the size of the 64×64 network of arXiv 2105.05233 (296 M parameters, FID
2.07 with 250 evaluations), of which Cascaded Diffusion (arXiv 2106.15282) reports 1.48 at 64×64.

    sr3 generate --stage=BASE --stage=SR --count=50000 --guidance=1.5,1 --steps=256,100 --output=DIR
    sr3 evaluate --protocol=table4 --images=cascade=DIR --inception=WEIGHTS --reference=STATISTICS

The class of one image in ten is not told, for classifier-free guidance.
"""

import sr3_jax.config


def get_config():
    config = sr3_jax.config.base()
    data, model, train = config.data, config.model, config.train
    config.task.kind = "generation"
    data.source, data.name = "tfds", "imagenet2012"
    data.hr_size = data.lr_size = 64
    data.max_bad_fraction = 1.0  # small images are part of ImageNet
    model.classes, train.label_dropout = 1000, 0.1
    model.channels, model.multipliers, model.blocks = 192, (1, 2, 3, 4), 3
    model.attention, model.head_channels, model.dropout = (32, 16, 8), 64, 0.1
    model.gamma_injection, model.predict = "scale_shift", "v"
    config.schedule.name = "cosine"
    config.sample.schedule, config.sample.steps = "respaced", 256
    train.loss, train.batch_size = "l2", 2048
    # See benchmarks/tpu.md
    model.dtype, config.mesh.data, config.mesh.fsdp = "bfloat16", 1, -1
    return config
