"""Colour photographs, 4×, for a CPU: convolutions alone, so that pictures of any size go through in tiles. 3.9 M parameters.

sr3 prepare photos --size=160 --output=runs/photos-160    # photographs of five packages of Debian, DATA.md
sr3 train --config=configs/photos_4x.py --workdir=runs/photos-4x    # 0.18 s a step on two idle cores, so an hour
sr3 export --checkpoint=runs/photos-4x --dtype=int8 --output=photos-4x.safetensors

The result is the shipped `photos-4x`, which has seen 31 of these photographs (`sr3 show photos-4x`); the loss was still falling
slowly. `photos-4x-regression`, its control, is the same with --config.objective=regression --config.train.steps=6000
--config.train.learning_rate_schedule=cosine, 20 minutes. What to expect of both on photographs never seen: docs/results.md.

"photos-4x-student", two evaluations, is the second of two, both with --config.sample.schedule=respaced
--config.train.learning_rate=2e-4 --config.train.learning_rate_schedule=cosine --config.train.warmup_steps=50
--config.train.ema_decay=0.99 --config.train.steps=1200, 25 minutes beside other work:

    --teacher=runs/photos-4x --workdir=runs/photos-student-4 --config.sample.steps=4 --config.train.teacher_steps=4
    --teacher=runs/photos-student-4 --workdir=runs/photos-student-2 --config.sample.steps=2
    --teacher=runs/photos-student-2 --workdir=runs/photos-student-1 --config.sample.steps=1    # not shipped

"photos-4x-restore" is told how noisy and how blurred its input is (sr3 upscale --noise=8 --blur=1): the same, trained on with

    --config.data.noise=12 --config.train.learning_rate=3e-4 --config.train.learning_rate_schedule=cosine

from photos-4x for 3,000 steps and from the result for 12,000 (--config.train.init_from), an hour, and from that for 14,000 with

    --config.data.blur=1.5 --config.data.tell_blur=True --config.data.hr_size=128 --config.data.lr_size=32
    --config.train.batch_size=4

as well, 0.3 s each on two cores, so 70 minutes: a blur reaches further than squares of 16 pixels. (The learning rate
was that of 20,000 steps for the first 5,513.) It pays a little for that on clean images, so it is a network of its own. Blur
that it was not told of (data.blur=0.8, with noise, 14,000 steps) gained nothing on blurred images (LPIPS by AlexNet .475
instead of .456), and lost more on clean ones (.248, not .207).
"""

import sr3_jax.config


def get_config():
    config = sr3_jax.config.base()
    data, model, schedule, sample, train = config.data, config.model, config.schedule, config.sample, config.train
    data.source, data.folder, data.hr_size, data.lr_size, data.fit = "records", "runs/photos-160", 64, 16, "crop"

    # The network works on the LR image's own grid, and diffuses what bicubic misses, scaled to unit variance.
    model.space_to_depth, model.predict, model.predict_residual, model.residual_scale = 4, "v", True, 0.08
    model.channels, model.multipliers, model.blocks, model.dropout = 64, (1, 2), 2, 0.0
    model.attention, model.middle_attention = (), False
    schedule.name, schedule.log_snr_end = "cosine", -6.0
    sample.schedule, sample.variance, sample.steps = "log_snr", "posterior", 8
    sample.match_input = True

    train.loss, train.learning_rate, train.warmup_steps = "l2", 4e-4, 200
    train.batch_size, train.steps, train.ema_decay = 16, 20_000, 0.999
    train.log_every, train.checkpoint_every, train.evaluate_every, train.evaluate_images = 25, 100, 500, 16
    return config
