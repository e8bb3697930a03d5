r"""Photographs of unknown quality, 4×: configs/photos_4x.py, blind and told (SR3+), 8.7 M weights.

The LR image is blurred, resized, noisy and compressed in ways that nobody knows (tasks/blind.py).
The network may be told of blur, noise and JPEG, and has learned to do without. It starts from the
network that learned clean reductions:

    sr3 prepare photos --output=runs/photos-256 --encoding=raw
    sr3 train --config=configs/photos_4x_blind.py --workdir=runs/photos-4x-blind

The prior, which is to say how strong what is, and how often, is our own: most photographs are good
ones, a little soft, of quality 75 to 95. Others are behind a colon:

    sr3 train --config=configs/photos_4x_blind.py:real-esrgan --workdir=…

At the learning rate of configs/photos_4x.py single batches had losses of millions: without
normalisation, the new embeddings scale every block. So it is half of that, after a longer warm-up.
The shipped `photos-4x-blind` is the average of weights at step 1,787, before the network was told
of noise-conditioning augmentation. Results are not matched with the input: what the network has
removed would come back.
"""

import runpy
from pathlib import Path

OURS = {"blur": 1.6, "noise": 15.0, "jpeg": 70.0, "augment": 25.0}
# Real-ESRGAN's published ranges (arXiv 2107.10833, options of its ×4 network), as far as our
# corruption has them: blur up to 3 HR pixels, noise to 30 levels, half of it Poisson's, JPEG's
# quality from 30, all of it twice, evenly drawn, and no image clean. There, quality ends at 95,
# pictures may also become larger in between, and the second blur is left out of a fifth.
REAL_ESRGAN = {
    "blur": 0.75,
    "noise": 30.0,
    "jpeg": 70.0,
    "augment": 0.0,
    "clean": 0.0,
    "first_order": 1.0,
    "often": 1.0,
    "skew": 1.0,
    "shapes": (0.405, 0.225, 0.135, 0.135, 0.1),
    "methods": (1 / 3, 1 / 3, 1 / 3, 0.0),
    "grey_noise": 0.4,
    "shot_noise": 0.5,
    "subsampled": 1.0,
}
# SR3+ (arXiv 2302.07864) takes Real-ESRGAN's corruption; instead of its noise there is that of
# noise-conditioning augmentation, which the network is told, and told nothing else.
SR3_PLUS = REAL_ESRGAN | {"noise": 0.0, "augment": 64.0, "tell_blur": False, "tell_jpeg": False}
PRIORS = {"ours": OURS, "real-esrgan": REAL_ESRGAN, "sr3-plus": SR3_PLUS}


def get_config(prior="ours"):
    if prior not in PRIORS:
        raise ValueError(f"the prior {prior!r} is not known; there are {', '.join(PRIORS)}")
    # the file beside this one, wherever both are
    config = runpy.run_path(str(Path(__file__).with_name("photos_4x.py")))["get_config"]()
    task = config.task
    task.kind, task.tell_blur = "blind", True
    task.update(PRIORS[prior])
    config.sample.match_input = False
    train = config.train
    train.init_from, train.learning_rate, train.warmup_steps = "photos-4x-clean", 2e-4, 500
    return config
