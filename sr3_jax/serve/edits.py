"""The images that `sr3 serve --task=…` edits: what was uploaded, and the queue of edits of it."""

import secrets
import threading
from dataclasses import dataclass, field

from sr3_jax.images import files
from sr3_jax.images.files import File
from sr3_jax.inference import holes
from sr3_jax.inference.editor import Editor, told
from sr3_jax.inference.edits import EDITS
from sr3_jax.inference.holes import Margin
from sr3_jax.inference.sampling import Sampling
from sr3_jax.serve.jobs import Job, Pictures
from sr3_jax.serve.queues import KEPT, KEPT_BYTES
from sr3_jax.tasks.task import Signal


@dataclass(eq=False, kw_only=True)
class Upload:
    """An image file that was sent once, for any number of edits."""

    name: str
    data: bytes
    size: tuple[int, int]  # (height, width), upright
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))

    def decoded(self) -> File:
        """The image, anew each time: the file is smaller, so that is what is kept."""
        return files.parse(self.data, self.name)


class Edits(Pictures):
    """The last uploads, and a queue of edits of them. Safe to use from threads.

    Args:
      editor: What edits them.
      task: What it is used for, of EDITS.
      waiting: How many edits may wait.
      pixels: How many pixels a result may have.

    Raises:
      UserError: The editor's network is for something else.
    """

    def __init__(self, editor: Editor, task: str, *, waiting: int, pixels: int):
        told(editor.checkpoint, task, {})
        self.editor, self.task = editor, task
        self._uploads: dict[str, Upload] = {}
        self._uploading = threading.Lock()
        super().__init__(waiting=waiting, pixels=pixels)

    @property
    def fills(self) -> bool:
        """Whether it takes masks and margins."""
        return self.editor.kind == "inpaint"

    @property
    def signals(self) -> list[Signal]:
        """The flaws that the network may be told of for this task."""
        return [
            signal
            for signal in self.editor.checkpoint.method.task.signals
            if self.editor.kind == "restore"
            and signal.removed
            and not signal.classes
            and signal.name not in EDITS[self.task].absent
        ]

    def upload(self, data: bytes, name: str) -> Upload:
        """Takes an image file, and forgets the oldest ones beyond what may be kept.

        Raises:
          TooLarge: It has too many pixels.
          UserError: It is no image that can be read.
        """
        upload = Upload(name=name, data=data, size=files.header(data, name))
        self.check_pixels(name, upload.size, upload.size)
        with self._uploading:  # one by one, so that many at a time take no more memory
            upload.decoded()  # can it be read to its end?
            self._uploads[upload.id] = upload
            kept = list(self._uploads.values())
            while len(kept) > KEPT or (
                len(kept) > 1 and sum(len(one.data) for one in kept) > KEPT_BYTES
            ):
                self.forget(kept.pop(0))
        return upload

    def uploaded(self, id: str) -> Upload | None:
        """The upload with that id; None if it is not known, or not any more."""
        return self._uploads.get(id)

    def forget(self, upload: Upload) -> None:
        """Forgets an upload; edits of it that wait are made all the same."""
        self._uploads.pop(upload.id, None)

    def add(
        self, upload: Upload, sampling: Sampling, mask: bytes = b"", margin: Margin | tuple[()] = ()
    ) -> Job:
        """Takes an edit of an uploaded image.

        Args:
          upload: The image.
          sampling: How it is drawn.
          mask: An image file of the same size, white where it is to be filled; empty for none.
          margin: Pixels to add above, at the right, below and at the left; empty for none.

        Raises:
          TooLarge: The result would have too many pixels.
          TooBusy: Too many images are waiting.
          UserError: The mask or the margin does not fit, or `sampling` cannot be used.
        """
        with self._uploading:  # one by one, as above
            self.check_room()
            height, width = upload.size
            # Before arrays of that size are made
            top, right, bottom, left = margin or (0, 0, 0, 0)
            made = height + top + bottom, width + left + right
            self.check_pixels(upload.name, upload.size, made)
            signals = told(self.editor.checkpoint, self.task, sampling.told)
            hole = holes.of_mask_bytes(mask, height, width) if mask else None
            edit = self.editor.edit(hole, margin)
            sampling = sampling.with_options(signals)
            cost = edit.cost(height, width, sampling)
            return self.take(edit, upload.data, upload.name, sampling, cost)
