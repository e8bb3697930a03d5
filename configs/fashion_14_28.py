"""Fashion-MNIST 14×14 → 28×28 by class: the second stage of the cascade of configs/fashion_14.py.

    sr3 train --config=configs/fashion_14_28.py --workdir=runs/fashion-14-28

In training, noise hides some of the LR image, and the network is told how much (Cascaded Diffusion,
arXiv 2106.15282): what the first stage makes is never quite like a real image made smaller.
"""

import runpy
from pathlib import Path


def get_config():
    # the file beside this one, wherever both are
    config = runpy.run_path(str(Path(__file__).with_name("fashion_14.py")))["get_config"]()
    data, model, sample = config.data, config.model, config.sample
    config.task.kind, config.task.augment = "super_resolution", 40.0
    data.hr_size, data.lr_size = 28, 14
    model.space_to_depth, model.blocks = 2, 1  # on the LR grid
    model.attention, model.head_channels, model.dropout = (), 0, 0.0
    model.predict_residual, model.residual_scale = True, 0.23
    config.schedule.log_snr_end = -6.0
    sample.steps = 8
    return config
