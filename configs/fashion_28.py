"""Fashion-MNIST 28×28 by class in one stage: what the cascade of configs/fashion_14.py is held to.

sr3 train --config=configs/fashion_28.py --workdir=runs/fashion-28-alone
"""

import runpy
from pathlib import Path


def get_config():
    # the file beside this one, wherever both are
    config = runpy.run_path(str(Path(__file__).with_name("fashion_14.py")))["get_config"]()
    config.data.hr_size = config.data.lr_size = 28
    config.model.space_to_depth = 2  # on a grid of 14×14, as the first stage of the cascade
    return config
