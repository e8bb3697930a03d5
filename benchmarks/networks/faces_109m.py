"""Faces 16×16 → 128×128 on a network of 109 M parameters.

That is about the size that ports of SR3 commonly train.
"""

import sr3_jax.config


def get_config():
    config = sr3_jax.config.base()
    config.model.channels, config.model.multipliers, config.model.blocks = 64, (1, 2, 4, 8, 8), 2
    # One copy of the state over all devices, which on a CPU are its cores
    config.mesh.data, config.mesh.fsdp = 1, -1
    return config
