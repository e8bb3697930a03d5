"""What reproducing tables 2 and 4 of the paper takes, from the networks' own arithmetic.

    python benchmarks/cost.py

FLOPs are counted in the networks' convolutions and matrix products (`sr3_jax.profiling.aot`), and
divided by what the chips do at SHARE of their peak. No TPU is needed, and nothing is compiled. For
the 64→256 network `sr3 compile` estimates 62 % (benchmarks/tpu.md).
"""

import runpy
from pathlib import Path

from sr3_jax.profiling import aot, chips

ROOT = Path(__file__).parent.parent
CHIP, CHIPS, SHARE = "v5e", 32, 0.5
IMAGES = 50_000
# What: config, argument, training steps, evaluations per image, network passes per evaluation
STAGES = {
    "64 → 256 (tables 2 and 4)": ("imagenet_64_256", "cascade", 1_000_000, 100, 1),
    "64×64 by class (table 4)": ("imagenet_64_base", None, 500_000, 256, 2),
}


def main() -> None:
    """Prints a table."""
    peak = chips.parse(f"{CHIP}:4x8")[0].flops * CHIPS * SHARE
    title = f"{IMAGES:,} images, hours"
    print(f"| network | training, steps | batch | training, hours | evaluations | {title} |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, (file, argument, steps, evaluations, passes) in STAGES.items():
        get_config = runpy.run_path(str(ROOT / "configs" / f"{file}.py"))["get_config"]
        config = get_config(argument) if argument else get_config()
        batch, config.train.batch_size = config.train.batch_size, 1
        training = aot.model_flops(config, "train", 1) * batch * steps
        sampling = aot.model_flops(config, "sample", evaluations) * passes * IMAGES
        guided = f"{evaluations} × {passes}" if passes > 1 else f"{evaluations}"
        print(
            f"| {name} | {steps:,} | {batch:,} | {training / peak / 3600:.0f} | {guided} | "
            f"{sampling / peak / 3600:.1f} |"
        )
    print(f"\n{CHIPS} chips of {CHIP} at {SHARE:.0%} of their peak.")


if __name__ == "__main__":
    main()
