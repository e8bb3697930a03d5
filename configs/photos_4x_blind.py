r"""Photographs of unknown quality, 4×: configs/photos_4x.py, blind and told (SR3+), 8.7 M weights.

The LR image is blurred, resized, noisy and compressed in ways that nobody knows (tasks/blind.py).
The network may be told of blur, noise and JPEG, and has learned to do without. It starts from the
network that learned clean reductions:

    sr3 prepare photos --output=runs/photos-256 --encoding=raw
    sr3 train --config=configs/photos_4x_blind.py --workdir=runs/photos-4x-blind

At the learning rate of configs/photos_4x.py single batches had losses of millions: without
normalisation, the new embeddings scale every block. So it is half of that, after a longer warm-up.
The shipped `photos-4x-blind` is the average of weights at step 1,787. Results are not matched with
the input: what the network has removed would come back.
"""

import runpy
from pathlib import Path


def get_config():
    # the file beside this one, wherever both are
    config = runpy.run_path(str(Path(__file__).with_name("photos_4x.py")))["get_config"]()
    task = config.task
    task.kind, task.tell_blur = "blind", True
    task.blur, task.noise, task.jpeg, task.augment = 1.6, 15.0, 70.0, 25.0
    config.sample.match_input = False
    train = config.train
    train.init_from, train.learning_rate, train.warmup_steps = "photos-4x", 2e-4, 500
    return config
