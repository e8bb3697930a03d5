r"""Colour, holes, edges or JPEG of natural images of 256×256, as Palette has it (552M parameters).

    sr3 train --config=configs/imagenet_256_edit.py --workdir=DIR
    sr3 train --config=configs/imagenet_256_edit.py:inpaint --workdir=DIR

What is behind the colon is the task; without one it is "colourise":

- "colourise": colours of the luma;
- "inpaint": free-form holes and boxes, on the hole alone;
- "uncrop": one side or all four, on the outside alone;
- "restore_jpeg": JPEG down to quality 5, of three quarters of the images 37 or less (Palette: 5 to
  30), of which the network is not told.

The network is guided-diffusion's of 256² without classes (arXiv 2105.05233), with attention at 32²,
16² and 8²; the loss L2, the batch 1,024, Adam's rate 1e-4 after 10,000 steps, as Palette states
(arXiv 2111.05826). After 1M steps and with 1,000 evaluations, Palette reports an FID against 5,000
images of ImageNet of 15.8 in colouring (a regression 17.9), 5.2 in free-form holes, 6.6 in boxes of
128², 5.8 in uncropping, and 8.3, 5.4 and 4.3 for JPEG of quality 5, 10 and 20.

One step on v5e:16x16, 256 chips with 4 images each, is estimated to take 961 ms (14 % of the chips'
peak, as half of each register is padding) and to fit barely; so 267 hours in all
(benchmarks/tpu.md). `--config.model.remat=(0,1)` makes room. The estimate comes from

    sr3 compile --config=configs/imagenet_256_edit.py:inpaint --topology=v5e:16x16
"""

import sr3_jax.config

TASKS = ("colourise", "inpaint", "uncrop", "restore_jpeg")


def get_config(task="colourise"):
    if task not in TASKS:
        raise ValueError(f"the task {task!r} is not known; there are {', '.join(TASKS)}")
    config = sr3_jax.config.base()
    data, model, sample, train = config.data, config.model, config.sample, config.train
    data.source, data.name = "tfds", "imagenet2012"
    data.hr_size = data.lr_size = 256
    data.max_bad_fraction = 1.0  # small images are part of ImageNet
    if task == "restore_jpeg":
        config.task.kind, config.task.jpeg, config.task.tell_jpeg = "blind", 95.0, False
        config.task.blur = config.task.noise = 0.0
        # one compression of every image; of three quarters of them of quality 37 or less
        config.task.clean, config.task.first_order, config.task.often = 0.0, 0.0, 1.0
        config.task.skew = 0.3
    else:
        config.task.kind = "inpaint" if task == "uncrop" else task
        config.task.holes = (0.0, 0.0, 1.0) if task == "uncrop" else (0.6, 0.4, 0.0)

    model.channels, model.multipliers, model.blocks = 256, (1, 1, 2, 2, 4, 4), 2
    model.attention, model.head_channels, model.dropout = (32, 16, 8), 64, 0.0
    model.gamma_injection, model.rescale_skip = "scale_shift", False
    train.loss, train.batch_size = "l2", 1024
    sample.steps = 1000
    # See benchmarks/tpu.md; without recomputing the finest level it does not fit into 16 GiB a chip
    model.dtype, model.remat = "bfloat16", (0,)
    config.mesh.data, config.mesh.fsdp = 1, -1
    return config
