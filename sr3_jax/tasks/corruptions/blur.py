"""Gaussian blur.

If the network is not told how strong it is, this is the augmentation of the paper's cascades (table
5), which makes a network robust against the output of the stage before it. The paper states neither
kernel nor sigma; to blur half of the examples is Cascaded Diffusion's choice (arXiv 2106.15282).
"""

from jaxtyping import Array, Key

from sr3_jax.tasks.corruptions.corruption import Corruption, Strength
from sr3_jax.tasks.operations import gaussian_blur
from sr3_jax.tasks.task import Images, Signal


def apply(images: Images, sigma: Strength, key: Key[Array, ""]) -> Images:
    """Blurs each image with its own sigma, in pixels; the key is not used."""
    return gaussian_blur(images, sigma)


# Scale 8: a blur with a sigma of one LR pixel matters as much as noise of several 8-bit levels. At
# most 4 pixels, since the kernel of `gaussian_blur` is large enough for no more.
CORRUPTION = Corruption(
    Signal("blur", "Gaussian blur (sigma, input pixels)", 4.0, scale=8.0), apply, told=False
)
