"""Noisy photographs: what it is worth to be trained on them and told of the noise. For `make results`.

    pip install '.[photos,metrics]'
    python benchmarks/noisy.py      # two minutes

The 15 public photographs of `--protocol=photos`, 32 → 128, with Gaussian noise on the LR images. One sample each.
"""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from results import rounded

from sr3_jax import Upscaler
from sr3_jax.data import degradations
from sr3_jax.data.public_photos import PublicPhotos
from sr3_jax.evaluation import metrics, report
from sr3_jax.evaluation.contenders import fingerprint
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
            out = np.stack([networks[name](one, noise=told, match_input=False, name=str(i)) for i, one in enumerate(lr)])
            row = f"noise {sigma:g}, {name}"
            rows[row] = {
                "psnr": metrics.psnr(out, hr),
                "lpips_vgg": np.asarray(lpips(out, hr, "vgg")),
                "lpips_alexnet": np.asarray(lpips(out, hr, "alexnet")),
            }
            print(row, {metric: values.mean() for metric, values in rows[row].items()}, flush=True)
    kept = {
        "per_image": {row: {metric: values.tolist() for metric, values in found.items()} for row, found in rows.items()},
        "methods": {row: {metric: float(values.mean()) for metric, values in found.items()} for row, found in rows.items()},
        "contenders": {
            name: {"checkpoint": name, "parameters": fingerprint(network.checkpoint)} for name, network in networks.items()
        },
        "versions": report.versions(),
        "command": "python benchmarks/noisy.py",
    }
    KEPT.write_text(json.dumps(rounded(kept), separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
