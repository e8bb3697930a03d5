"""Reading a compiled program, on a small one in the TPU compiler's format."""

import pytest

from sr3_jax.profiling.hlo import Program, elements, hbm_bytes, logical_bytes

pytestmark = pytest.mark.fast

TEXT = """HloModule jit_step, is_scheduled=true

%fused_computation (p.0: bf16[8,128]) -> bf16[8,128] {
  %p.0 = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %all-gather.9 = bf16[8,256]{1,0:T(8,128)(2,1)} all-gather(%p.0), channel_id=7, \
dimensions={1}, backend_config={"async_collective_fusion_config":{"flag_start":"2"}}
}

%body (t.1: (s32[], bf16[8,128])) -> (s32[], bf16[8,128]) {
  %t.1 = (s32[], bf16[8,128]{1,0:T(8,128)(2,1)}) parameter(0)
  %x.1 = bf16[8,128]{1,0:T(8,128)(2,1)} get-tuple-element(%t.1), index=1
  %f.1 = bf16[8,128]{1,0:T(8,128)(2,1)S(1)} fusion(%x.1), kind=kLoop, calls=%fused_computation, \
metadata={op_name="jit(step)/inner"}, backend_config={"estimated_cycles":"100"}
  %f.2 = bf16[8,128]{1,0:T(8,128)(2,1)} fusion(%f.1), kind=kLoop, calls=%fused_computation.2, \
metadata={op_name="jit(step)/outer"}, backend_config={"estimated_cycles":"10"}
  ROOT %t.2 = (s32[], bf16[8,128]{1,0:T(8,128)(2,1)}) tuple(%x.1, %f.2)
}

%fused_computation.2 (p.2: bf16[8,128]) -> bf16[8,128] {
  %p.2 = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %all-gather.10 = bf16[8,256]{1,0:T(8,128)(2,1)} all-gather(%p.2), channel_id=7, \
dimensions={1}, backend_config={"async_collective_fusion_config":{"flag_start":"2"}}
}

%condition (t.3: (s32[], bf16[8,128])) -> pred[] {
  %t.3 = (s32[], bf16[8,128]{1,0:T(8,128)(2,1)}) parameter(0)
  ROOT %lt = pred[]{:T(512)} compare(%t.3, %t.3), direction=LT
}

ENTRY %main (a.1: bf16[8,128]) -> f32[8,100] {
  %a.1 = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0)
  %w.1 = (s32[], bf16[8,128]{1,0:T(8,128)(2,1)}) while(%a.1), condition=%condition, body=%body
  %w.2 = (s32[], bf16[8,128]{1,0:T(8,128)(2,1)}) while(%a.1), condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"3"}}
  %ar.1 = f32[8,100]{1,0:T(8,128)} all-reduce(%a.1), channel_id=1, to_apply=%add
  ROOT %c.1 = f32[8,100]{1,0:T(8,128)} copy(%ar.1), metadata={op_name="jit(step)/outer"}, \
backend_config={"estimated_cycles":"1000"}
}
"""


def test_cycles_count_as_often_as_they_run():
    assert Program.parse(TEXT, trips=5).cycles == 1000 + (5 + 3) * 110
    assert Program.parse(TEXT).cycles == 1000 + (1 + 3) * 110


def test_operations_are_named_and_sorted():
    assert Program.parse(TEXT, trips=5).by_operation() == [
        ("jit(step)/outer", 1080),
        ("jit(step)/inner", 800),
    ]


def test_a_collective_in_two_parts_counts_once():
    assert Program.parse(TEXT, trips=5).collective_bytes == {
        "all-reduce": 8 * 100 * 4,
        "all-gather": 8 * 8 * 256 * 2,
    }


def test_traffic_counts_padding_and_leaves_out_what_stays_on_the_chip():
    tile = 8 * 128 * 2
    per_trip = tile + tile  # what f.1 reads and f.2 writes, but not what passes between them
    condition = 1 + 2 * (4 + tile)  # the comparison
    # the all-reduce: 100 columns are padded to 128; the copy reads its result
    assert (
        Program.parse(TEXT).hbm_bytes
        == (1 + 3) * (per_trip + condition) + (2 * tile + tile) + 2 * 2 * tile
    )


def program(*lines: str, parts: str = "") -> Program:
    """A program of these instructions, after two parameters, x and v.

    x has 512 KiB, in HBM; v has 4 KiB, on the chip.
    """
    return Program.parse(
        parts
        + "ENTRY %main (x: f32[1024,128], v: f32[8,128]) -> f32[] {\n"
        + "  %x = f32[1024,128]{1,0:T(8,128)} parameter(0)\n"
        "  %v = f32[8,128]{1,0:T(8,128)S(1)} parameter(1)\n"
        + "".join(f"  {line}\n" for line in lines)
        + "}\n"
    )


WHOLE, ROW = 1024 * 128 * 4, 8 * 128 * 4
GATHER = (
    "%s = (f32[1024,128]{1,0:T(8,128)}, f32[4096,128]{1,0:T(8,128)}) all-gather-start(%x), "
    "channel_id=1, dimensions={0}",
    "%d = f32[4096,128]{1,0:T(8,128)} all-gather-done(%s)",
)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            ("%r = f32[256,128]{1,0:T(8,128)} reduce-scatter(%x), channel_id=1, to_apply=%add",),
            {"reduce-scatter": WHOLE},
        ),
        (
            ("%r = f32[4096,128]{1,0:T(8,128)} all-gather(%x), channel_id=1",),
            {"all-gather": 4 * WHOLE},
        ),
        (GATHER, {"all-gather": 4 * WHOLE}),
        (
            (
                "%s = ((f32[1024,128]{1,0}, f32[8,128]{1,0}), "
                "(f32[4096,128]{1,0}, /*index=1*/f32[32,128]{1,0})) "
                "all-gather-start(%x, %v), channel_id=1",
            ),
            {"all-gather": 4 * (WHOLE + ROW)},
        ),
        (
            (
                "%s = ((f32[1024,128]{1,0}), f32[256,128]{1,0}, u32[]{:S(2)}) "
                "reduce-scatter-start(%x), channel_id=1",
            ),
            {"reduce-scatter": WHOLE},
        ),
        (
            ("%s = (f32[1024,128]{1,0}, f32[8,128]{1,0}) all-reduce-start(%x, %v), channel_id=1",),
            {"all-reduce": WHOLE + ROW},
        ),
        (
            (
                "%s = (f32[8,128]{1,0}, f32[8,128]{1,0}, u32[], u32[]) "
                "collective-permute-start(%v), channel_id=1",
            ),
            {"collective-permute": ROW},
        ),
    ],
)
def test_a_collective_counts_the_larger_of_what_goes_in_and_what_comes_out(lines, expected):
    assert program(*lines).collective_bytes == expected


def test_collectives_that_share_a_channel_all_count():
    lines = [
        f"%r.{i} = f32[1024,128]{{1,0}} all-reduce(%x), channel_id=1, to_apply=%add"
        for i in range(3)
    ]
    assert program(*lines).collective_bytes == {"all-reduce": 3 * WHOLE}


def test_a_sum_of_which_each_chip_keeps_a_slice_is_a_reduce_scatter():
    fusion = """%all-reduce-scatter.1 (input: f32[1024,128]) -> f32[512,128] {
  %input = f32[1024,128]{1,0:T(8,128)} parameter(0)
  %sum = f32[1024,128]{1,0:T(8,128)} all-reduce(%input), channel_id=1, to_apply=%add
  ROOT %part = f32[512,128]{1,0:T(8,128)} dynamic-slice(%sum, %id, %zero), \
dynamic_slice_sizes={512,128}
}
"""
    scattered = program(
        "%f = f32[512,128]{1,0:T(8,128)} fusion(%x), kind=kCustom, calls=%all-reduce-scatter.1",
        parts=fusion,
    )
    assert scattered.collective_bytes == {"reduce-scatter": WHOLE}
    assert scattered.hbm_bytes == WHOLE + WHOLE // 2


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            (
                "%s = (f32[1024,128]{1,0:T(8,128)S(1)}, f32[1024,128]{1,0:T(8,128)}, "
                "u32[]{:S(2)}) copy-start(%x)",
                "%d = f32[1024,128]{1,0:T(8,128)S(1)} copy-done(%s)",
            ),
            WHOLE,
        ),
        (
            (
                "%s = (f32[8,128]{1,0:T(8,128)}, f32[8,128]{1,0:T(8,128)S(1)}, "
                "u32[]{:S(2)}) copy-start(%v)",
                "%d = f32[8,128]{1,0:T(8,128)} copy-done(%s)",
            ),
            ROW,
        ),
        (
            (
                "%s = ((f32[1024,128]{1,0:T(8,128)}), f32[8,128]{1,0:T(8,128)S(1)}, s32[]) "
                "slice-start(%x), slice={[0:8]}",
                "%d = f32[8,128]{1,0:T(8,128)S(1)} slice-done(%s)",
            ),
            ROW,
        ),
        (
            (
                "%d = f32[8,128]{1,0:T(8,128)} dynamic-slice(%x, %i, %j), "
                "dynamic_slice_sizes={8,128}",
            ),
            2 * ROW,
        ),
        (("%d = f32[4,128]{1,0:T(8,128)} slice(%v), slice={[0:4]}",), ROW),
        (GATHER, WHOLE + 4 * WHOLE),
        (
            (
                "%s = (f32[1024,128]{1,0:T(8,128)}, f32[1024,128]{1,0:T(8,128)}) "
                "all-reduce-start(%x, %x)",
            ),
            4 * WHOLE,
        ),
    ],
)
def test_what_runs_in_two_halves_reads_once_and_writes_once(lines, expected):
    assert program(*lines).hbm_bytes == expected


def test_a_collective_during_fusions_reads_once_and_writes_once():
    def gather(operand: str) -> str:
        return (
            f"  %g.{operand} = f32[4096,128]{{1,0:T(8,128)}} all-gather(%{operand}), "
            "channel_id=3, dimensions={0}, "
            'backend_config={"async_collective_fusion_config":{"flag_start":"-1"}}\n'
        )

    def part(name: str, root: str) -> str:
        return f"%{name} (p: f32[1024,128]) -> f32[4096,128] {{\n{gather('p')}  ROOT {root}\n}}\n"

    parts = (
        part(
            "begin",
            "%c = (f32[1024,128], f32[4096,128]) custom-call(%g.p), "
            'custom_call_target="AsyncCollectiveStart"',
        )
        + part("during", "%t = (f32[8,128], f32[1024,128], f32[4096,128]) tuple(%y, %p, %g.p)")
        + part(
            "end", '%c = f32[4096,128] custom-call(%g.p), custom_call_target="AsyncCollectiveDone"'
        )
    )
    shard, whole = "f32[1024,128]{1,0:T(8,128)}", "f32[4096,128]{1,0:T(8,128)}"
    read = program(
        f"%s = ({shard}, {whole}) fusion(%x), kind=kCustom, "
        "output_to_operand_aliasing={{0}: (0, {})}, calls=%begin",
        f"%a = {shard} get-tuple-element(%s), index=0",
        f"%b = {whole} get-tuple-element(%s), index=1",
        f"%f = (f32[8,128]{{1,0:T(8,128)}}, {shard}, {whole}) fusion(%a, %b, %v), kind=kOutput, "
        "output_to_operand_aliasing={{1}: (0, {}), {2}: (1, {})}, calls=%during",
        f"%e = {whole} fusion(%a, %b), kind=kCustom, "
        "output_to_operand_aliasing={{}: (1, {})}, calls=%end",
        parts=parts,
    )
    assert read.collective_bytes == {"all-gather": 4 * WHOLE}
    assert read.hbm_bytes == WHOLE + 4 * WHOLE + ROW  # and what else the fusion on its way writes


def test_elements_of_a_tuple():
    shape = "((f32[8,4]{1,0:T(8,128)}, s32[]), /*index=1*/bf16[2]{0:S(1)}, u32[])"
    assert elements(shape) == ["(f32[8,4]{1,0:T(8,128)}, s32[])", "bf16[2]{0:S(1)}", "u32[]"]
    assert elements("f32[8,4]{1,0}") == ["f32[8,4]{1,0}"]


@pytest.mark.parametrize(
    ("shape", "logical", "hbm"),
    [
        ("bf16[8,128]{1,0:T(8,128)(2,1)}", 2048, 2048),
        ("bf16[8,32]{1,0:T(8,128)(2,1)}", 512, 2048),
        ("bf16[8,32]{0,1:T(8,128)(2,1)}", 512, 2 * 32 * 128),
        ("f32[3,3,128,4]{2,3,1,0:T(8,128)}", 18432, 9 * 128 * 8 * 4),
        ("f32[8,128]{1,0:T(8,128)S(1)}", 4096, 0),
        ("(f32[8,128]{1,0:T(8,128)}, s32[])", 4100, 4100),
        ("pred[16]{0}", 16, 16),
        ("f32[]", 4, 4),
    ],
)
def test_bytes_of_a_shape(shape, logical, hbm):
    assert logical_bytes(shape) == logical
    assert hbm_bytes(shape) == hbm
