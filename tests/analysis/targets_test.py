"""Names of targets, what is said of wrong ones, and refusals of the TPU's compiler."""

import importlib.util

import pytest

from contextjax.analysis.targets import GIB, GPU_RESERVE, GPUS, needed_bytes, parse_target, prepare
from contextjax.types import UserError


@pytest.mark.parametrize(
    ("name", "chip", "count", "is_tpu"),
    [
        ("v5p:4x4x4", "v5p", 64, True),
        ("v5e:16x16,slices=2", "v5e", 512, True),
        ("V5E:1x1", "v5e", 1, True),
        ("tpu7x:2x2x1", "tpu7x", 8, True),
        ("H100:1x8x8", "H100", 64, False),
        ("a100:2x1x8", "A100", 16, False),
    ],
)
def test_a_target(name, chip, count, is_tpu):
    target = parse_target(name)
    assert (target.chip.name, target.count, target.is_tpu) == (chip, count, is_tpu)
    assert 0.8 * target.chip.memory < target.limit < 1.1 * target.chip.memory
    assert ("own" in target.memory_source) == is_tpu
    assert bool(target.compiler_options("low")) and bool(target.compiler_options("default")) != is_tpu
    if not is_tpu:
        assert target.limit == (1 - GPU_RESERVE) * GPUS[chip]["memory"] and GPUS[chip]["spec"] in target.memory_source


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("", "expected a chip and its topology"),
        ("v5e", "expected a chip and its topology"),
        ("v5e:0x4", "expected a chip and its topology"),
        ("v5e:-2x4", "expected a chip and its topology"),
        ("v5e:2x4,slices=0", "expected a chip and its topology"),
        ("v5e:2x4,hosts=2", "expected a chip and its topology"),
        ("v9:2x2", "chip is 'v9'; known are v4, v5e, v5p, v6e, tpu7x, A100, H100, H200"),
        ("v5e:2x2x2", "a v5e has 2 numbers: 2x4"),
        ("v5p:4x4", "a v5p has 3 numbers: 2x4x8"),
        ("H100:8", "a H100 has 3 numbers: domains x servers x GPUs a server"),
        ("H100:1x1x16", "a server of H100 has at most 8"),
        ("H100:1x1x8,slices=2", "of GPUs the first number counts domains, as in H100:2x1x8"),
        ("v6e:32x32", "has 1024 devices; a slice of v6e has at most 256"),
    ],
)
def test_what_is_no_target_is_said(name, complaint):
    with pytest.raises(UserError, match=complaint):
        parse_target(name)


@pytest.mark.parametrize(("name", "package", "extra"), [("v5e:2x4", "libtpu", "tpu"), ("H100:1x1x8", "", "cuda12")])
def test_a_compiler_that_is_not_installed(name, package, extra, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=rf"needs the compiler of its chip; pip install 'contextjax\[{extra}\]'"):
        prepare(parse_target(name))


@pytest.mark.parametrize(
    ("refusal", "needed"),
    [
        ("Ran out of memory in memory space hbm. Used 51.23G of 15.75G hbm. Exceeded by 35.48G.", 51.23 * GIB),
        ("RESOURCE_EXHAUSTED: the program's (512.5M) exceeds available HBM (15.75G)", 512.5 * 2**20),
        ("RESOURCE_EXHAUSTED: no figures", None),
    ],
)  # fmt: skip
def test_what_a_refusal_says(refusal, needed):
    assert needed_bytes(refusal) == needed
