"""What a training step costs on a TPU, by the TPU compiler's count, must not grow unnoticed.

After a change that is meant to cost more, this writes budget.json:

    python tests/profiling/test_budget.py --record
"""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

import sr3_jax.config

BUDGET = Path(__file__).parent / "budget.json"
RECORD = "python tests/profiling/test_budget.py --record"
NUMBERS = ("model_flops", "compiled_flops", "hbm_traffic", "peak_bytes")
ALLOWED, ALLOWED_OTHER_COMPILER = 0.05, 0.30


def get_config():
    """A small network with most of what the large ones have.

    It has two levels, attention, bfloat16 and both axes of the mesh.
    """
    config = sr3_jax.config.base()
    config.data.hr_size, config.data.lr_size = 32, 8
    model = config.model
    model.channels, model.multipliers, model.blocks, model.attention = 128, (1, 2), 1, (16,)
    model.middle_attention, model.dropout = False, 0.0  # the compiler takes long enough as it is
    model.dtype, config.train.batch_size = "bfloat16", 32
    config.mesh.data, config.mesh.fsdp = 2, 2
    return config


def measure(cache: Path | None = None) -> dict:
    """The numbers of `sr3 compile`, run in its own process, and the versions they hold for."""
    # Without what the tests set for their own process.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("JAX_", "XLA_", "TPU_"))
    }
    if cache:
        environment["XDG_CACHE_HOME"] = str(cache)
    command = [
        sys.executable,
        "-m",
        "sr3_jax",
        "compile",
        f"--config={__file__}",
        "--topology=v5e:2x2",
        "--json",
    ]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout)
    return {
        "jax": version("jax"),
        "libtpu": version("libtpu"),
        **{name: found[name]["value"] for name in NUMBERS},
    }


def exceeded(found: dict, budget: dict) -> list[str]:
    """What has grown by more than is allowed, in sentences."""
    same = found["libtpu"] == budget["libtpu"]
    allowed = ALLOWED if same else ALLOWED_OTHER_COMPILER
    return [
        f"{name} grew by {found[name] / budget[name] - 1:.1%}, from {budget[name]:.6g} "
        f"(libtpu {budget['libtpu']}) to {found[name]:.6g} (libtpu {found['libtpu']}); "
        f"{allowed:.0%} are allowed. If it is meant to: {RECORD}"
        for name in NUMBERS
        if found[name] > (1 + allowed) * budget[name]
    ]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("libtpu") is None, reason="needs the extra [aot]")
def test_a_training_step_on_a_tpu_costs_no_more_than_it_did(tmp_path):
    problems = exceeded(measure(cache=tmp_path), json.loads(BUDGET.read_text()))
    assert not problems, "\n".join(problems)
    assert not [file for file in tmp_path.rglob("*") if file.is_file()], (
        "a program that cannot be read back was kept"
    )


@pytest.mark.fast
@pytest.mark.parametrize(
    ("libtpu", "growth", "problems"),
    [("1", 1.04, 0), ("1", 1.06, 1), ("2", 1.06, 0), ("2", 1.31, 1)],
)
def test_the_budget_allows_five_percent_and_more_to_another_compiler(libtpu, growth, problems):
    budget = {"jax": "1", "libtpu": "1", **dict.fromkeys(NUMBERS, 100)}
    found = exceeded(
        budget | {"libtpu": libtpu, "peak_bytes": 100 * growth, "hbm_traffic": 50}, budget
    )
    assert len(found) == problems
    assert all(line.startswith("peak_bytes grew by ") and line.endswith(RECORD) for line in found)


if __name__ == "__main__":
    if sys.argv[1:] != ["--record"]:
        sys.exit(f"usage: {RECORD}")
    BUDGET.write_text(json.dumps(measure(), indent=2) + "\n")
    print(BUDGET.read_text())
