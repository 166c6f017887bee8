"""The programs of an export: what is computed in them, and their axes."""

import re

import jax
import pytest

from contextjax.export.folder import read_manifest
from contextjax.export.programs import make_programs, portable
from contextjax.types import UserError
from tests.export.conftest import make_system


def test_nothing_of_the_consistency_branch_is_in_it(case):
    """The matrix products of towers, fusion and head, and no other; every program is there for three platforms."""
    import onnx

    if case.system.spec.family != "context_cir":
        pytest.skip("ContextBLIP has none")
    vision, text, block = case.system.spec.vision, case.system.spec.text, 6
    tower = 1 + 1 + block * vision["layers"] + 1  # stem, patches, blocks, pooling over the grid
    fusion = 8 + 4  # query, key, value, scores, mixture, out, up, down; self-attention: qkv, scores, mixture, out
    expected = {"query": tower - 1 + block * text["layers"] + fusion + 6 + 1, "gallery": tower + 1}
    for name, count in expected.items():
        exported = jax.export.deserialize(bytearray((case.export / f"{name}.stablehlo").read_bytes()))
        assert set(exported.platforms) == {"cpu", "cuda", "tpu"}
        # jax.export writes a product once for each platform
        assert len(re.findall(r"stablehlo\.dot_general", exported.mlir_module())) == 3 * count, name
        nodes = onnx.load(case.export / f"{name}.onnx", load_external_data=False).graph.node
        assert sum(node.op_type == "MatMul" for node in nodes) == count, name
    manifest = read_manifest(case.export)
    inputs = {x["name"] for program in manifest["programs"].values() for x in program["inputs"]}
    assert inputs == {"pictures", "ids", "mask"}  # no phrases


@pytest.mark.parametrize("kind", ["context_cir", "context_blip"])
def test_free_axes_have_one_size_in_all_inputs_and_their_limits(kind):
    system, _ = make_system(kind)
    programs = {program.name: program for program in make_programs(system, system.model)}
    assert list(programs) == ["query", "gallery", "text", "score"]
    pictures, ids, mask = programs["query"].trace_inputs()
    assert pictures.shape[0] == ids.shape[0] == mask.shape[0] and ids.shape == mask.shape
    names = [x.name for x in programs["score"].inputs]
    more = ["proposition_ids", "proposition_mask", "ordered"] if kind == "context_blip" else []
    assert names == ["pictures", "ids", "mask", *more]
    assert programs["score"].limits.get("candidates") == (5 if more else None)
    assert programs["text"].limits == {"tokens": 32}


def test_an_unknown_type_is_refused():
    system, _ = make_system("context_cir")
    with pytest.raises(UserError, match="dtype is 'float8'; expected one of float32, bfloat16"):
        portable(system, "float8")
