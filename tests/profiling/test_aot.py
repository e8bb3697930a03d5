"""Estimates for TPUs that are not here: what is compiled, and what is said of it.

That includes what is said when it does not fit.
"""

import json
import os
import re
import runpy
import subprocess
import sys
from ast import literal_eval
from math import prod
from pathlib import Path

import jax
import pytest
from ml_collections import ConfigDict

from sr3_jax import cli
from sr3_jax import config as config_lib
from sr3_jax.checkpoints.checkpoint import Checkpoint
from sr3_jax.inference.upscaler import Upscaler
from sr3_jax.method import Method
from sr3_jax.profiling import aot, chips, report
from sr3_jax.runtime import parallel
from tests.profiling.compiler import needs_compiler, without_settings
from tests.tiny import abstract_state, get_config, mesh_of

ROOT = Path(__file__).parent.parent.parent
GIB = 2**30

# What the TPU compiler says, shortened.
BEFORE = (
    "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
    "temporaries ({}) exceeds available HBM (15.75G)."
)
AFTER = """RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory \
space hbm. Used 15.90G of 15.75G hbm. Exceeded hbm capacity by 156.00M.

Total hbm usage >= 16.15G:
    reserved        258.00M
    program          11.90G
    arguments         4.00G
"""
ON_CHIP = """RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory \
space vmem. Used 256.00M of 128.00M vmem. Exceeded vmem capacity by 128.00M.

Program vmem requirement 256.00M:
"""


def made(fits: bool = True, **changes) -> aot.Estimate:
    """An estimate as of a training step on 32 chips."""
    numbers = {
        "what": "train",
        "topology": "v5e:4x8",
        "chips": 32,
        "hosts": 8,
        "mesh": {"data": 32, "fsdp": 1},
        "images_per_chip": 3.0,
        "network_evaluations": 1,
        "parameters": 10**9,
        "parameter_bytes": GIB,
        "ema_bytes": GIB,
        "optimizer_bytes": 2 * GIB,
        "hbm_bytes": 16 * GIB,
        "fits": fits,
        "compile_seconds": 60.0,
    }
    if fits:
        numbers |= {
            "peak_bytes": 10 * GIB,
            "temporary_bytes": 6 * GIB,
            "argument_bytes": 4 * GIB,
            "model_flops": 10**13,
        }
        numbers |= {
            "collective_bytes": {"all-reduce": 10**9},
            "chip_seconds": 0.08,
            "collective_seconds": 0.02,
            "mfu": 0.5,
        }
        numbers |= {"matrix_seconds": 0.05, "memory_seconds": 0.06, "hbm_traffic": 5 * 10**10}
    else:
        numbers |= {
            "peak_bytes": int(15.9 * GIB),
            "temporary_bytes": int(11.9 * GIB),
            "limit_bytes": int(15.75 * GIB),
        }
    return aot.Estimate(**(numbers | changes))


class Refused:
    """A lowered program that the compiler does not take."""

    def __init__(self, message: str):
        self.message = message

    def compile(self) -> None:
        raise RuntimeError(self.message)


def refuse(monkeypatch, message: str) -> None:
    """The compiler answers so, and the CPU's devices stand for the slice."""
    monkeypatch.setattr(chips, "devices", lambda topology: jax.devices()[:4])
    monkeypatch.setattr(aot, "_lower", lambda *_: (Refused(message), 1, 1))


# -- does not fit


@pytest.mark.fast
@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (BEFORE.format("45.00G"), (45 * GIB, 15.75 * GIB)),
        (BEFORE.format("1.12T"), (1.12 * 1024 * GIB, 15.75 * GIB)),
        (AFTER, (15.9 * GIB, 15.75 * GIB)),
        (ON_CHIP, None),
        (ON_CHIP.replace("vmem", "smem"), None),
        ("INTERNAL: Used 15.90G of 15.75G hbm", None),
    ],
)
def test_the_compilers_message_says_how_much_of_how_much_hbm(message, expected):
    assert aot.out_of_memory(message) == (expected and tuple(map(int, expected)))


def test_by_how_much_it_does_not_fit(monkeypatch, capsys):
    refuse(monkeypatch, AFTER)
    estimate, program = aot.estimate(get_config(), "v5e:2x2")
    assert program is None
    assert not estimate.fits
    state = estimate.parameter_bytes + estimate.ema_bytes + estimate.optimizer_bytes
    assert estimate.temporary_bytes == estimate.peak_bytes - state == int(15.9 * GIB) - state
    report.show(estimate)
    assert (
        "DOES NOT FIT: 15.90 GiB estimated, 0.15 GiB more than the 15.75 GiB"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize("message", [ON_CHIP, "INTERNAL: something else"])
def test_whatever_else_the_compiler_says_is_raised(monkeypatch, message):
    refuse(monkeypatch, message)
    with pytest.raises(RuntimeError, match=re.escape(message[:20])):
        aot.estimate(get_config(), "v5e:2x2")


def changed(config: ConfigDict, line: str) -> ConfigDict:
    """The config after a line of advice."""
    config = config.copy_and_resolve_references()
    flags = re.findall(r"--config\.([\w.]+)=(\S+?):?(?: |$)", line)
    assert flags, line
    config.update_from_flattened_dict({name: literal_eval(value) for name, value in flags})
    return config


@pytest.mark.parametrize(
    ("batch", "accumulate", "data", "fsdp"),
    [
        (96, 1, -1, 1),
        (96, 1, 32, 1),
        (256, 1, -1, 1),
        (256, 2, 4, 8),
        (256, 1, 1, -1),
        (480, 3, -1, 4),
        (32, 1, -1, 1),
    ],
)
def test_all_that_is_advised_is_allowed(batch, accumulate, data, fsdp):
    config = get_config()
    config.train.batch_size, config.train.accumulate, config.mesh.data, config.mesh.fsdp = (
        batch,
        accumulate,
        data,
        fsdp,
    )
    shape = parallel.mesh_shape(config, 32)
    lines = list(
        aot.advice(config, made(fits=False, mesh=dict(zip(("data", "fsdp"), shape, strict=True))))
    )
    for line in lines:
        other = changed(config, line)
        config_lib.validate(other)
        parallel.mesh_shape(other, 32)
        assert other != config
        assert re.search(
            r": about \d+\.\d GiB, (would fit|not enough alone) \(estimated by scaling\)$", line
        )
    assert any("mesh.fsdp=32" in line for line in lines) == (shape[1] < 32)
    assert any("model.remat=(0,)" in line for line in lines)
    assert (
        any("train.accumulate" in line for line in lines)
        == any("train.batch_size" in line for line in lines)
        == (batch > 32)
    )


@pytest.mark.fast
def test_advice_divides_the_batch_evenly_and_scales():
    config = get_config()
    config.train.batch_size, config.model.remat = 96, (0,)
    lines = list(aot.advice(config, made(fits=False)))
    assert [line.partition(":")[0] for line in lines] == [
        "--config.mesh.fsdp=32",
        "--config.train.accumulate=3",
        "--config.train.batch_size=32",
    ]
    assert "about 12.0 GiB, would fit" in lines[0]  # 4 GiB of state, shared by 32
    assert "about 8.0 GiB, would fit" in lines[1]  # a third of 11.9 GiB of temporaries
    config.train.batch_size = 32 * 2**14
    lines = list(aot.advice(config, made(fits=False, temporary_bytes=40 * GIB)))
    assert [line for line in lines if "accumulate" in line] == [
        "--config.train.accumulate=2: about 24.0 GiB, not enough alone (estimated by scaling)",
        "--config.train.accumulate=4: about 14.0 GiB, would fit (estimated by scaling)",
    ]
    config.train.batch_size = 96
    tight = list(aot.advice(config, made(fits=False, temporary_bytes=40 * GIB)))
    assert all("not enough alone" in line for line in tight)


@pytest.mark.fast
def test_advice_for_sampling_is_a_smaller_batch():
    config = aot._as_sampled(get_config(), 4)
    estimate = made(fits=False, what="sample", mesh={"data": 4, "fsdp": 1})
    assert [line.partition(":")[0] for line in aot.advice(config, estimate)] == [
        "Upscaler(…, batch_size=8)"
    ]


@pytest.mark.slow
@needs_compiler
def test_what_the_compiler_refuses_is_told_by_how_much(tmp_path):
    """Half a minute, with the real compiler."""
    fields = {
        "train.batch_size": 2**15,
        "model.multipliers": "(1,)",
        "model.attention": "()",
        "model.middle_attention": False,
    }
    done = subprocess.run(
        [
            *(sys.executable, "-m", "sr3_jax", "compile", "--json", "--topology=v5e:2x2"),
            f"--config={ROOT / 'tests/profiling/test_budget.py'}",
            *(f"--config.{name}={value}" for name, value in fields.items()),
        ],
        env=without_settings(os.environ) | {"XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert not found["fits"]
    assert found["limit_bytes"]["value"] == 15.75 * GIB
    assert found["peak_bytes"]["value"] > 20 * GIB
    assert found["mfu"] == {"value": None, "estimated": True, "source": None}
    assert any(
        line.startswith("--config.model.remat=(0,): ") and "would fit" in line
        for line in found["advice"]
    )


# -- the report


@pytest.mark.fast
def test_each_number_in_json_has_its_source():
    found = json.loads(json.dumps(made().to_dict()))
    numbers = {name: value for name, value in found.items() if name in aot.SOURCES}
    assert numbers.keys() == aot.SOURCES.keys()
    for name, number in numbers.items():
        assert number.keys() == {"value", "estimated", "source"}, name
        assert (number["value"] is None) == (number["source"] is None) == (name == "limit_bytes"), (
            name
        )
    assert found["peak_bytes"] == {
        "value": 10 * GIB,
        "estimated": True,
        "source": aot.SOURCES["peak_bytes"][0],
    }
    assert found["step_seconds"]["value"] == pytest.approx(0.1)
    assert found["bound"]["value"] == "memory"
    assert not found["compile_seconds"]["estimated"]
    assert found["fits"] is True
    asked = found.keys() - numbers.keys()
    assert asked == {
        "what",
        "topology",
        "chips",
        "hosts",
        "mesh",
        "images_per_chip",
        "network_evaluations",
        "fits",
        "advice",
    }


@pytest.mark.fast
def test_what_was_not_computed_is_null_in_json():
    found = made(fits=False).to_dict()
    known = {name for name in aot.SOURCES if found[name]["value"] is not None}
    state = {
        "parameters",
        "parameter_bytes",
        "ema_bytes",
        "optimizer_bytes",
        "hbm_bytes",
        "compile_seconds",
    }
    assert known == state | {"peak_bytes", "temporary_bytes", "limit_bytes"}
    assert found["peak_bytes"]["source"] == "compiler's out-of-memory message"


@pytest.mark.fast
def test_the_table_gives_every_number_its_source(capsys):
    report.show(made())
    out = capsys.readouterr().out
    assert (
        "training step, compiled for v5e:4x8: 32 chips, 8 hosts, mesh data=32 fsdp=1, "
        "1000 M parameters, 3 images" in out
    )
    table = [
        [cell.strip() for cell in re.split("[│┃]", line)[1:4]]
        for line in out.splitlines()
        if line[:1] in "│┃"
    ]
    assert table[0] == ["per chip", "estimated", "source"]
    rows = {(name, value): source for name, value, source in table[1:] if name}
    assert rows["peak memory", "10.00 GiB of 16.00 GiB"].startswith("compiler: arguments")
    assert rows["MFU", "50.0%"] == "matrix units / step"
    assert all(rows.values())
    assert "fits: 10.00 GiB of 16.00 GiB estimated" in out
    assert "in groups of 8" in out  # 3 images per chip
    report.show(made(images_per_chip=16.0))
    assert "in groups of 8" not in capsys.readouterr().out


@pytest.mark.fast
def test_the_table_of_what_does_not_fit_ends_before_the_times(capsys):
    report.show(
        made(
            fits=False,
            advice=["--config.model.remat=(0,): about 1.0 GiB, would fit (estimated by scaling)"],
        )
    )
    out = capsys.readouterr().out
    assert (
        "DOES NOT FIT: 15.90 GiB estimated, "
        "0.15 GiB more than the 15.75 GiB of 16.00 GiB that it may use" in out
    )
    assert "  --config.model.remat=(0,): about 1.0 GiB, would fit (estimated by scaling)" in out
    assert "temporaries" in out
    assert "MFU" not in out


@pytest.mark.fast
def test_sampling_is_told_as_of_one_host(capsys):
    report.show(
        made(
            what="sample", mesh={"data": 4, "fsdp": 1}, images_per_chip=4.0, network_evaluations=100
        )
    )
    out = capsys.readouterr().out
    assert (
        "sampling, 100 evaluations an image, on each host alone, compiled for v5e:4x8: "
        "4 of 32 chips, one of 8 hosts" in out
    )
    assert "4 images per chip" in out
    assert "optimizer" not in out


@pytest.mark.fast
@pytest.mark.parametrize(("fits", "code"), [(True, 0), (False, 1)])
@pytest.mark.parametrize("flags", [["--json"], []])
def test_the_exit_code_says_whether_it_fits(monkeypatch, capsys, fits, code, flags):
    monkeypatch.setattr(chips, "prepare_environment", lambda: None)
    monkeypatch.setattr(aot, "estimate", lambda config, topology, what: (made(fits), None))
    assert (
        cli.main(["compile", f"--config={ROOT / 'tests/tiny.py'}", "--topology=v5e:4x8", *flags])
        == code
    )
    out = capsys.readouterr().out
    assert json.loads(out)["fits"] is fits if flags else ("DOES NOT FIT" in out) is not fits


# -- what is compiled


@pytest.mark.parametrize("objective", ["sr3", "regression"])
def test_sampling_has_whole_parameters_and_the_batch_of_one_host(objective):
    config = get_config()
    config.objective, config.train.batch_size, config.mesh.data, config.mesh.fsdp = (
        objective,
        96,
        1,
        -1,
    )
    method, devices = Method(config), jax.devices()
    sampled = aot._as_sampled(config, len(devices))
    mesh = parallel.make_mesh(sampled, devices)
    lowered, trips, evaluations = aot._lower(sampled, method, mesh, "sample")
    assert trips == evaluations == (1 if objective == "regression" else config.sample.steps)
    (params, lr, ids, *others), _ = lowered.compile().input_shardings
    assert all(sharding.is_fully_replicated for sharding in jax.tree.leaves([params, others]))
    assert lr.shard_shape((16, 8, 8, 1)) == (2, 8, 8, 1)
    assert ids.shard_shape((16,)) == (2,)
    assert lowered.out_info.shape == (16, *method.shape)

    upscaler = Upscaler(Checkpoint(config, jax.jit(method.init)(jax.random.key(0)), 0, "tiny"))
    assert (upscaler.engine.batch_size, upscaler.engine.mesh) == (sampled.train.batch_size, mesh)


@pytest.mark.fast
@pytest.mark.parametrize(("devices", "batch"), [(1, 16), (4, 16), (6, 18)])
def test_a_sampled_batch_is_rounded_up_to_the_devices(devices, batch):
    config = aot._as_sampled(get_config(), devices)
    assert config.train.batch_size == batch
    assert parallel.mesh_shape(config, devices) == (devices, 1)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("faces_16_128", 561e6),
        ("faces_64_512", 610e6),
        ("faces_256_1024", 149e6),
        ("imagenet_64_256", 617e6),
    ],
)
def test_split_over_a_small_slice_the_papers_networks_leave_16_gb_to_their_activations(
    name, parameters
):
    config = runpy.run_path(str(ROOT / f"configs/{name}.py"))["get_config"]()
    assert (config.mesh.data, config.mesh.fsdp) == (1, -1)
    config.model.dtype = "float32"  # of the computation: nothing that is kept depends on it
    state = abstract_state(config, mesh_of(jax.devices(), fsdp=8))

    def held(leaf: jax.ShapeDtypeStruct) -> int:
        return prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize

    per_chip = sum(map(held, jax.tree.leaves(state)))
    whole = 4 * 4 * parameters  # float32; parameters, EMA and Adam's two moments
    # What is too small to be split is whole everywhere.
    assert whole / 8 < 1.01 * per_chip < 1.1 * whole / 8
    assert per_chip < 1.3e9
