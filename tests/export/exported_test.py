"""An export answers as the live system does, without Flax or without JAX, and refuses what is not whole."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import contextjax
from contextjax.export.exported import open_export
from contextjax.export.write import write_export
from contextjax.types import UserError
from tests.commands import environment
from tests.export.conftest import TEXTS, make_system

pytestmark = pytest.mark.long

ROOT = Path(__file__).parent.parent.parent


def answers(system, pictures):
    """Returns the answers of a system to a few inputs."""
    return {
        "query": system.encode_query([*pictures, pictures[0]], [*TEXTS, TEXTS[1]]),
        "gallery": system.encode_gallery(pictures),
        "text": system.encode_text(TEXTS),
        "score": system.score_candidates(pictures, TEXTS[1], ordered=True),
        "sets": system.score_sets([pictures[:2], pictures[1:]], TEXTS[:2]),
    }


@pytest.mark.parametrize("runtime", ["stablehlo", "onnx"])
def test_every_method_answers_as_the_live_system(case, pictures, runtime):
    exported = open_export(case.export, runtime=runtime)
    expected = answers(case.system, pictures)
    for name, found in answers(exported, pictures).items():
        assert found.shape == expected[name].shape and found.dtype == np.float32, name
        np.testing.assert_allclose(found, expected[name], atol=2e-5, rtol=1e-5, err_msg=name)
    long = "remove the dog " * 20
    assert exported.truncated([long]) == case.system.truncated([long]) != []
    assert exported.identity == case.system.identity


@pytest.mark.parametrize("runtime", ["stablehlo", "onnx"])
def test_no_rows_give_no_rows(case, runtime):
    """Each program by itself and in its own runtime, in a process that would end with a signal."""
    exported = open_export(case.export, runtime=runtime)
    for name, program in exported.manifest["programs"].items():
        row = program["output"]["shape"][0]
        shapes = [
            [0 if axis == row else 3 if isinstance(axis, str) else axis for axis in x["shape"]]
            for x in program["inputs"]
        ]
        inputs = [np.zeros(shape, x["dtype"]) for shape, x in zip(shapes, program["inputs"], strict=True)]
        expected = tuple(0 if axis == row else axis for axis in program["output"]["shape"])
        assert exported.programs[name](*inputs).shape == expected, name
        if runtime == "onnx":
            session = onnxruntime.InferenceSession(case.export / f"{name}.onnx")
            given = {x["name"]: value for x, value in zip(program["inputs"], inputs, strict=True)}
            assert session.run(None, given)[0].shape == expected, name
    for system in (exported, case.system):
        assert system.encode_text([]).shape == system.encode_query([], []).shape == (0, 8)
    with pytest.raises(UserError, match="'text' is given 0 tokens"):
        exported.programs["text"](np.zeros((2, 0), np.int32), np.zeros((2, 0), bool))


def answers_without(packages: str, way: str, export: Path, pictures, place: Path) -> subprocess.CompletedProcess[str]:
    """Writes the answers of an export to place/out.npz, in a process that lacks packages."""
    np.savez(place / "in.npz", **{str(i): x for i, x in enumerate(pictures)})
    places = [str(path) for path in (export, place / "in.npz", place / "out.npz")]
    command = [sys.executable, "-m", "tests.export.answers_without", packages, way, *places]
    return subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("packages", "way"),
    [("flax,optax,orbax", "load"), ("flax,optax,orbax,jax,jaxlib", "onnx")],
    ids=["stablehlo without flax", "onnx without jax"],
)
def test_it_runs_where_the_frameworks_are_not_installed(case, pictures, tmp_path, packages, way):
    done = answers_without(packages, way, case.export, pictures, tmp_path)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "out.npz")
    queries = case.system.encode_query(pictures[:2], ["remove the dog", "make it large"])
    np.testing.assert_allclose(found["query"], queries, atol=1e-5)
    np.testing.assert_allclose(found["gallery"], case.system.encode_gallery(pictures), atol=1e-5)
    scores = case.system.score_candidates(pictures, "make it large")
    np.testing.assert_allclose(found["score"], scores, atol=2e-5, rtol=1e-5)


@pytest.mark.usefixtures("short_certificate")
def test_onnx_alone_is_loaded_without_jax_by_load(tmp_path, pictures):
    system, config = make_system("context_cir")
    write_export(system, tmp_path / "out", formats=("onnx",), config=config)
    done = answers_without("jax,flax", "load", tmp_path / "out", pictures, tmp_path)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "out.npz")["gallery"], system.encode_gallery(pictures), atol=1e-5)


def test_what_an_export_cannot_do_is_said_in_one_sentence(case, pictures):
    exported = contextjax.load(case.export)
    for call in (lambda: exported.attention_maps(pictures, TEXTS), lambda: exported.with_query("sum"),
                 lambda: exported.params, lambda: exported.vision):  # fmt: skip
        with pytest.raises(UserError, match="An export of programs has no"):
            call()
    if limit := exported.manifest["limits"].get("candidates"):
        with pytest.raises(UserError, match=f"{limit + 1} candidates"):
            exported.score_candidates([pictures[0]] * (limit + 1), TEXTS[0])
    with pytest.raises(UserError, match="leave out mesh"):
        contextjax.load(case.export, checkpoint="best")
