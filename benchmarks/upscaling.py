"""What `sr3 upscale` and an Upscaler cost beside the network itself.

    python benchmarks/upscaling.py starting
    python benchmarks/upscaling.py calling
    python benchmarks/upscaling.py large
    python benchmarks/upscaling.py pictures [CHECKPOINT …]

"Starting" is `sr3 upscale` of a 16×16 face in 8 steps, without and with compiled programs.
"Calling" is a warm Upscaler, per step and image, against the network's bare forward pass. "Large"
is the memory that a 4,000×3,000 result takes in tiles. "Pictures" are seconds a megapixel, by the
size of the tiles, beside Real-ESRGAN.

"Calling" takes turns within one process: what the network costs by itself (compiled, its parameters
and inputs on the device), and a whole call, from a NumPy image to a NumPy image, divided by its
steps and images.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

STEPS = 8


def sr3(*arguments: str, **environment: str) -> float:
    """Seconds that a command takes."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "sr3_jax", *arguments]
    subprocess.run(command, check=True, env=os.environ | environment, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def face(place: Path) -> Path:
    from PIL import Image

    path = place / "face.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16), np.uint8)).save(path)
    return path


def starting(place: Path) -> None:
    arguments = (
        "upscale",
        str(face(place)),
        f"--output={place / 'out.png'}",
        "--overwrite",
        f"--steps={STEPS}",
    )
    seconds = [
        sr3(*arguments, "--checkpoint=faces-16-64", XDG_CACHE_HOME=str(place / f"cache-{number}"))
        for number in (0, 1, 2, 0, 1, 2)
    ]
    print(
        f"16×16 → 64×64, {STEPS} steps: {np.median(seconds[:3]):.1f} s cold, "
        f"{np.median(seconds[3:]):.1f} s warm"
    )


def calling(_: Path) -> None:
    from sr3_jax.runtime import startup

    startup.prepare()
    import jax
    import jax.numpy as jnp

    from sr3_jax import Upscaler

    upscaler = Upscaler.load("faces-16-64")
    network = jax.jit(
        lambda params, *inputs: upscaler.engine.method.model.apply({"params": params}, *inputs)
    )
    rng = np.random.default_rng(0)
    for count in (1, 4, 16):
        faces = rng.integers(0, 256, (count, 16, 16, 1), np.uint8)
        inputs = [jnp.asarray(rng.normal(size=(count, 64, 64, 1)), jnp.float32) for _ in range(2)]
        inputs.append(jnp.full((count,), 0.5))

        def bare(inputs=inputs) -> None:
            for _ in range(STEPS):
                network(upscaler.engine.params, *inputs).block_until_ready()

        def call(faces=faces) -> None:
            upscaler(faces, steps=STEPS)

        rounds = []
        for number in range(13):
            seconds = []
            for run in (bare, call):
                start = time.perf_counter()
                run()
                seconds.append(time.perf_counter() - start)
            rounds += [seconds] if number else []  # the first compiles
        alone, whole = np.median(rounds, axis=0) / STEPS / count
        ratio = np.quantile([b / a for a, b in rounds], (0.25, 0.5, 0.75))
        print(
            f"{count} faces: {1000 * whole:.2f} ms per step and image, "
            f"the bare network {1000 * alone:.2f}: "
            f"ratio {ratio[1]:.2f} ({ratio[0]:.2f} – {ratio[2]:.2f})"
        )


def large(place: Path) -> None:
    import resource

    from PIL import Image
    from skimage import data

    photo = place / "photo.png"
    Image.fromarray(data.coffee()).resize((1000, 750)).save(photo)
    seconds = sr3("upscale", str(photo), f"--output={place / 'large.png'}", "--steps=2")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"4000×3000 in 2 steps: {seconds:.0f} s, at most {peak:.2f} GiB")


SIZES = {"256²": (256, 256), "512²": (512, 512), "1,000×750": (750, 1000)}  # of the input
TILES = {"tiles of 256": 256, "tiles that fit": None}


def pictures(_: Path) -> None:
    """One after the other in one process, beside nothing else: minutes.

    The first name is left out above 256², being slow.
    """
    sys.path.insert(0, str(Path(__file__).parent / "rivals"))
    import argparse

    import real_esrgan
    from skimage import data

    from sr3_jax import Upscaler
    from sr3_jax.inference.sampling import Sampling
    from sr3_jax.runtime import startup

    startup.prepare()
    names = sys.argv[2:] or ["photos-4x", "photos-4x-clean"]
    upscalers = {
        f"{name}, {title}": Upscaler.load(name, tile=tile)
        for name in names
        for title, tile in TILES.items()
    }
    with real_esrgan.load(argparse.Namespace(threads=os.cpu_count())) as rival:
        for size, (height, width) in SIZES.items():
            picture = np.tile(data.coffee(), (2, 2, 1))[:height, :width]

            def timed(
                title: str,
                make: Callable[[], object],
                pixels: int = 16 * height * width,
                size: str = size,
            ) -> None:
                start = time.perf_counter()
                make()
                print(
                    f"{size}: {title}: {(time.perf_counter() - start) / pixels * 1e6:.1f} "
                    "s a megapixel",
                    flush=True,
                )

            # It takes a picture whole, and for a larger one more memory than there is
            if height <= 512:
                floats = picture.astype(np.float32) / 255
                timed("Real-ESRGAN", lambda floats=floats: rival(floats))
            for title, upscaler in upscalers.items():
                if len(names) > 1 and height > 256 and title.startswith(f"{names[0]},"):
                    continue
                if height <= 512:  # compiles; beside a large picture that is little
                    upscaler(picture, steps=upscaler.checkpoint.method.objective.choices.steps or 1)
                count = upscaler.engine.table(Sampling()).evaluations
                timed(
                    f"{title}, {count} evaluations",
                    lambda upscaler=upscaler, picture=picture: upscaler(picture),
                )


if __name__ == "__main__":
    parts = {"starting": starting, "calling": calling, "large": large, "pictures": pictures}
    if (
        len(sys.argv) < 2
        or sys.argv[1] not in parts
        or (len(sys.argv) > 2 and sys.argv[1] != "pictures")
    ):
        raise SystemExit(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        parts[sys.argv[1]](Path(folder))
