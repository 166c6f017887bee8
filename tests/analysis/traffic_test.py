"""Bytes that programs move and FLOPs that they compute: by hand for small texts, and of saved programs."""

import pytest

from contextjax.analysis.traffic import seconds, traffic
from tests.analysis.small_programs import HIDDEN, LAYERS, ROWS, WIDTH, saved

TEXT = """HloModule m

%slices (s: f32[6,8,128], i: s32[]) -> f32[8,128] {
  %s = f32[6,8,128]{2,1,0:T(8,128)} parameter(0)
  %i = s32[]{:S(6)} parameter(1)
  %z = s32[] constant(0)
  %d = f32[1,8,128]{2,1,0:T(8,128)} dynamic-slice(%s, %i, %z, %z), dynamic_slice_sizes={1,8,128}
  ROOT %b = f32[8,128]{1,0:T(8,128)} bitcast(%d)
}

%updates (s.1: f32[6,8,128], u: f32[8,128], i.1: s32[]) -> f32[6,8,128] {
  %s.1 = f32[6,8,128]{2,1,0:T(8,128)} parameter(0)
  %u = f32[8,128]{1,0:T(8,128)} parameter(1)
  %i.1 = s32[]{:S(6)} parameter(2)
  %z.1 = s32[] constant(0)
  %r = f32[1,8,128]{2,1,0:T(8,128)} bitcast(%u)
  ROOT %w = f32[6,8,128]{2,1,0:T(8,128)} dynamic-update-slice(%s.1, %r, %i.1, %z.1, %z.1)
}

%product (a: bf16[4,16], k: bf16[16,32]) -> bf16[4,32] {
  %a = bf16[4,16]{1,0} parameter(0)
  %k = bf16[16,32]{1,0} parameter(1)
  ROOT %c = bf16[4,32]{1,0} convolution(%a, %k), dim_labels=bf_io->bf
}

ENTRY %main (x: f32[6,8,128], y: f32[5,128], p: bf16[4,16], q: bf16[16,32]) -> f32[6,8,128] {
  %x = f32[6,8,128]{2,1,0:T(8,128)} parameter(0)
  %y = f32[5,128]{1,0:T(8,128)} parameter(1)
  %p = bf16[4,16]{1,0} parameter(2)
  %q = bf16[16,32]{1,0} parameter(3)
  %n = s32[]{:S(6)} constant(3)
  INSTRUCTION
  ROOT %out = f32[6,8,128]{2,1,0:T(8,128)} bitcast(%x)
}
"""
BLOCK = 8 * 128 * 4


@pytest.mark.parametrize(
    ("instruction", "read", "written"),
    [
        ("%o = f32[5,128]{1,0:T(8,128)} negate(%y)", BLOCK, BLOCK),  # five rows fill a tile of eight
        ("%o = f32[5,128]{1,0:T(8,128)S(1)} negate(%y)", BLOCK, 0),
        ("%o = f32[8,128]{1,0:T(8,128)} fusion(%x, %n), kind=kLoop, calls=%slices", BLOCK, BLOCK),
        ("%o = f32[6,8,128]{2,1,0:T(8,128)} fusion(%x, %y, %n), kind=kLoop, calls=%updates", BLOCK, BLOCK),
        ("%o = f32[1,8,128]{2,1,0:T(8,128)S(1)} dynamic-slice(%x, %n, %n, %n)", BLOCK, 0),
        ("%o = f32[6,8,128]{2,1,0:T(8,128)} dynamic-update-slice(%x, %y, %n, %n, %n)", BLOCK, BLOCK),
        ("%o = (f32[5,128]{1,0:T(8,128)S(1)}, f32[5,128]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%y)", BLOCK, 0),
        ("%o = ((f32[6,8,128]{2,1,0}), f32[1,8,128]{2,1,0:T(8,128)S(1)}, s32[]{:S(2)}) slice-start(%x)", BLOCK, 0),
        ('%o = f32[6,8,128]{2,1,0:T(8,128)} custom-call(), custom_call_target="AllocateBuffer"', 0, 0),
        ("%o = (f32[6,8,128]{2,1,0:T(8,128)}, f32[5,128]{1,0:T(8,128)}) tuple(%x, %y)", 0, 0),
        ("%o = f32[8]{0} all-reduce(%g), replica_groups={}", 0, 32),  # an operand that the text lacks
    ],
)  # fmt: skip
def test_bytes_by_hand(instruction, read, written):
    works = traffic(TEXT.replace("INSTRUCTION", instruction))
    assert (sum(work.read for work in works), sum(work.written for work in works)) == (read, written)


@pytest.mark.parametrize(
    "instruction",
    [
        "%o = bf16[4,32]{1,0} fusion(%p, %q), kind=kOutput, calls=%product",
        "%o = bf16[4,32]{1,0} dot(%p, %q), lhs_contracting_dims={1}, rhs_contracting_dims={0}",
        '%o = bf16[4,32]{1,0} custom-call(%p, %q), custom_call_target="__cublas$gemm", '
        'backend_config={"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"]}}',
    ],
)
def test_flops_by_hand(instruction):
    (work,) = [work for work in traffic(TEXT.replace("INSTRUCTION", instruction)) if work.flops]
    assert work.flops == 2 * 4 * 16 * 32
    moved = 2 * (4 * 16 + 16 * 32 + 4 * 32)
    assert work.moved == moved
    assert seconds([work], peak=1.0, bandwidth=1e9) == work.flops
    assert seconds([work], peak=1e9, bandwidth=1.0) == moved


@pytest.mark.parametrize(
    ("attributes", "pairs"),
    [  # output and kernel positions of 4 x 4 that meet input
        ("window={size=3 pad=1_1}, dim_labels=b0f_0io->b0f", 4 * 3 - 2),
        (
            "window={size=4 stride=3 pad=3_3 lhs_dilate=4 rhs_reversal=1}, dim_labels=b0f_0io->b0f",
            4,
        ),  # a batch of products
    ],
)
def test_flops_of_a_window(attributes, pairs):
    size = 3 if "size=3" in attributes else 4
    text = f"""HloModule m

ENTRY %main (x: f32[2,4,8], k: f32[{size},8,16]) -> f32[2,4,16] {{
  %x = f32[2,4,8] parameter(0)
  %k = f32[{size},8,16] parameter(1)
  ROOT %c = f32[2,4,16] convolution(%x, %k), {attributes}
}}
"""
    assert sum(work.flops for work in traffic(text)) == 2 * 2 * 8 * 16 * pairs


@pytest.mark.parametrize("name", ["v5e_fsdp", "h100_fsdp"])
def test_a_saved_program(name):
    """Seven products a layer: two forward, one again, four for the gradients. Parameters are read and written."""
    works = traffic(saved(name))
    assert sum(work.flops for work in works) == 7 * LAYERS * 2 * ROWS // 8 * WIDTH * HIDDEN
    parameters = 2 * LAYERS * WIDTH * HIDDEN * 4 / 4
    assert all(work.run.is_exact for work in works)
    assert 2 * parameters < sum(work.moved for work in works) < 40 * parameters
    assert sum(work.written for work in works) > parameters
