r"""Fashion-MNIST 14×14 by class, from noise: the first stage of a small cascade, for a CPU.

    sr3 prepare fashion --output=runs/fashion-28
    sr3 train --config=configs/fashion_14.py --workdir=runs/fashion-14
    sr3 train --config=configs/fashion_14_28.py --workdir=runs/fashion-14-28
    sr3 generate --stage=runs/fashion-14 --stage=runs/fashion-14-28 --classes=balanced \
        --count=60 --output=fashion

The class of one image in ten is not told, for classifier-free guidance. The images are reduced by
bicubic, as those that the second stage learns from are.
"""

import sr3_jax.config


def get_config():
    config = sr3_jax.config.base()
    data, model, schedule, sample, train = (
        config.data,
        config.model,
        config.schedule,
        config.sample,
        config.train,
    )
    config.task.kind = "generation"
    data.source, data.folder, data.resample = "records", "runs/fashion-28", "bicubic"
    data.hr_size = data.lr_size = 14
    model.classes, train.label_dropout = 10, 0.1
    model.image_channels = 1
    model.channels, model.multipliers, model.blocks = 48, (1, 2), 2
    model.attention, model.head_channels, model.dropout = (7,), 48, 0.1
    model.predict = "v"
    schedule.name = "cosine"
    sample.schedule, sample.sampler, sample.variance, sample.steps = (
        "log_snr",
        "dpm_solver",
        "posterior",
        16,
    )
    train.loss, train.learning_rate, train.warmup_steps = "l2", 6e-4, 200
    train.batch_size, train.steps, train.ema_decay = 128, 20_000, 0.999
    train.log_every, train.checkpoint_every, train.evaluate_every = 50, 500, 1000
    train.evaluate_images, train.sample_images = 500, 60
    return config
