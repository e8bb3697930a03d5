"""Faces 16×16 → 64×64 on a network between that of configs/orl_16_64.py and the paper's."""

import sr3_jax.config


def get_config():
    config = sr3_jax.config.base()
    config.data.hr_size = 64
    config.model.channels, config.model.multipliers, config.model.blocks = 64, (1, 2, 4), 2
    return config
