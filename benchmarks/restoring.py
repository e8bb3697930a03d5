"""Imperfect photographs: what it is worth to be trained on noise and blur, and told of them.

For `make results`.

    pip install '.[photos,metrics]'
    python benchmarks/restoring.py                          # four minutes
    python benchmarks/restoring.py runs/photos-4x-restore   # another network: printed, not kept

The images are the 15 public photographs of `--protocol=photos`, 32 → 128. The LR image is blurred,
then made noisy, then rounded. Each is enlarged by one sample, and by Real-ESRGAN too where it is
installed as rivals/README.md says.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from results import RIVALS, has, rounded

from sr3_jax import Upscaler
from sr3_jax.checkpoints.checkpoint import fingerprint
from sr3_jax.data.public_photos import PublicPhotos
from sr3_jax.evaluation import report
from sr3_jax.images import arrays, sheet
from sr3_jax.metrics import distortion
from sr3_jax.metrics.lpips import lpips
from sr3_jax.tasks import operations

ROOT = Path(__file__).parent
KEPT = ROOT.parent / "docs" / "results" / "restoring.json"
PLAIN, RESTORING, RIVAL = "photos-4x-clean", "photos-4x-restore", "Real-ESRGAN"
# of noise, in 8-bit levels, and of blur, in LR pixels
CASES = ((0, 0), (4, 0), (8, 0), (12, 0), (0, 0.5), (0, 1.0), (0, 1.5), (4, 0.8))
SHOWN = {(8, 0): 4, (0, 1.0): 7, (4, 0.8): 11}  # and the number of a photograph


def flawed(clean: np.ndarray, noise: float, blur: float) -> np.ndarray:
    """LR images (n, h, w, c) in [-1, 1] as 8-bit ones with these flaws."""
    blurred = operations.gaussian_blur(jnp.asarray(clean), jnp.full(len(clean), blur, jnp.float32))
    drawn = np.random.default_rng(0).normal(size=clean.shape) * noise / 127.5
    return np.asarray(operations.to_uint8(blurred + jnp.asarray(drawn, jnp.float32)))


def ours(network: Upscaler, lr: np.ndarray, noise: float, blur: float) -> np.ndarray:
    strongest = {signal.name: signal.high for signal in network.checkpoint.method.task.signals}
    told = {
        name: min(value, strongest.get(name, 0.0))
        for name, value in (("noise", noise), ("blur", blur))
    }
    return np.stack(
        [network(one, **told, match_input=False, name=str(i)) for i, one in enumerate(lr)]
    )


def theirs(lr: np.ndarray) -> np.ndarray:
    """Real-ESRGAN's, which is told nothing."""
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "given", Path(folder) / "made"
        for i, one in enumerate(lr):
            arrays.write(given / f"{i}.png", one)
        subprocess.run(
            [sys.executable, ROOT / "rivals" / RIVALS[RIVAL], given, made],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        return np.stack([arrays.read(made / f"{i}.png", 3).pixels for i in range(len(lr))])


def main() -> None:
    other = sys.argv[1:]
    photographs = PublicPhotos(128)
    hr = np.stack([photographs[i].pixels for i in range(len(photographs))])
    clean = np.asarray(operations.resize(operations.to_float(jnp.asarray(hr)), 32, 32))
    networks = {name: Upscaler.load(name) for name in (PLAIN, *(other or [RESTORING]))}
    methods = {
        name: lambda *given, network=network: ours(network, *given)
        for name, network in networks.items()
    }
    if has(RIVAL):
        methods[RIVAL] = lambda lr, noise, blur: theirs(lr)
    names, rows, columns = [], {}, {name: [] for name in ("given", *methods, "HR")}
    for noise, blur in CASES:
        lr = flawed(clean, noise, blur)
        for name, method in methods.items():
            out = method(lr, noise, blur)
            row = f"noise {noise:g}, blur {blur:g}, {name}"
            rows[row] = {
                "psnr": distortion.psnr(out, hr),
                "lpips_vgg": np.asarray(lpips(out, hr, "vgg")),
                "lpips_alexnet": np.asarray(lpips(out, hr, "alexnet")),
            }
            print(
                row,
                {metric: round(float(values.mean()), 3) for metric, values in rows[row].items()},
                flush=True,
            )
            if (noise, blur) in SHOWN:
                columns[name].append(out[SHOWN[noise, blur]])
        if (noise, blur) in SHOWN:
            columns["given"].append(lr[SHOWN[noise, blur]])
            columns["HR"].append(hr[SHOWN[noise, blur]])
            names.append(f"noise {noise:g}/blur {blur:g}")
    if other:
        return
    kept = {
        "per_image": {
            row: {metric: values.tolist() for metric, values in found.items()}
            for row, found in rows.items()
        },
        "methods": {
            row: {metric: float(values.mean()) for metric, values in found.items()}
            for row, found in rows.items()
        },
        "contenders": {
            name: {"checkpoint": name, "parameters": fingerprint(network.checkpoint)}
            for name, network in networks.items()
        },
        "versions": report.versions(),
        "command": "python benchmarks/restoring.py",
    }
    KEPT.write_text(json.dumps(rounded(kept), separators=(",", ":")) + "\n")
    arrays.write(KEPT.with_suffix(".jpg"), sheet.grid(columns, cell=256, names=names))


if __name__ == "__main__":
    main()
