"""The edits that users ask for by name."""

from typing import NamedTuple

from sr3_jax import weights
from sr3_jax.errors import UserError


class Named(NamedTuple):
    """An edit as users ask for it by name."""

    kind: str  # of the network: see `Editor`
    absent: tuple[str, ...] = ()  # the flaws that it is told the image does not have
    about: str = ""


EDITS = {
    "colourise": Named("colourise", about="give colours to a grey image"),
    "inpaint": Named("inpaint", about="fill the holes of a mask"),
    "uncrop": Named("inpaint", about="go on beyond the edges"),
    "restore": Named("restore", about="take off blur, noise and JPEG, of unknown strength"),
    "deblur": Named("restore", ("noise", "jpeg"), "take off blur alone"),
    "denoise": Named("restore", ("blur", "jpeg"), "take off noise alone"),
    "restore_jpeg": Named("restore", ("blur", "noise"), "take off the blocks of JPEG alone"),
}


def shipped(task: str) -> str:
    """The name of the shipped weights for an edit of EDITS.

    Raises:
      UserError: there are none yet.
    """
    kind = EDITS[task].kind
    if kind not in weights.shipped():
        raise UserError(
            f"--task={task} needs --checkpoint: no weights for {kind} are in the package yet; "
            f"configs/photos_edit.py:{kind} trains them"
        )
    return kind
