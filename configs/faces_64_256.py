r"""Faces 64×64 → 256×256: the second stage of the paper's cascade 64 → 256 → 1024.

    sr3 train --config=configs/faces_64_256.py --workdir=DIR \
        --config.data.folder=FFHQ --config.data.eval_folder=CELEBA_HQ

The network is that of configs/imagenet_64_256.py, as the paper has no other of these sizes. In
training the LR image is blurred (the paper's table 5; how much, it does not say: half of the
examples, as in Cascaded Diffusion, by up to one LR pixel here), and noise may hide some of it,
which the network is told (`sr3 generate --augment`).
"""

import runpy
from pathlib import Path


def get_config():
    # the file beside this one, wherever both are
    config = runpy.run_path(str(Path(__file__).with_name("imagenet_64_256.py")))["get_config"](
        "cascade"
    )
    config.data.source, config.data.name, config.data.max_bad_fraction = "folder", "", 0.01
    return config
