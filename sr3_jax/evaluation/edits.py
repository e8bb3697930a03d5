"""Networks of edits as contenders: they run as `sr3 edit` runs them, by an `Editor`."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from sr3_jax.checkpoints.checkpoint import Checkpoint
from sr3_jax.errors import UserError
from sr3_jax.evaluation.contenders import Batch, Drawing
from sr3_jax.evaluation.edit_damage import margins
from sr3_jax.images.pixels import from_array
from sr3_jax.inference.editor import Editor, kind_of, removes, told
from sr3_jax.inference.edits import EDITS
from sr3_jax.inference.sampling import Sampling


class EditNetwork(Drawing):
    """A checkpoint's network that edits images; see `Drawing`.

    Args:
      editor: The network; those of several rows can share one, and with it what is compiled.
      name: The name of its row.
      edit: What it does to images, one of EDITS. Of images with alpha it fills what is clear.
      samples: How many samples of each image are drawn.
      steps: The number of network evaluations, instead of the checkpoint's own.
      seed: The seed of all samples.
      told: What the network is told of an image; see `Drawing`.

    Raises:
      UserError: The network cannot do with that many steps.
    """

    def __init__(
        self,
        editor: Editor,
        name: str,
        *,
        edit: str,
        samples: int = 1,
        steps: int | None = None,
        seed: int = 0,
        told: Callable[[str], Mapping[str, float]] | None = None,
    ):
        self._editor, self._edit = editor, edit
        super().__init__(self._editor.engine, name, samples, Sampling(steps, seed=seed), told)
        # What is computed of an image depends on where its hole is
        self.compiles_each = editor.kind == "inpaint"
        self.about |= {"edit": edit}

    def draw(self, lr: Batch, ids: Sequence[str], size: tuple[int, int], sample: int) -> np.ndarray:
        """Sample number `sample` of each image, float in [-1, 1]."""
        return np.stack([self._one(one, id, sample) for one, id in zip(lr, ids, strict=True)])

    def _one(self, given: np.ndarray, id: str, sample: int) -> np.ndarray:
        # As `sr3 edit` has it: of flaws that the edit does not remove the network is told there are
        # none, where nothing else is known
        signals = told(self._editor.checkpoint, self._edit, {}) | self._signals(id)
        sampling = self._sampling.with_options({"sample": sample, "signals": signals})
        edit = self._editor.edit()
        if given.shape[-1] == 4:
            given, hole = given[..., :3], given[..., 3] == 0
            if self._edit == "uncrop":
                top, right, bottom, left = margin = margins(hole)
                height, width = hole.shape
                given = given[top : height - bottom, left : width - right]
                edit = self._editor.edit(margin=margin)
            else:
                edit = self._editor.edit(hole)
        return edit.picture(from_array(given, id), id, sampling).colour


def those_for(edit: str, checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
    """The networks that are for an edit, one of EDITS.

    Raises:
      UserError: One is for no edit at all, or not of colour images.
    """
    for checkpoint in checkpoints:
        kind_of(checkpoint)
        if checkpoint.config.model.image_channels != 3:
            raise UserError(f"edits are measured on colour images, and {checkpoint.name} is not")
    return [one for one in checkpoints if kind_of(one) == EDITS[edit].kind and removes(one, edit)]
