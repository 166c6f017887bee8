"""Programs by the compilers of real chips, where these are installed: a tiny step of each system, and an export.

`make test-targets` runs this in an environment for each compiler; none of it is run on a chip.
"""

import importlib.util
import json
import os
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from contextjax.analysis.collectives import bytes_by_type, collectives
from contextjax.analysis.targets import devices_of, parse_target, prepare
from contextjax.analysis.traffic import traffic
from contextjax.export.programs import make_programs, portable, tree_of
from contextjax.export.stablehlo import to_stablehlo
from contextjax.models.layers import fused_attend
from contextjax.sharding import make_mesh
from contextjax.system import System
from tests.analysis import small_programs
from tests.commands import interpreter
from tests.shape_checks import no_shape_checks

pytestmark = pytest.mark.long
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # a command that a test starts compiles too


def installed(target):
    name = "libtpu" if target.is_tpu else "jax_plugins"
    return importlib.util.find_spec(name) is not None


@pytest.fixture(params=["v5e:2x4", "H100:1x1x8"])
def target(request):
    target = parse_target(request.param)
    if not installed(target):
        pytest.skip("the compiler of this chip is not installed")
    prepare(target)
    return target


@pytest.mark.parametrize(
    ("recipe", "mesh"),
    [("pictograms.py:no_consistency,tiny", "data:8"), ("pictogram_sets.py:pairs,tiny", "data:2,fsdp:4")],
)
def test_a_recipe_of_each_system_is_compiled(target, recipe, mesh, tmp_path):
    """In bfloat16, and gradients are summed in float32 nevertheless."""
    output = tmp_path / "plan.json"
    done = interpreter(
        "plan", f"--config=configs/{recipe}", f"--mesh={mesh}", f"--target={target.name}", "--effort=low",
        "--nosimulated", "--config.model.dtype=bfloat16", f"--output={output}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    figures = json.loads(output.read_text())
    assert figures["fits"] and figures["inexact"] == 0 and sum(figures["sent"].values()) > 0
    assert f"fits {target.name}" in done.stdout
    if mesh == "data:8":
        assert figures["sent_by_type"]["all-reduce"]["f32"] > 0 and "bf16" not in figures["sent_by_type"]["all-reduce"]


def test_a_small_step_sends_and_computes_what_its_saved_text_says(target):
    """A change here is one of the compiler: small_programs.save makes the saved texts again."""
    program = small_programs.lowered(make_mesh("data:2,fsdp:4", devices=devices_of(target)))
    text = program.compile(compiler_options=target.compiler_options("default") or None).as_text()
    saved = small_programs.saved(f"{target.chip.name.lower()}_fsdp")
    kinds = [bytes_by_type(collectives(each)) for each in (text, saved)]
    assert kinds[0].keys() == kinds[1].keys()
    for kind, types in kinds[0].items():
        assert types == pytest.approx(kinds[1][kind], rel=0.05)
    flops = [sum(work.flops for work in traffic(each)) for each in (text, saved)]
    assert flops[0] == flops[1]


def test_a_program_that_is_too_large_is_refused_with_what_is_missing(target):
    done = interpreter(
        "plan", "--config=configs/pictograms.py:no_consistency,tiny", "--mesh=data:8", f"--target={target.name}",
        "--effort=low", "--nosimulated", "--batch=2097152",
    )  # fmt: skip
    assert done.returncode == 2 and "does not fit" in done.stderr and "remat=full" in done.stderr, done.stderr


@pytest.mark.parametrize(("tokens", "mask"), [(77, True), (197, False), (257, False)])
def test_cudnn_computes_gradients_for_odd_numbers_of_tokens(tokens, mask):
    target = parse_target("H100:1x1x1")
    if not installed(target):
        pytest.skip("the compiler of this chip is not installed")
    prepare(target)
    mesh = make_mesh("data:1", devices=devices_of(target))
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    heads = jax.ShapeDtypeStruct((4, tokens, 8, 64), jnp.bfloat16, sharding=place)
    seen = jnp.tril(jnp.ones((tokens, tokens), bool))[None, None] if mask else None
    loss = lambda *x: fused_attend(*x, seen).astype(jnp.float32).sum()
    program = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(heads, heads, heads)
    text = program.compile(compiler_options=target.compiler_options("default")).as_text()
    assert "__cudnn$fmha" in text


@pytest.mark.parametrize("name", ["v5e:1x1", "H100:1x1x1"])
def test_the_programs_of_an_export_are_compiled(name, tiny):
    """Written as experiments.export writes them, for any number of rows; read back and compiled for the chip."""
    target = parse_target(name)
    if not installed(target):
        pytest.skip("the compiler of this chip is not installed")
    prepare(target)
    model = tiny.model()
    no_tokenizer: Any = None
    live, tensors = portable(System(model, tiny.params(model), no_tokenizer), "float32")
    programs = {program.name: program for program in make_programs(System(model, {}, no_tokenizer), live)}
    place = jax.sharding.NamedSharding(make_mesh("data:1", devices=devices_of(target)), jax.sharding.PartitionSpec())
    on = lambda shape, dtype: jax.ShapeDtypeStruct(shape, dtype, sharding=place)
    with no_shape_checks():
        for program in (programs["query"], programs["gallery"]):
            call = lambda tensors, *inputs, program=program: program.call(tree_of(tensors), *inputs)
            read = jax.export.deserialize(bytearray(to_stablehlo(call, tensors, program.trace_inputs())))
            sizes = {"batch": 8, "tokens": 10}
            inputs = [on(tuple(sizes.get(axis, axis) for axis in x.axes), x.dtype) for x in program.inputs]
            given = {name: on(x.shape, x.dtype) for name, x in tensors.items()}
            compiled = jax.jit(read.call).lower(given, *inputs)
            text = compiled.compile(compiler_options=target.compiler_options("low") or None).as_text()
            assert sum(work.flops for work in traffic(text)) > 0
