"""Colour photographs, 4×, for a CPU: predict and refine (models/refinement.py). 3.9 M parameters."""

import sr3_jax.config


def get_config():
    config = sr3_jax.config.base()
    data, model, schedule, sample, train = config.data, config.model, config.schedule, config.sample, config.train
    data.source, data.folder, data.hr_size, data.lr_size, data.fit = "records", "runs/photos-256", 96, 24, "crop"
    data.turn = True

    model.kind, model.space_to_depth = "refine", 4
    model.predictor_channels, model.predictor_blocks = 64, 16
    model.channels, model.blocks = 128, 6
    model.multipliers, model.attention, model.middle_attention, model.dropout = (1,), (), False, 0.0
    model.predict, model.predict_residual, model.residual_scale = "v", True, 0.08
    schedule.name, schedule.log_snr_end = "cosine", -6.0
    sample.schedule, sample.variance, sample.steps = "log_snr", "posterior", 4
    sample.match_input = True

    train.loss, train.learning_rate, train.warmup_steps = "l2", 4e-4, 200
    train.learning_rate_schedule = "cosine"
    train.batch_size, train.steps, train.ema_decay = 8, 100_000, 0.999
    train.log_every, train.checkpoint_every, train.evaluate_every, train.evaluate_images = 25, 500, 500, 16
    return config
