"""What `sr3 upscale` and an Upscaler cost beside the network itself.

    python benchmarks/upscaling.py starting
    python benchmarks/upscaling.py calling
    python benchmarks/upscaling.py large
    python benchmarks/upscaling.py pictures [CHECKPOINT …]
    python benchmarks/upscaling.py onnx

"Starting" is `sr3 upscale` of a 16×16 face in 8 steps, without and with compiled programs.
"Calling" is a warm Upscaler, per step and image, against the network's bare forward pass. "Large"
is the memory that a 4,000×3,000 result takes in tiles. "Pictures" are seconds a megapixel, by the
size of the tiles, beside Real-ESRGAN. "Onnx" is the same program by onnxruntime and by XLA.

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


def onnx(place: Path) -> None:
    from sr3_jax.runtime import startup

    startup.prepare()
    import jax
    import jax.numpy as jnp
    import onnxruntime

    from sr3_jax.checkpoints.names import load_checkpoint
    from sr3_jax.method import image_key, sampling_steps
    from sr3_jax.tasks.task import Given

    for name, size in (("faces-16-64", 16), ("photos-4x-clean", 64), ("photos-4x-restore", 64)):
        file = str(place / "program.onnx")
        words = ["export", f"--checkpoint={name}", "--format=onnx", f"--size={size}", "--steps=2"]
        sr3(*words, "--overwrite", f"--output={file}")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # not what it removes
        session = onnxruntime.InferenceSession(file, options)
        rng, inputs = np.random.default_rng(0), {}
        for given in session.get_inputs():
            shape = [1, *given.shape[1:]]
            values = rng.normal(size=shape) if len(shape) > 1 else np.zeros(1)
            inputs[given.name] = values.astype(np.float32)
        checkpoint = load_checkpoint(name)
        method, config = checkpoint.method, checkpoint.config
        table = sampling_steps(config, 2, checkpoint.schedules.get("2"))
        params, keys = jax.tree.map(jnp.asarray, checkpoint.params), image_key(0, 0)[None]
        program = jax.jit(lambda params, given: method.super_resolve(params, given, keys, table))  # noqa: B023
        told = {k: jnp.asarray(v) for k, v in inputs.items() if k not in ("lr", "random")}
        given = Given(jnp.asarray(inputs["lr"]), told)
        rounds = []
        for number in range(9):
            seconds = []
            for run in (
                lambda: program(params, given).block_until_ready(),  # noqa: B023
                lambda: session.run(None, inputs),  # noqa: B023
            ):
                start = time.perf_counter()
                run()
                seconds.append(time.perf_counter() - start)
            rounds += [seconds] if number else []  # the first compiles
        xla, other = np.median(rounds, axis=0)
        ratio = np.quantile([b / a for a, b in rounds], (0.25, 0.5, 0.75))
        print(
            f"{name}, {size}², {table.evaluations} evaluations: XLA {1000 * xla:.0f} ms, "
            f"onnxruntime {1000 * other:.0f} ms: ratio {ratio[1]:.2f} ({ratio[0]:.2f} – "
            f"{ratio[2]:.2f})",
            flush=True,
        )


PARTS = {
    "starting": starting,
    "calling": calling,
    "large": large,
    "pictures": pictures,
    "onnx": onnx,
}

if __name__ == "__main__":
    if (
        len(sys.argv) < 2
        or sys.argv[1] not in PARTS
        or (len(sys.argv) > 2 and sys.argv[1] != "pictures")
    ):
        raise SystemExit(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        PARTS[sys.argv[1]](Path(folder))
