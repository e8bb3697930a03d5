"""Corruptions of LR images, besides the reduction: blur, noise and JPEG.

To add one, write a file that defines a `Corruption`, and list it in CORRUPTIONS.

Each becomes two fields of the config: `task.NAME`, the largest strength in training, which is drawn
from [0, task.NAME] for half of the examples; and `task.tell_NAME`, whether the network is told how
strong it is. A network that is told learns to remove it; one that is not becomes robust against it.
`sr3 upscale`, `sr3 serve` and `sr3 check-data` find new corruptions by themselves.
"""

from sr3_jax.tasks import augmentation
from sr3_jax.tasks.corruptions import blur, jpeg, noise
from sr3_jax.tasks.corruptions.corruption import Corruption
from sr3_jax.tasks.task import Signal

# In the order in which they happen in a camera. Rounding to 8 bits comes last, and is not one.
CORRUPTIONS: dict[str, Corruption] = {
    each.signal.name: each
    for each in (
        blur.CORRUPTION,
        noise.CORRUPTION,
        jpeg.CORRUPTION,
    )
}


def known_signals() -> dict[str, Signal]:
    """All that a network may be told of an image, by name; the largest values that make sense."""
    told = {name: corruption.signal for name, corruption in CORRUPTIONS.items()}
    return told | {augmentation.SIGNAL.name: augmentation.SIGNAL}
