"""Where the time of a step goes: from the names in a trace to the table."""

import json
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from sr3_jax import cli
from sr3_jax.profiling import report, trace
from sr3_jax.profiling.trace import BACKWARD, FORWARD, ONCE, Place, Profile, locate
from sr3_jax.runtime import parallel
from tests.tiny import get_config

ROOT = Path(__file__).parent.parent.parent
FORWARD_PASS, BACKWARD_PASS = "jit(step)/jvp(UNet)", "jit(step)/transpose(jvp(UNet))"


@pytest.mark.fast
@pytest.mark.parametrize(
    ("source", "opcode", "place"),
    [
        (
            f"{FORWARD_PASS}/down_1_0/conv_0/conv_general_dilated",
            "convolution",
            ("down 1", "convolution", FORWARD),
        ),
        (
            f"{BACKWARD_PASS}/up_0_1/norm_1/reduce_sum",
            "reduce",
            ("up 0", "normalization", BACKWARD),
        ),
        (
            f"{FORWARD_PASS}/rematted_computation/down_0_0/Dropout_0/mul",
            "fusion",
            ("down 0", "dropout", BACKWARD),
        ),
        (f"{FORWARD_PASS}/down_1_0_attention/dot_general", "dot", ("down 1", "attention", FORWARD)),
        (f"{FORWARD_PASS}/middle_attention/norm/mul", "fusion", ("middle", "attention", FORWARD)),
        (f"{FORWARD_PASS}/middle_1/embedding/dot_general", "dot", ("middle", "embedding", FORWARD)),
        (f"{FORWARD_PASS}/down_0_resample/reshape", "fusion", ("down 0", "resampling", FORWARD)),
        (
            f"{FORWARD_PASS}/gamma_embedding/dot_general",
            "dot",
            ("gamma_embedding", "embedding", FORWARD),
        ),
        (f"{FORWARD_PASS}/out_norm/mul", "fusion", ("out", "normalization", FORWARD)),
        (
            f"{FORWARD_PASS}/stem/conv_general_dilated",
            "convolution",
            ("stem", "convolution", FORWARD),
        ),
        (f"{FORWARD_PASS}/up_0_0/add", "fusion", ("up 0", "sums, concatenations", FORWARD)),
        (
            f"{FORWARD_PASS}/reshape",
            "fusion",
            ("network, elsewhere", "sums, concatenations", FORWARD),
        ),
        ("jit(step)/jvp()/sub", "fusion", ("loss", "loss: noise, degradation", FORWARD)),
        (
            "jit(step)/transpose(jvp())/mul",
            "fusion",
            ("loss", "loss: noise, degradation", BACKWARD),
        ),
        ("jit(step)/sqrt", "fusion", ("optimizer, EMA", "optimizer, EMA", ONCE)),
        ("", "copy", ("copies of the compiler", "copies of the compiler", ONCE)),
        (
            "",
            "convolution",
            ("convolutions without a name", "convolution, without a name", BACKWARD),
        ),
        (f"{FORWARD_PASS}/stem/add", "all-reduce-start", ("communication", "communication", ONCE)),
        ("", "all-gather-done", ("communication", "communication", ONCE)),
    ],
)
def test_an_operation_has_its_place_by_its_name(source, opcode, place):
    assert locate(source, opcode) == Place(*place)


@pytest.mark.fast
def test_time_inside_another_operation_counts_once():
    second = 1e9
    events = [
        (0 * second, 10 * second, "loop"),
        (1 * second, 3 * second, "a"),
        (3 * second, 6 * second, "b"),
        (4 * second, 5 * second, "a"),
        (10 * second, 12 * second, "a"),
    ]
    assert trace._self_times(reversed(events)) == pytest.approx({"loop": 5, "a": 2 + 1 + 2, "b": 2})


@pytest.mark.fast
def test_an_instruction_is_named_in_a_statistic_or_by_its_line():
    def event(name: str, **stats: object) -> SimpleNamespace:
        return SimpleNamespace(name=name, stats=stats.items(), start_ns=5, duration_ns=2)

    cpu = SimpleNamespace(
        name="worker 3", events=[event("ThunkExecutor"), event("fusion", hlo_op="fusion.7")]
    )
    tpu = SimpleNamespace(
        name="XLA Ops",
        events=[event("%fusion.8 = f32[8]{0} fusion(%x)"), event("wait", hlo_op="copy.1")],
    )
    assert list(trace._instructions(cpu)) == [(5, 7, "fusion.7")]
    assert list(trace._instructions(tpu)) == [(5, 7, "fusion.8"), (5, 7, "copy.1")]


@pytest.mark.fast
def test_the_table_is_per_step_and_device():
    text = f"""ENTRY %main (x: f32[8]) -> f32[8] {{
  %x = f32[8]{{0}} parameter(0)
  %f.1 = f32[8]{{0}} fusion(%x), kind=kLoop, calls=%inner, \
metadata={{op_name="{FORWARD_PASS}/stem/add"}}
  ROOT %c.1 = f32[8]{{0}} convolution(%f.1), \
metadata={{op_name="{BACKWARD_PASS}/stem/conv_general_dilated"}}
}}
"""
    profile = Profile(steps=5, devices=2, batch=8, step=1.0, input=0.1)
    trace._fill(profile, {"f.1": 0.01, "c.1": 0.03, "unknown.12": 0.02}, text)
    assert profile.parts == {
        "stem": {FORWARD: pytest.approx(1), BACKWARD: pytest.approx(3), ONCE: 0},
        "copies of the compiler": {FORWARD: 0, BACKWARD: 0, ONCE: pytest.approx(2)},
    }
    assert profile.layers["convolution"][BACKWARD] == pytest.approx(3)
    assert [(opcode, pytest.approx(spent)) for opcode, _, spent in profile.operations] == [
        ("convolution", 3),
        ("unknown", 2),
        ("fusion", 1),
    ]
    assert profile.total == pytest.approx(6)


@pytest.mark.fast
def test_each_of_several_processes_has_a_folder(monkeypatch):
    assert trace.own_folder(Path("out")) == Path("out")
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    monkeypatch.setattr(jax, "process_index", lambda: 2)
    assert trace.own_folder(Path("out")) == Path("out/process_2")


def test_a_traced_run_has_its_trace_and_parts_that_add_up(tmp_path, capsys):
    with jax.numpy_dtype_promotion("standard"):  # optax needs it
        found = trace.profile(get_config(), tmp_path / "out", steps=2)
    assert Path(found.trace).name == "perfetto_trace.json.gz"
    assert Path(found.trace).stat().st_size > 1000
    assert Path(found.trace).is_relative_to(tmp_path / "out/plugins/profile")
    layers = sum(sum(phases.values()) for phases in found.layers.values())
    operations = sum(spent for _, _, spent in found.operations)
    assert found.total == pytest.approx(layers) == pytest.approx(operations)
    assert found.total > 0
    assert 0 < found.input < found.step
    assert {"stem", "down 0", "middle", "up 0", "out", "optimizer, EMA"} <= found.parts.keys()
    assert found.parts["down 0"][FORWARD] > 0
    assert found.parts["down 0"][BACKWARD] > 0

    report.show_profile(found, operations=3)
    out = capsys.readouterr().out
    shares = [
        float(line.split("│")[-2].strip(" %"))
        for line in out.partition("layer")[0].splitlines()
        if "%" in line and "│" in line
    ]
    assert len(shares) == len(found.parts)
    assert sum(shares) == pytest.approx(100, abs=0.1 * len(shares))
    json.dumps(found.to_dict())


@pytest.mark.fast
@pytest.mark.parametrize(
    ("flag", "told"),
    [
        ("--config.train.accumulate=0", "train.accumulate = 0 must lie between 1 and 2147483647"),
        ("--config.mesh.fsdp=0", "mesh.fsdp = 0 must be at least 1"),
        (
            "--output=gs://bucket/trace",
            "--output=gs://bucket/trace must be a folder of this machine",
        ),
    ],
)
def test_what_cannot_be_profiled_is_told_before_anything_starts(monkeypatch, capsys, flag, told):
    monkeypatch.setattr(parallel, "start", lambda config: pytest.fail("too late"))
    assert cli.main(["profile", f"--config={ROOT / 'tests/tiny.py'}", flag]) == 2
    assert told in capsys.readouterr().err
