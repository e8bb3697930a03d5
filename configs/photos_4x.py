r"""Colour photographs of any size, 4×, for a CPU: predict and refine, 6.0 M parameters.

The network is that of models/refinement.py. `sr3 prepare photos` takes five packages of Debian and
makes 1,867 squares of 158 photographs; training takes 0.75 s a step on two idle cores:

    sr3 prepare photos --output=runs/photos-256 --encoding=raw
    sr3 train --config=configs/photos_4x.py --workdir=runs/photos-4x

The learning rate stays constant, so that the run can go on for as long as there is time. When
weights are wanted, a second run makes an end: it starts from the average of the first, and its rate
falls to zero in 1,700 steps.

    sr3 train --config=configs/photos_4x.py --workdir=runs/photos-4x-end \
        --config.train.init_from=runs/photos-4x --config.train.steps=1700 \
        --config.train.learning_rate_schedule=cosine --config.train.warmup_steps=50 \
        --config.train.ema_decay=0.99
    sr3 export --checkpoint=runs/photos-4x-end --dtype=int8 --output=photos-4x-clean.safetensors
    sr3 export --checkpoint=runs/photos-4x-end --dtype=int8 --predictor \
        --output=photos-4x-regression.safetensors

`photos-4x-student`, which needs one evaluation, learns from eight DDIM steps of that end:

    sr3 train --config=configs/photos_4x.py --workdir=runs/photos-student \
        --teacher=runs/photos-4x-end --config.train.teacher_steps=8 \
        --config.sample.schedule=respaced --config.sample.steps=1 --config.train.steps=250 \
        --config.train.learning_rate=2e-4 --config.train.learning_rate_schedule=cosine \
        --config.train.warmup_steps=20 --config.train.ema_decay=0.98

Both networks, the predictor and the refiner, learn in the one run. `--predictor` exports the first
by itself, a regression, as the control. The diary of the run, and what it is worth, is in
docs/models.md; what else was tried is in docs/ablations.md.
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
    data.source, data.folder, data.hr_size, data.lr_size, data.fit = (
        "records",
        "runs/photos-256",
        96,
        24,
        "crop",
    )
    data.turn = True

    # On the LR grid; convolutions of 128 channels take half the time per operation of those of 64
    # (AVX-512, two cores).
    model.kind, model.space_to_depth = "refine", 4
    model.predictor_channels, model.predictor_blocks = 128, 8
    model.channels, model.blocks = 128, 6
    model.multipliers, model.attention, model.middle_attention, model.dropout = (1,), (), False, 0.0
    model.predict, model.predict_residual, model.residual_scale = "v", True, 0.08
    schedule.name, schedule.log_snr_end = "cosine", -6.0
    sample.schedule, sample.variance, sample.steps = "log_snr", "posterior", 2
    sample.match_input = True

    train.loss, train.learning_rate, train.warmup_steps = "l2", 4e-4, 200
    train.batch_size, train.steps, train.ema_decay = 8, 1_000_000, 0.9995
    train.log_every, train.checkpoint_every, train.evaluate_every, train.evaluate_images = (
        50,
        750,
        750,
        36,
    )
    return config
