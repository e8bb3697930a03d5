"""Checkpoints of other projects, as ours: each a file with `read`, listed in FORMATS.

A reader gets {name: array} as PyTorch saved it, and what the user said of the network. What the
shapes of the arrays tell is not asked for.
"""

from sr3_jax.checkpoints.foreign import guided_diffusion, janspiry

FORMATS = {"janspiry": janspiry.read, "guided-diffusion": guided_diffusion.read}
