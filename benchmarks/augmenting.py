"""What `--augment` does to photographs with medium blur, noise and JPEG, as numbers and a picture.

    pip install '.[photos,metrics]'
    python benchmarks/augmenting.py     # for `make results`

The images are those of `--protocol=photos-medium`; nothing else is told.
"""

import json
from pathlib import Path

import numpy as np
from results import rounded

from sr3_jax import Upscaler
from sr3_jax.checkpoints.checkpoint import fingerprint
from sr3_jax.data.public_photos import PublicPhotos
from sr3_jax.evaluation import report
from sr3_jax.evaluation.damage import damaged, recipe
from sr3_jax.images import arrays, sheet
from sr3_jax.metrics import distortion
from sr3_jax.metrics.dists import dists
from sr3_jax.metrics.lpips import lpips

KEPT = Path(__file__).parent.parent / "docs" / "results" / "augment.json"
NETWORK = "photos-4x"
LEVELS = (0, 5, 10, 20)
SHOWN = (0, 4, 6, 10)  # numbers of photographs


def main() -> None:
    photographs = PublicPhotos(256)
    images = [photographs[i] for i in range(len(photographs))]
    hr = np.stack([image.pixels for image in images])
    lr = np.stack([damaged(image.pixels, 4, recipe("medium", image.id)) for image in images])
    network = Upscaler.load(NETWORK)
    methods, columns = {}, {"given": [lr[i] for i in SHOWN]}
    for level in LEVELS:
        made = np.stack(
            [
                network(one, augment=level, name=image.id)
                for one, image in zip(lr, images, strict=True)
            ]
        )
        methods[f"augment {level}"] = {
            "psnr": float(distortion.psnr(made, hr).mean()),
            "lpips_vgg": float(lpips(made, hr, "vgg").mean()),
            "lpips_alexnet": float(lpips(made, hr, "alexnet").mean()),
            "dists": float(dists(made, hr).mean()),
        }
        print(level, methods[f"augment {level}"], flush=True)
        columns[f"augment {level}"] = [made[i] for i in SHOWN]
    kept = {
        "methods": methods,
        "contenders": {
            NETWORK: {"checkpoint": NETWORK, "parameters": fingerprint(network.checkpoint)}
        },
        "versions": report.versions(),
        "command": "python benchmarks/augmenting.py",
    }
    KEPT.write_text(json.dumps(rounded(kept), separators=(",", ":")) + "\n")
    columns["HR"] = [hr[i] for i in SHOWN]
    arrays.write(KEPT.with_suffix(".jpg"), sheet.grid(columns, cell=256))


if __name__ == "__main__":
    main()
