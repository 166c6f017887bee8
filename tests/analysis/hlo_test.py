"""The text of compiled programs: shapes with their layouts, and how often loops run."""

import re

import pytest

from contextjax.analysis.hlo import Shape, parse, runs, shapes, trip_count
from tests.analysis.small_programs import LAYERS, saved


@pytest.mark.parametrize(
    ("text", "size", "padded", "is_in_main_memory"),
    [
        ("bf16[64,257,1024]{2,1,0:T(8,128)(2,1)}", 64 * 257 * 1024 * 2, 64 * 264 * 1024 * 2, True),
        ("bf16[64,257,3,1024]{1,3,0,2:T(8,128)(2,1)}", 64 * 257 * 3 * 1024 * 2, 64 * 384 * 3 * 1024 * 2, True),
        ("f32[6,256]{1,0:T(8,128)S(1)}", 6 * 256 * 4, 8 * 256 * 4, False),
        ("u8[4,33]{0,1:T(32,128)(4,1)}", 132, 64 * 128, True),
        ("s4[10]", 5, 5, True),
        ("pred[]{:T(512)}", 1, 1, True),
        ("u32[]{:S(2)}", 4, 4, False),
    ],
)
def test_a_shape_in_memory(text, size, padded, is_in_main_memory):
    (shape,) = shapes(text)
    assert isinstance(shape, Shape) and (shape.bytes, shape.padded) == (size, padded)
    assert shape.is_in_main_memory == is_in_main_memory


@pytest.mark.parametrize("name", ["v5e_fsdp", "h100_fsdp"])
def test_loops_of_saved_programs_run_once_a_layer(name):
    program = parse(saved(name))
    assert program.devices == 8
    loops = [each for each in program.computations[program.entry].values() if each.opcode == "while"]
    assert [trip_count(program, program.entry, loop) for loop in loops] == [LAYERS, LAYERS]
    assert {run.times for run in runs(program, lambda run: 0.0)} == {1, LAYERS}


LOOP = """HloModule m

%condition (p: (s32[], f32[4], s32[])) -> pred[] {
  %p = (s32[], f32[4]{0}, s32[]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %end = s32[] BOUND
  ROOT %test = pred[] compare(%i, %end), direction=LT
}

%body (q: (s32[], f32[4], s32[])) -> (s32[], f32[4], s32[]) {
  %q = (s32[], f32[4]{0}, s32[]) parameter(0)
  %j = s32[] get-tuple-element(%q), index=0
  %x = f32[4]{0} get-tuple-element(%q), index=1
  %n = s32[] get-tuple-element(%q), index=2
  %one = s32[] constant(STEP)
  %next = s32[] add(%j, %one)
  ROOT %t = (s32[], f32[4]{0}, s32[]) tuple(%next, %x, %n)
}

ENTRY %main (a: f32[4], r: s32[]) -> f32[4] {
  %a = f32[4]{0} parameter(0)
  %r = s32[] parameter(1)
  %zero = s32[] constant(FIRST)
  %copied = s32[] copy(%zero)
  %n = s32[] LIMIT
  %carry = (s32[], f32[4]{0}, s32[]) tuple(%copied, %a, %n)
  %loop = (s32[], f32[4]{0}, s32[]) while(%carry), condition=%condition, body=%body
  ROOT %out = f32[4]{0} get-tuple-element(%loop), index=1
}
"""


@pytest.mark.parametrize(
    ("bound", "first", "step", "limit", "count"),
    [
        ("constant(12)", 0, 1, "constant(5)", 12),
        ("constant(12)", 2, 3, "constant(5)", 4),
        ("get-tuple-element(%p), index=2", 0, 1, "constant(5)", 5),  # the bound comes from outside
        ("get-tuple-element(%p), index=2", 0, 1, "copy(%r)", None),  # and is an argument
        ("constant(12)", 0, 0, "constant(5)", None),
    ],
)
def test_a_loop_is_counted_by_its_condition(bound, first, step, limit, count):
    text = LOOP
    for word, value in {"BOUND": bound, "FIRST": f"{first}", "STEP": f"{step}", "LIMIT": limit}.items():
        text = re.sub(word if word in ("BOUND", "LIMIT") else rf"(?<=\(){word}(?=\))", value, text)
    program = parse(text)
    assert trip_count(program, "main", program.computations["main"]["loop"]) == count
