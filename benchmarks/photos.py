"""photos-4x beside bicubic on photographs that it has never seen: a table, and docs/photos.png.

    pip install '.[metrics]' scikit-image
    python benchmarks/photos.py [--checkpoint=photos-4x] [--output=docs/photos.png]     # a minute on two cores

Eight crops of 128², from scikit-image's photographs reduced twice; made four times smaller by bicubic, rounded to 8 bits, and
enlarged again.
"""

import argparse
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import skimage.data
from PIL import Image

from sr3_jax import Upscaler, images, sheet
from sr3_jax.data import degradations
from sr3_jax.evaluation import metrics
from sr3_jax.evaluation.contenders import to_uint8
from sr3_jax.evaluation.lpips import lpips

BOXES = {  # top, left
    "astronaut": ((64, 0), (0, 128)),
    "coffee": ((30, 80), (60, 160)),
    "chelsea": ((10, 60), (20, 95)),
    "rocket": ((40, 80), (80, 140)),
}


def crops() -> np.ndarray:
    found = []
    for name, places in BOXES.items():
        photo = Image.fromarray(getattr(skimage.data, name)())
        small = photo.resize((photo.width // 2, photo.height // 2), Image.Resampling.BICUBIC)
        for top, left in places:
            top, left = min(top, small.height - 128), min(left, small.width - 128)
            found.append(np.asarray(small.crop((left, top, left + 128, top + 128))))
    return np.stack(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="photos-4x")
    parser.add_argument("--output", default="docs/photos.png", type=Path)
    options = parser.parse_args()
    hr = crops()
    lr = to_uint8(degradations.degrade(degradations.to_float(jnp.asarray(hr)), 32))
    upscaler = Upscaler.load(options.checkpoint)
    rows = {"bicubic": to_uint8(degradations.upsample(degradations.to_float(jnp.asarray(lr)), 128))}
    for steps in (4, 8, 16, 32):
        rows[f"{options.checkpoint}, {steps} evaluations"] = upscaler(lr, steps=steps)
    raw = upscaler(lr, match_input=False)
    rows[f"{options.checkpoint}, {upscaler.checkpoint.config.sample.steps} evaluations, --no-match-input"] = raw
    print("| 8 photographs, 32 → 128 | PSNR ↑ | SSIM ↑ | LPIPS (VGG) ↓ | LPIPS (AlexNet) ↓ | consistency, dB ↑ |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, pictures in rows.items():
        scores = {key: values.mean() for key, values in metrics.scores(pictures, hr, lr).items()}
        vgg, alexnet = (lpips(pictures, hr, network).mean() for network in ("vgg", "alexnet"))
        print(
            f"| {name} | {scores['psnr']:.2f} | {scores['ssim']:.3f} | {vgg:.3f} | {alexnet:.3f} | "
            f"{scores['consistency_db']:.1f} |"
        )
    shown = [0, 3, 5, 7]
    best = rows[f"{options.checkpoint}, {upscaler.checkpoint.config.sample.steps} evaluations"]
    columns = {"given": lr, "bicubic": rows["bicubic"], options.checkpoint: best, "truth": hr}
    images.write(options.output, sheet.grid({title: batch[shown] for title, batch in columns.items()}, cell=256))


if __name__ == "__main__":
    main()
