"""Noisy photographs: what it is worth to be trained on them and told of the noise. For `make results`.

    pip install '.[photos,metrics]'
    python benchmarks/noisy.py      # two minutes

The 15 public photographs of `--protocol=photos`, 32 → 128, with Gaussian noise on the LR images. One sample each.
"""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from sr3_jax import Upscaler
from sr3_jax.data import degradations
from sr3_jax.data.public_photos import PublicPhotos
from sr3_jax.evaluation import metrics
from sr3_jax.evaluation.lpips import lpips

KEPT = Path(__file__).parent.parent / "docs" / "results" / "noisy.json"
PLAIN, NOISY = "photos-4x", "photos-4x-noisy"


def main() -> None:
    photographs = PublicPhotos(128)
    hr = np.stack([photographs[i].pixels for i in range(len(photographs))])
    clean = np.asarray(degradations.resize(degradations.to_float(jnp.asarray(hr)), 32, 32))
    networks = {name: Upscaler.load(name) for name in (PLAIN, NOISY)}
    rows = {}
    for sigma in (0.0, 4.0, 8.0, 12.0):
        noise = np.random.default_rng(0).normal(size=clean.shape) * sigma / 127.5
        lr = np.asarray(degradations.to_uint8(jnp.asarray(clean + noise, jnp.float32)))
        for name, told in ((PLAIN, 0.0), (NOISY, sigma)):
            out = networks[name](lr, noise=told, match_input=False)
            row = f"noise {sigma:g}, {name}"
            rows[row] = {
                "psnr": float(metrics.psnr(out, hr).mean()),
                "lpips_vgg": float(lpips(out, hr, "vgg").mean()),
                "lpips_alexnet": float(lpips(out, hr, "alexnet").mean()),
            }
            print(row, rows[row], flush=True)
    methods = {row: {metric: float(f"{value:.5g}") for metric, value in values.items()} for row, values in rows.items()}
    KEPT.write_text(json.dumps({"methods": methods, "command": "python benchmarks/noisy.py"}, indent=1) + "\n")


if __name__ == "__main__":
    main()
