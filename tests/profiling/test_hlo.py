"""Reading a compiled program, on a small one in the TPU compiler's format."""

import pytest

from sr3_jax.profiling.hlo import Program, hbm_bytes, logical_bytes

pytestmark = pytest.mark.fast

TEXT = """HloModule jit_step, is_scheduled=true

%fused_computation (p.0: bf16[8,128]) -> bf16[8,128] {
  %p.0 = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %all-gather.9 = bf16[8,256]{1,0:T(8,128)(2,1)} all-gather(%p.0), channel_id=7, dimensions={1}
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
  ROOT %all-gather.10 = bf16[8,256]{1,0:T(8,128)(2,1)} all-gather(%p.2), channel_id=7, dimensions={1}
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
    assert Program.parse(TEXT, trips=5).by_operation() == [("jit(step)/outer", 1080), ("jit(step)/inner", 800)]


def test_a_collective_in_two_parts_counts_once():
    assert Program.parse(TEXT, trips=5).collective_bytes == {"all-reduce": 8 * 100 * 4, "all-gather": 8 * 8 * 256 * 2}


def test_traffic_counts_padding_and_leaves_out_what_stays_on_the_chip():
    tile = 8 * 128 * 2
    per_trip = tile + tile  # what f.1 reads and f.2 writes, but not what passes between them
    condition = 1 + 2 * (4 + tile)  # the comparison
    # the all-reduce: 100 columns are padded to 128; the copy reads its result
    assert Program.parse(TEXT).hbm_bytes == (1 + 3) * (per_trip + condition) + (2 * tile + tile) + 2 * 2 * tile


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
