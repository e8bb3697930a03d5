"""Gaussian blur.

Untold it is the augmentation of the paper's cascades (table 5): the network becomes robust against
the output of the stage before it. The paper states neither kernel nor sigma; half of the examples
is Cascaded Diffusion's choice (arXiv 2106.15282).
"""

from jaxtyping import Array, Key

from sr3_jax.tasks.corruptions.corruption import Corruption, Strength
from sr3_jax.tasks.operations import gaussian_blur
from sr3_jax.tasks.task import Images, Signal


def apply(images: Images, sigma: Strength, key: Key[Array, ""]) -> Images:
    """Nothing of it is random."""
    return gaussian_blur(images, sigma)


# A blur of one LR pixel matters as much as a noise of several 8-bit levels; 4 pixels are as far as
# the kernel reaches.
CORRUPTION = Corruption(
    Signal("blur", "Gaussian blur (sigma, input pixels)", 4.0, scale=8.0), apply, told=False
)
