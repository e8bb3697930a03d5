r"""Colour, holes, or flaws of photographs of any size, for a CPU: a U-Net of 6.7 M parameters.

One network each, of the same photographs as configs/photos_4x.py; what is behind the colon is the
task, "restore" without one:

    sr3 prepare photos --output=runs/photos-256 --encoding=raw
    sr3 train --config=configs/photos_edit.py --workdir=runs/restore
    sr3 train --config=configs/photos_edit.py:colourise --workdir=runs/colourise
    sr3 train --config=configs/photos_edit.py:inpaint --workdir=runs/inpaint

"deblur", "denoise" and "restore_jpeg" are "restore" with one of its three flaws alone.
"inpaint" also learns to go on beyond the edges of a photograph (uncropping); "restore" takes off
blur, noise and JPEG of unknown strength, at the photograph's own size, and may be told of them.
`--config.objective=regression` trains the control. No weights have been made yet.

Only the corruption differs, as in Palette (arXiv 2111.05826), whose networks are of 256² with
attention; these are of 96² and of convolutions alone, so that they take any size.
"""

import sr3_jax.config

# What "restore" takes off: sigma of the blur in pixels, 8-bit levels, 100 - quality
FLAWS = {"blur": 2.0, "noise": 50.0, "jpeg": 90.0}
ALONE = {"deblur": "blur", "denoise": "noise", "restore_jpeg": "jpeg"}
TASKS = ("colourise", "inpaint", "restore", *ALONE)


def get_config(task="restore"):
    if task not in TASKS:
        raise ValueError(f"the task {task!r} is not known; there are {', '.join(TASKS)}")
    config = sr3_jax.config.base()
    data, model, sample, train = config.data, config.model, config.sample, config.train
    data.source, data.folder, data.fit, data.turn = "records", "runs/photos-256", "crop", True
    data.hr_size = data.lr_size = 96
    restores = task not in ("colourise", "inpaint")
    config.task.kind = "blind" if restores else task
    if restores:
        config.task.first_order = 0.0
        for name, most in FLAWS.items():
            there = ALONE.get(task, name) == name
            config.task[name] = most if there else 0.0
            if there:
                config.task[f"tell_{name}"] = True

    model.channels, model.multipliers, model.blocks, model.space_to_depth = 64, (1, 2, 2), 2, 2
    model.attention, model.middle_attention, model.dropout = (), False, 0.0
    # of what the grey image, the smooth guess in a hole, or the flawed image misses
    model.predict, model.predict_residual = "v", True
    model.residual_scale = 0.15 if restores else {"colourise": 0.25, "inpaint": 0.2}[task]
    config.schedule.name, config.schedule.log_snr_end = "cosine", -6.0
    sample.schedule, sample.variance, sample.steps = "log_snr", "posterior", 8

    train.loss, train.learning_rate, train.warmup_steps = "l2", 4e-4, 200
    train.batch_size, train.steps, train.ema_decay = 8, 1_000_000, 0.9995
    train.log_every, train.checkpoint_every, train.evaluate_every, train.evaluate_images = (
        50,
        750,
        750,
        36,
    )
    return config
