"""What else an LR image can have suffered.

A new one is a file that defines a `Corruption`, and its line in CORRUPTIONS.

Each becomes two fields of the config: `task.NAME`, the largest strength in training, drawn from [0,
task.NAME] for half of the examples; and `task.tell_NAME`, whether the network is told how strong it
is. A network that is told learns to remove it; one that is not becomes robust against it. `sr3
upscale`, `sr3 serve` and `sr3 check-data` follow by themselves.
"""

from sr3_jax.tasks.corruptions import blur, noise
from sr3_jax.tasks.corruptions.corruption import Corruption

# In the order in which a camera applies them; rounding to 8 bits comes last, and is no corruption.
CORRUPTIONS: dict[str, Corruption] = {
    each.signal.name: each
    for each in (
        blur.CORRUPTION,
        noise.CORRUPTION,
    )
}
