"""Metrics of colour: how far it is from the right one, and how much of it there is.

They take uint8 images (n, h, w, 3) in sRGB, and return values (n,).
"""

import numpy as np
from jaxtyping import Float, UInt8

Batch = UInt8[np.ndarray, "n h w 3"]
PerImage = Float[np.ndarray, " n"]


def ciede2000(images: Batch, references: Batch) -> PerImage:
    """The mean CIEDE2000 colour difference (Sharma et al. 2005) over the pixels; 0 for equal ones.

    Differences of about 1 can just be seen. It is scikit-image's, in CIELAB for the light D65.
    """
    from skimage import color  # of the extra [photos]

    pairs = zip(images, references, strict=True)
    return np.array(
        [
            color.deltaE_ciede2000(color.rgb2lab(ours), color.rgb2lab(theirs)).mean()
            for ours, theirs in pairs
        ]
    )


def colourfulness(images: Batch) -> PerImage:
    """How colourful images are (Hasler & Süsstrunk 2003, M^(3)); 0 for grey ones.

    About 15 is slightly, 45 quite and 80 highly colourful, as people rate it.
    """
    red, green, blue = np.moveaxis(np.asarray(images, np.float64), -1, 0)
    opponents = np.stack([red - green, (red + green) / 2 - blue])
    spread = np.sqrt(opponents.var(axis=(2, 3)).sum(axis=0))
    mean = np.sqrt(np.square(opponents.mean(axis=(2, 3))).sum(axis=0))
    return spread + 0.3 * mean
