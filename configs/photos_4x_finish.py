r"""The finish of configs/photos_4x_blind.py: one evaluation, sharp, 4×, 8.7 M weights.

The student of the blind network learns three things at once: to go in one evaluation where its
teacher goes in two of DDIM; to look like the photograph, by LPIPS on features of VGG16; and to look
like any photograph, by a discriminator on the same features. It needs the extra [metrics], for the
weights of VGG16:

    sr3 train --config=configs/photos_4x_finish.py --workdir=runs/photos-4x-finish

The teacher is the training of that config, in runs/photos-4x-blind.

The weight of LPIPS outweighs the distance to the teacher by far, which only keeps the colours and
the large shapes. The discriminator's weight is such that at first it changes the image about a
sixth as much as LPIPS does. The distance is L1: with L2, twice the learning rate and twice the
discriminator's weight, single batches had losses of a million after 240 steps. The shipped
`photos-4x` began with 200 steps of that, and went on from their average with these.
"""

import runpy
from pathlib import Path


def get_config():
    # the file beside this one, wherever both are
    config = runpy.run_path(str(Path(__file__).with_name("photos_4x_blind.py")))["get_config"]()
    sample, train = config.sample, config.train
    config.objective = "distill"
    sample.sampler, sample.schedule, sample.steps = "ddim", "respaced", 1
    train.teacher, train.teacher_steps, train.init_from = "runs/photos-4x-blind", 2, ""
    train.perceptual_weight, train.adversarial_weight, train.loss = 100.0, 4.0, "l1"
    train.learning_rate, train.warmup_steps, train.ema_decay = 1e-4, 50, 0.998
    return config
