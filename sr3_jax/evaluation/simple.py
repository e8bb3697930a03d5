"""Strong simple answers to edits: what a program does that has learned nothing.

Functions of uint8 images (h, w, 3), by OpenCV, scikit-image and BM3D. Where a method takes the
strength of a flaw it is told the true one. Its other settings are the best of a grid on the
photographs of the protocol validation-edit (benchmarks/simple.py): the best mean PSNR, or within
0.1 dB of it where LPIPS is clearly better. OpenCV's inpainting has a row for the best of each.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

from sr3_jax.errors import UserError
from sr3_jax.evaluation.contenders import Made

Image = UInt8[np.ndarray, "_h _w 3"]
Given = UInt8[np.ndarray, "_h _w _c"]
Hole = Bool[np.ndarray, "_h _w"]
Number = float | int
Flaws = Mapping[
    str, Number
]  # by signal: blur (sigma, pixels), noise (levels), jpeg (100 - quality)
Answer = Callable[[Given, Flaws], Image]
BM3D = "BM3D"
INSTALL_BM3D = "pip install bm3d"
SEED = 0  # of unsupervised Wiener's samples
# Chosen as the docstring says; strengths are multiples of what each function is told
RADII = (1, 15)  # of OpenCV's inpainting, pixels: the best in LPIPS, and in PSNR of the hole
BILATERAL = (0.3, 3.0)  # sigma of colour, of the distance
NLM_JPEG = (0.04, 0.05)  # luma, chroma
NLM_NOISE = (0.7, 0.7)
BALANCE = 300.0
EDGE = 24  # pixels, mirrored around an image before it is deconvolved, which assumes a torus


def grey(image: UInt8[np.ndarray, "_h _w 1"]) -> Image:
    """The luma as it is, without colour."""
    return np.repeat(image, 3, axis=-1)


def telea(image: Image, hole: Hole, radius: Number = RADII[0]) -> Image:
    """OpenCV's inpainting by fast marching (Telea 2004)."""
    import cv2

    return cv2.inpaint(image, _mask(hole), radius, cv2.INPAINT_TELEA)


def navier_stokes(image: Image, hole: Hole, radius: Number = RADII[0]) -> Image:
    """OpenCV's inpainting by fluid dynamics (Bertalmio et al. 2001)."""
    import cv2

    return cv2.inpaint(image, _mask(hole), radius, cv2.INPAINT_NS)


def biharmonic(image: Image, hole: Hole) -> Image:
    """scikit-image's inpainting by biharmonic equations; it has no settings."""
    from skimage import restoration

    made = _uint8(restoration.inpaint_biharmonic(image, hole, channel_axis=-1))
    return np.where(hole[..., None], made, image)


def bilateral(
    image: Image, jpeg: Number, colour: Number = BILATERAL[0], space: Number = BILATERAL[1]
) -> Image:
    """OpenCV's bilateral filter.

    Args:
      image: The image.
      jpeg: The strength of its compression, 100 - quality.
      colour: Sigma of the difference in colour, levels for each unit of `jpeg`.
      space: Sigma of the distance, in pixels.
    """
    import cv2

    return cv2.bilateralFilter(image, -1, colour * jpeg, space, borderType=cv2.BORDER_REFLECT)


def non_local_means(image: Image, strength: Number, colour: Number) -> Image:
    """OpenCV's non-local means for colour images, with its usual windows of 7 and 21 pixels.

    Args:
      image: The image.
      strength: How much is taken for noise in the luma, in levels.
      colour: ... in the chroma.
    """
    import cv2

    # It takes images in OpenCV's order of channels
    reversed_ = np.ascontiguousarray(image[..., ::-1])
    made = cv2.fastNlMeansDenoisingColored(reversed_, None, strength, colour, 7, 21)
    return np.ascontiguousarray(made[..., ::-1])


def non_local_means_jpeg(
    image: Image, jpeg: Number, strength: Number = NLM_JPEG[0], colour: Number = NLM_JPEG[1]
) -> Image:
    """Non-local means of so many levels for each unit of `jpeg`, 100 - quality."""
    return non_local_means(image, strength * jpeg, colour * jpeg)


def non_local_means_noise(
    image: Image, noise: Number, strength: Number = NLM_NOISE[0], colour: Number = NLM_NOISE[1]
) -> Image:
    """Non-local means of so many times the true standard deviation of the noise."""
    return non_local_means(image, strength * noise, colour * noise)


def bm3d(image: Image, noise: Number) -> Image:
    """BM3D for colour images (Dabov et al. 2007), with the true noise and its own settings."""
    from bm3d import bm3d_rgb

    return _uint8(bm3d_rgb(image / 255, noise / 255))


def wiener(image: Image, blur: Number, noise: Number, balance: Number = BALANCE) -> Image:
    """scikit-image's Wiener filter, with the true kernel.

    Args:
      image: The image.
      blur: Sigma of the Gaussian that has blurred it, in pixels.
      noise: Its noise, in levels.
      balance: The weight of smoothness, for each unit of the noise's variance in [0, 1].
    """
    from skimage import restoration

    weight = balance * (noise / 255) ** 2
    return _deconvolved(image, lambda part: restoration.wiener(part, gaussian(blur), weight))


def unsupervised_wiener(image: Image, blur: Number) -> Image:
    """scikit-image's Wiener filter that finds the noise itself, with the true kernel."""
    from skimage import restoration

    return _deconvolved(
        image,
        lambda part: restoration.unsupervised_wiener(part, gaussian(blur), rng=SEED)[0],
    )


def gaussian(sigma: Number) -> Float[np.ndarray, "_k _k"]:
    """A Gaussian blur's kernel, of four sigma to each side."""
    radius = int(np.ceil(4 * sigma))
    line = np.exp(-0.5 * np.square(np.arange(-radius, radius + 1) / sigma))
    kernel = np.outer(line, line)
    return kernel / kernel.sum()


def _deconvolved(image: Image, function: Callable[[np.ndarray], np.ndarray]) -> Image:
    """Each channel, in [0, 1] and mirrored at its edges, by a function."""
    wide = np.pad(image / 255, ((EDGE, EDGE), (EDGE, EDGE), (0, 0)), mode="symmetric")
    made = np.stack([function(wide[..., channel]) for channel in range(3)], axis=-1)
    return _uint8(made[EDGE:-EDGE, EDGE:-EDGE])


def _uint8(image: np.ndarray) -> Image:
    """An image in [0, 1], clipped and rounded."""
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def _mask(hole: Hole) -> UInt8[np.ndarray, "_h _w"]:
    return hole.astype(np.uint8)


def _filled(function: Callable[..., Image], **options: Number) -> Answer:
    return lambda given, flaws: function(
        np.ascontiguousarray(given[..., :3]), given[..., 3] == 0, **options
    )


HOLES: dict[str, Answer] = {
    f"{name} (OpenCV), radius {radius}": _filled(function, radius=radius)
    for name, function in (("Telea", telea), ("Navier-Stokes", navier_stokes))
    for radius in RADII
} | {"biharmonic (scikit-image)": _filled(biharmonic)}
# By the edit that is measured and by the name of the row
ANSWERS: dict[str, dict[str, Answer]] = {
    "colourise": {"grey": lambda given, flaws: grey(given)},
    "inpaint": HOLES,
    "uncrop": HOLES,
    "restore_jpeg": {
        "the JPEG itself": lambda given, flaws: given,
        "bilateral filter (OpenCV), told": lambda given, flaws: bilateral(given, flaws["jpeg"]),
        "non-local means (OpenCV), told": lambda given, flaws: non_local_means_jpeg(
            given, flaws["jpeg"]
        ),
    },
    "denoise": {
        "the input itself": lambda given, flaws: given,
        "non-local means (OpenCV), told": lambda given, flaws: non_local_means_noise(
            given, flaws["noise"]
        ),
        f"{BM3D}, told": lambda given, flaws: bm3d(given, flaws["noise"]),
    },
    "deblur": {
        "the input itself": lambda given, flaws: given,
        "Wiener (scikit-image), told": lambda given, flaws: wiener(
            given, flaws["blur"], flaws["noise"]
        ),
        "unsupervised Wiener (scikit-image), told": lambda given, flaws: unsupervised_wiener(
            given, flaws["blur"]
        ),
    },
    "restore": {"the input itself": lambda given, flaws: given},
}


class Simple:
    """A simple answer as a contender.

    Args:
      name: The name of its row.
      answer: What it makes of an image and of its flaws.
      told: The flaws of an image by its id.
    """

    def __init__(self, name: str, answer: Answer, told: Callable[[str], Flaws]):
        self.about: dict[str, Any] = {"simple": name, "versions": _versions()}
        self.rows, self._answer, self._told = [name], answer, told

    def make(self, lr: UInt8[np.ndarray, "n _h _w _c"], ids: Sequence[str], size: Any) -> Made:
        """One image after the other."""
        made = [self._answer(one, self._told(id)) for one, id in zip(lr, ids, strict=True)]
        return Made({self.rows[0]: np.stack(made)})


def _versions() -> dict[str, str]:
    names = {"cv2": "opencv-python-headless", "skimage": "scikit-image", "bm3d": "bm3d"}
    return {name: version(package) for name, package in names.items() if find_spec(name)}


def contenders(edit: str, told: Callable[[str], Flaws]) -> list[Simple]:
    """The simple answers to an edit that are installed.

    Raises:
      UserError: The extra [photos] is not installed.
    """
    if not (find_spec("cv2") and find_spec("skimage")):
        raise UserError(
            "what networks of edits are measured beside needs OpenCV and scikit-image; run: "
            "pip install 'sr3_jax[photos]'"
        )
    return [
        Simple(name, answer, told)
        for name, answer in ANSWERS[edit].items()
        if not name.startswith(BM3D) or find_spec("bm3d")
    ]


def missing(edit: str) -> dict[str, str]:
    """Of the simple answers to an edit that are not installed, why there is no row."""
    lacking = any(name.startswith(BM3D) for name in ANSWERS[edit]) and not find_spec("bm3d")
    return {BM3D: f"it is not installed; run: {INSTALL_BM3D}"} if lacking else {}
