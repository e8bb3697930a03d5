"""What surrounds the training step: reading images, and starting.

    python benchmarks/loop.py reading
    python benchmarks/loop.py starting

"Reading" prints the images per second and core of the input alone, and the share of training that
is spent waiting for it. "Starting" prints the time of the first and of the second start of
`sr3 train`, of `sr3 --help` and of `import sr3_jax`.

The images are crops of scikit-image's photographs, 256×256: as JPEG files in a folder, and the same
as `sr3 prepare` makes of them. The network is that of configs/orl_16_64.py. Waiting is what `sr3
train` itself reports: the time in which no step runs because the next batch is not there.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

CONFIG = "configs/orl_16_64.py"
IMAGES, SIZE = 512, 256


def sr3(*arguments: str, **environment: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "sr3_jax", *arguments],
        check=True,
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
    )


def photographs(folder: Path) -> None:
    """Crops at random places, of every second size up to the whole photograph."""
    import skimage.data
    from PIL import Image

    rng = np.random.default_rng(0)
    photos = [
        getattr(skimage.data, name)() for name in ("astronaut", "coffee", "chelsea", "rocket")
    ]
    folder.mkdir()
    for i in range(IMAGES):
        photo = Image.fromarray(photos[i % len(photos)])
        side = int(rng.integers(128, min(photo.size) + 1))
        left, top = (int(rng.integers(0, length - side + 1)) for length in photo.size)
        crop = photo.resize(
            (SIZE, SIZE), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side)
        )
        crop.save(folder / f"{i:05d}.jpg", quality=92)


def reading(place: Path) -> None:
    photographs(place / "jpeg")
    for encoding in ("png", "raw"):
        sr3(
            "prepare",
            str(place / "jpeg"),
            f"--size={SIZE}",
            f"--output={place / encoding}",
            f"--encoding={encoding}",
        )
    sources = {
        "JPEG files": ("folder", "jpeg"),
        "ArrayRecord, PNG": ("records", "png"),
        "ArrayRecord, raw": ("records", "raw"),
    }
    cores = len(os.sched_getaffinity(0))
    print(
        f"| {SIZE}² images from | images/s, reading alone | per core | waiting, of training |\n"
        "|---|---|---|---|"
    )
    for name, (source, folder) in sources.items():
        rate = alone(source, place / folder)
        waiting, step = training(source, place / folder, place / f"run-{folder}")
        print(
            f"| {name} | {rate:.0f} | {rate / cores:.0f} | {waiting:.2%} of {step:.2f} s steps |",
            flush=True,
        )


def config_for(source: str, folder: Path):
    import sr3_jax.config

    config = sr3_jax.config.base()
    config.data.source, config.data.folder = source, str(folder)
    config.data.hr_size, config.data.lr_size, config.model.image_channels = 64, 16, 3
    config.model.attention, config.train.batch_size = (), 16
    return config


def alone(source: str, folder: Path, seconds: float = 8.0) -> float:
    """Images per second through decoding, cropping, resizing and batching, on all cores."""
    from sr3_jax.data.pipeline import Batches
    from sr3_jax.data.sources import open_source

    config = config_for(source, folder)
    batches = Batches(open_source(config, "train"), config)
    for _ in range(8):  # threads are running, files are open
        next(batches)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        next(batches)
        count += 1
    return count * config.train.batch_size / (time.perf_counter() - start)


def training(source: str, folder: Path, workdir: Path) -> tuple[float, float]:
    """The share of time that `sr3 train` waits for data, and its seconds per step."""
    sr3(
        *("train", f"--config={CONFIG}", f"--workdir={workdir}", f"--config.data.source={source}"),
        *(
            f"--config.data.folder={folder}",
            "--config.model.image_channels=3",
            "--config.train.steps=60",
        ),
        *(
            "--config.train.log_every=10",
            "--config.train.checkpoint_every=1000",
            "--config.train.evaluate_every=1000",
        ),
        *("--config.train.evaluate_images=1", "--config.train.sample_images=1"),
    )
    lines = [json.loads(line) for line in (workdir / "stats.jsonl").read_text().splitlines()]
    # The first interval fills the buffers
    lines = [line for line in lines if "data_wait" in line][1:]
    return tuple(
        statistics.mean(line[name] for line in lines) for name in ("data_wait", "seconds_per_step")
    )


def starting(place: Path) -> None:
    def clocked(run) -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    def train(workdir: str) -> None:
        """Until the first step is done, and noted in stats.jsonl."""
        command = [
            sys.executable,
            "-m",
            "sr3_jax",
            "train",
            f"--config={CONFIG}",
            f"--workdir={place / workdir}",
        ]
        environment = os.environ | {"XDG_CACHE_HOME": str(place / "cache")}
        process = subprocess.Popen(
            [*command, "--config.train.steps=1"], env=environment, stdout=subprocess.DEVNULL
        )
        stats = place / workdir / "stats.jsonl"
        while process.poll() is None and not (stats.exists() and stats.stat().st_size):
            time.sleep(0.02)
        ready.append(time.perf_counter())
        process.wait()  # it goes on to the evaluation

    def import_() -> None:
        subprocess.run([sys.executable, "-c", "import sr3_jax"], check=True)

    ready: list[float] = []
    started = []
    for workdir in ("a", "b"):
        started.append(time.perf_counter())
        train(workdir)
    first, second = (end - start for start, end in zip(started, ready, strict=True))
    nothing = statistics.median(
        clocked(lambda: subprocess.run([sys.executable, "-c", ""], check=True)) for _ in range(9)
    )
    help_ = statistics.median(clocked(lambda: sr3("--help")) for _ in range(9))
    imported = statistics.median(clocked(import_) for _ in range(9))
    print("| | seconds |\n|---|---|")
    print(f"| `sr3 train` to the end of the first step, the first time | {first:.1f} |")
    print(f"| the second time | {second:.1f}, {first / second:.1f} times faster |")
    print(f"| `sr3 --help` | {help_:.2f} |")
    print(f"| `import sr3_jax` | {imported:.2f} |")
    print(f"| Python itself | {nothing:.2f} |")


if __name__ == "__main__":
    parts = {"reading": reading, "starting": starting}
    if len(sys.argv) != 2 or sys.argv[1] not in parts:
        raise SystemExit(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        parts[sys.argv[1]](Path(folder))
