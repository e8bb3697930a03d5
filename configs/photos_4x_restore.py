"""Colour photographs with noise and blur that the network is told of, 4×: 4.0 M parameters.

The network is a U-Net on the LR image's own grid. Training takes 70 minutes on two cores, 0.3 s a
step:

    sr3 prepare photos --output=runs/photos-256 --encoding=raw
    sr3 train --config=configs/photos_4x_restore.py --workdir=runs/restore
    sr3 upscale PHOTO --checkpoint=runs/restore --noise=8 --blur=1

The shipped `photos-4x-restore` was trained on an earlier set of 31 photographs (see `sr3 show
photos-4x-restore`); its packages are still among those of `sr3 prepare photos`. It began with
20,000 steps on clean squares of 64 pixels, then 15,000 with noise alone. The flags of both were
--config.data.hr_size=64 --config.data.lr_size=16 --config.train.batch_size=16
--config.task.tell_blur=False --config.task.blur=0, and --config.task.noise=0 at first. From the
result it went on by --config.train.init_from, with larger squares, because a blur reaches further
than squares of 16 pixels. The learning rate was 4e-4 and constant at first; for the first 5,513
steps with noise it was that of a run of 20,000 steps.

On clean images the network is a little worse for having learned to restore, so it is a network of
its own. Training on blur that it was not told of (task.blur=0.8, with noise, 14,000 steps) gained
nothing on blurred images (LPIPS by AlexNet .475 instead of .456), and lost more on clean ones
(.248, not .207).
"""

import sr3_jax.config


def get_config():
    config = sr3_jax.config.base()
    data, task, model, sample, train = (
        config.data,
        config.task,
        config.model,
        config.sample,
        config.train,
    )
    data.source, data.folder, data.hr_size, data.lr_size, data.fit = (
        "records",
        "runs/photos-256",
        128,
        32,
        "crop",
    )
    task.noise, task.blur, task.tell_blur = 12.0, 1.5, True

    # The network works on the LR image's own grid, and diffuses what bicubic misses, scaled to unit
    # variance.
    model.space_to_depth, model.predict, model.predict_residual, model.residual_scale = (
        4,
        "v",
        True,
        0.08,
    )
    model.channels, model.multipliers, model.blocks, model.dropout = 64, (1, 2), 2, 0.0
    model.attention, model.middle_attention = (), False
    config.schedule.name, config.schedule.log_snr_end = "cosine", -6.0
    sample.schedule, sample.variance, sample.steps = "log_snr", "posterior", 8
    sample.match_input = True

    train.loss, train.learning_rate, train.learning_rate_schedule, train.warmup_steps = (
        "l2",
        3e-4,
        "cosine",
        200,
    )
    train.batch_size, train.steps, train.ema_decay = 4, 14_000, 0.999
    train.log_every, train.checkpoint_every, train.evaluate_every, train.evaluate_images = (
        25,
        100,
        500,
        16,
    )
    return config
