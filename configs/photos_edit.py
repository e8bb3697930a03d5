r"""Colour, holes, or flaws of photographs of any size, for a CPU: a U-Net of 6.7 M parameters.

One network each, of the same photographs as configs/photos_4x.py; what is behind the colon is the
task, "restore" without one:

    sr3 prepare photos --output=runs/photos-256 --encoding=raw
    sr3 train --config=configs/photos_edit.py --workdir=runs/restore
    sr3 train --config=configs/photos_edit.py:colourise --workdir=runs/colourise
    sr3 train --config=configs/photos_edit.py:inpaint --workdir=runs/inpaint

"inpaint" also learns to go on beyond the edges of a photograph (uncropping); "restore" takes off
blur, noise and JPEG of unknown strength, at the photograph's own size, and may be told of them.
`--config.objective=regression` trains the control. No weights have been made yet.

Only the corruption differs, as in Palette (arXiv 2111.05826), whose networks are of 256² with
attention; these are of 96² and of convolutions alone, so that they take any size.
"""

import sr3_jax.config

TASKS = ("colourise", "inpaint", "restore")


def get_config(task="restore"):
    if task not in TASKS:
        raise ValueError(f"the task {task!r} is not known; there are {', '.join(TASKS)}")
    config = sr3_jax.config.base()
    data, model, sample, train = config.data, config.model, config.sample, config.train
    data.source, data.folder, data.fit, data.turn = "records", "runs/photos-256", "crop", True
    data.hr_size = data.lr_size = 96
    if task == "restore":
        config.task.kind, config.task.tell_blur = "blind", True
        config.task.blur, config.task.noise, config.task.jpeg = 2.0, 50.0, 90.0
        config.task.first_order = 0.0
    else:
        config.task.kind = task

    model.channels, model.multipliers, model.blocks, model.space_to_depth = 64, (1, 2, 2), 2, 2
    model.attention, model.middle_attention, model.dropout = (), False, 0.0
    model.predict, model.predict_residual = "v", task != "inpaint"
    model.residual_scale = {"colourise": 0.25, "restore": 0.15}.get(task, 1.0)
    config.schedule.name, config.schedule.log_snr_end = "cosine", -6.0
    sample.schedule, sample.variance, sample.steps = "log_snr", "posterior", 8

    train.loss, train.learning_rate, train.warmup_steps = "l2", 2e-4, 500
    train.batch_size, train.steps, train.ema_decay = 8, 1_000_000, 0.9995
    train.log_every, train.checkpoint_every, train.evaluate_every, train.evaluate_images = (
        50,
        750,
        750,
        36,
    )
    return config
