"""Whether an image still shows the same person, by the embeddings of a face recognition network.

Any such network will do (`Embed`); `face_network.py` is one. A number has a meaning only together
with its network and the size of its gallery, and beside the same numbers of the HR images and of
plain interpolation, which are its ceiling and its floor.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence

import numpy as np
from jaxtyping import Float, UInt8

from sr3_jax.errors import UserError

Vectors = Float[np.ndarray, "n d"]
PerImage = Float[np.ndarray, " n"]
# From images of any size, in 1 or 3 channels, to their embeddings
Embed = Callable[[UInt8[np.ndarray, "n h w c"]], Vectors]


def cosine(ours: Vectors, theirs: Vectors) -> PerImage:
    """The cosine in [-1, 1] between each image's embedding and that of its own HR image.

    It is 1 for equal embeddings, and 0 if one of them is all zeros. By some networks even strangers
    are much alike (by dlib's, about 0.9), so it can compare methods by one network, and no more.
    """
    a, b = (np.asarray(vectors, np.float64) for vectors in (ours, theirs))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return (a * b).sum(axis=1) / np.maximum(lengths, np.finfo(np.float64).tiny)


def rank_1(probes: Vectors, gallery: Vectors, people: Sequence[Hashable]) -> PerImage:
    """1 where the nearest of all other HR images shows the same person, else 0.

    The mean over the images is the rate of identification. Nearest is by Euclidean distance, for
    which networks like dlib's are trained. An image's own HR image is left out, and a tie between
    two people counts as not found. The size of the gallery belongs beside the number: the more
    people there are, the harder each is to find.

    Args:
      probes: The embeddings of n images.
      gallery: The embeddings of their HR images, in the same order.
      people: Who is on each image.

    Raises:
      UserError: Somebody has just one image, and so could never be found.
    """
    if len(people) != len(gallery):
        raise ValueError(f"{len(people)} labels of {len(gallery)} images")
    alone = [person for person, count in Counter(people).items() if count == 1]
    if alone:
        others = f", as {len(alone) - 1} more do" if len(alone) > 1 else ""
        raise UserError(
            "rank-1 identification needs at least 2 images of each person; "
            f"{alone[0]} has 1{others}"
        )
    numbers = {person: number for number, person in enumerate(dict.fromkeys(people))}
    labels = np.array([numbers[person] for person in people], int)
    wanted, found = np.asarray(gallery, np.float64), np.zeros(len(labels))
    for i, probe in enumerate(np.asarray(probes, np.float64)):
        distances = np.square(wanted - probe[None]).sum(axis=1)
        distances[i] = np.inf
        same = labels == labels[i]
        found[i] = distances[same].min() < distances[~same].min(initial=np.inf)
    return found
