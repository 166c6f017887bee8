"""An export answers as the live system does, without Flax or without JAX, and refuses what is not whole."""

import hashlib
import json
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import contextjax
from contextjax.checkpoints import integrity
from contextjax.export.exported import open_export
from contextjax.export.folder import check_formats, read_manifest
from contextjax.export.parity import BATCHES, INPUTS
from contextjax.export.write import write_export
from contextjax.spec import SystemSpec
from contextjax.types import UserError
from experiments.shared.weights import export
from tests.commands import environment
from tests.export.conftest import SIZES, TEXTS, make_system, write_run

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


def test_the_certificate_is_of_the_written_programs(case):
    found = json.loads((case.export / "parity.json").read_text())
    manifest = read_manifest(case.export)
    assert found["trained"] == {"dtype": "float32", "largest_difference": {}}
    assert found["tolerance"] == 1e-5 and found["versions"]["jax"] and found["hardware"].startswith("cpu")
    largest = manifest["limits"].get("candidates", BATCHES[-1])
    for form in ("stablehlo", "onnx"):
        assert set(found["largest_difference"][form]) == {"query", "gallery", "text", "score"}
        for name, batches in found["largest_difference"][form].items():
            most = largest if name == "score" else BATCHES[-1]
            assert set(batches) == {str(min(batch, most)) for batch in BATCHES}
            assert all(value <= 1e-5 for value in batches.values())
    assert INPUTS >= 64


def answers_without(packages: str, way: str, export: Path, pictures, place: Path) -> subprocess.CompletedProcess[str]:
    """Writes the answers of an export to place/out.npz, in a process that lacks packages."""
    np.savez(place / "in.npz", **{str(i): x for i, x in enumerate(pictures)})
    places = [str(path) for path in (export, place / "in.npz", place / "out.npz")]
    command = [sys.executable, "-m", "tests.export.answers_without", packages, way, *places]
    return subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)


@pytest.mark.long
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


@pytest.mark.long
@pytest.mark.usefixtures("short_certificate")
def test_onnx_alone_is_loaded_without_jax_by_load(tmp_path, pictures):
    system, config = make_system("context_cir")
    write_export(system, tmp_path / "out", formats=("onnx",), config=config)
    done = answers_without("jax,flax", "load", tmp_path / "out", pictures, tmp_path)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "out.npz")["gallery"], system.encode_gallery(pictures), atol=1e-5)


def test_nothing_of_the_consistency_branch_is_in_it(case):
    """The matrix products of towers, fusion and head, and no other; every program is there for three platforms."""
    import jax
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


def test_the_folder_says_what_it_is(case):
    assert SystemSpec.read(case.export) == case.system.spec
    sums = integrity.Manifest.read(case.export).files
    assert sums.keys() == {path.name for path in case.export.iterdir()} - {integrity.NAME}
    for name, (size, digest) in sums.items():
        content = (case.export / name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (size, digest)
    card = (case.export / "README.md").read_text()
    for needed in ("## Recipe", "No evaluation", "## Parity", "16, 16, 3", "## Licence",
                   f"config {case.system.fingerprint.removesuffix('-7')}"):  # fmt: skip
        assert needed in card
    weights = (case.export / "model.safetensors").stat().st_size
    assert sum(path.stat().st_size for path in case.export.glob("*.onnx")) < 4 * weights  # parameters lie there once


def test_what_an_export_cannot_do_is_said_in_one_sentence(case, pictures):
    exported = contextjax.load(case.export)
    for call in (lambda: exported.attention_maps(pictures, TEXTS), lambda: exported.with_query("sum"),
                 lambda: exported.params):  # fmt: skip
        with pytest.raises(UserError, match="An export of programs has no"):
            call()
    if limit := exported.manifest["limits"].get("candidates"):
        with pytest.raises(UserError, match=f"{limit + 1} candidates"):
            exported.score_candidates([pictures[0]] * (limit + 1), TEXTS[0])
    with pytest.raises(UserError, match="leave out mesh"):
        contextjax.load(case.export, checkpoint="best")


@pytest.fixture
def copy(case, tmp_path):
    return Path(shutil.copytree(case.export, tmp_path / "copy"))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (
            lambda f: (f / "query.stablehlo").write_bytes((f / "query.stablehlo").read_bytes()[:-1]),
            "query.stablehlo is not what was written",
        ),
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda f: (f / "export.json").write_text("{"), "is not JSON"),
        (lambda f: (f / "export.json").write_text('{"export": 1}'), "is not whole"),
        (lambda f: _edit(f, lambda m: m | {"export": 2}), "export of version 2"),
        (lambda f: _edit(f, lambda m: _rename(m, "../x")), "not beside it"),
        (lambda f: (_edit(f, lambda m: _rename(m, "x")), integrity.write(f)), "names x, which has no checksum"),
        (lambda f: _edit(f, lambda m: m | {"class": "Other"}), "export.json is not what was written"),
        (lambda f: (f / integrity.NAME).unlink(), "it has no checksums.json"),
        (
            lambda f: (_edit(f, lambda m: m | {"formats": ["tensorrt"]}), integrity.write(f)),
            "no.*config.json|is asked for",
        ),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(copy, damage, sentence):
    damage(copy)
    with pytest.raises(UserError, match=sentence):
        open_export(copy)


def _rename(manifest, name):
    manifest["programs"]["query"]["files"]["stablehlo"] = name
    return manifest


def _edit(folder, change):
    path = folder / "export.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


@pytest.mark.long
@pytest.mark.usefixtures("short_certificate")
def test_an_export_of_parameters_alone_is_the_live_system(tmp_path, pictures):
    """Stacked layers too: they are written one by one, and read into stacked ones."""
    system, config = make_system("context_cir", vision={**SIZES["vision"], "scan": True})
    write_export(system, tmp_path / "out", formats=("safetensors",), config=config)
    loaded = contextjax.load(tmp_path / "out")
    assert isinstance(loaded, contextjax.System) and loaded.fingerprint == system.fingerprint
    assert loaded.identity == system.identity
    np.testing.assert_allclose(loaded.encode_query(pictures, TEXTS), system.encode_query(pictures, TEXTS), atol=1e-6)
    write_export(system, tmp_path / "programs", formats=("stablehlo",), config=config)
    exported = contextjax.load(tmp_path / "programs")
    assert exported.identity == system.identity
    np.testing.assert_allclose(exported.encode_query(pictures, TEXTS), system.encode_query(pictures, TEXTS), atol=1e-5)


@pytest.mark.long
@pytest.mark.usefixtures("short_certificate")
def test_bfloat16_is_half_the_size_and_another_model(case, tmp_path, pictures):
    write_export(case.system, tmp_path / "half", formats=("stablehlo",), dtype="bfloat16", config=case.config)
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (tmp_path / "half", case.export)]
    assert sizes[0] < 0.6 * sizes[1]
    exported = contextjax.load(tmp_path / "half")
    assert exported.identity != case.system.identity
    gallery = exported.encode_gallery(pictures)
    np.testing.assert_allclose(np.linalg.norm(gallery, axis=1), 1, atol=1e-5)
    difference = np.abs(gallery - case.system.encode_gallery(pictures)).max()
    assert 0 < difference < json.loads((tmp_path / "half" / "parity.json").read_text())["tolerance"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "formats"), [("context_cir", ["safetensors", "stablehlo", "onnx"]), ("context_blip", ["stablehlo"])]
)
@pytest.mark.usefixtures("short_certificate")
def test_a_run_in_bfloat16_is_exported_in_float32_and_the_distance_is_reported(
    tmp_path, pictures, capsys, kind, formats
):
    """The full-size recipes train so."""
    system, config = make_system(kind, dtype="bfloat16")
    write_run(tmp_path / "run", system, config)
    export(str(tmp_path / "run"), tmp_path / "out", formats=formats)
    found = json.loads((tmp_path / "out" / "parity.json").read_text())
    for programs in found["largest_difference"].values():
        assert all(value <= 1e-5 for batches in programs.values() for value in batches.values())
    assert "live model computes in float32" in found["difference"] and found["trained"]["dtype"] == "bfloat16"
    apart = max(max(batches.values()) for batches in found["trained"]["largest_difference"].values())
    for report in ((tmp_path / "out" / "README.md").read_text(), capsys.readouterr().out):
        assert apart > 1e-4 and f"up to {apart:.1e} from itself" in report
    exported = open_export(tmp_path / "out", runtime="stablehlo")
    assert exported.identity == system.identity
    plain = make_system(kind)[0]
    expected, own = (each.encode_query(pictures, TEXTS) for each in (plain, system))
    np.testing.assert_allclose(exported.encode_query(pictures, TEXTS), expected, atol=2e-5)
    assert np.abs(own - expected).max() > 1e-4


@pytest.mark.long
def test_nothing_is_left_where_a_program_is_wrong(case, tmp_path, monkeypatch):
    """The certificate reads what was written: a program of other parameters does not pass."""
    from contextjax.export import write

    honest = write.open_programs
    broken = lambda *a: {n: (lambda *x, run=run: run(*x) + 1e-4) for n, run in honest(*a).items()}
    monkeypatch.setattr(write, "open_programs", broken)
    with pytest.raises(UserError, match=r"differs from the live model by 1\.\de-04"):
        write_export(case.system, tmp_path / "out", formats=("stablehlo",), config=case.config)
    monkeypatch.setattr(
        write, "open_programs", lambda *a: {n: (lambda *x, r=r: r(*x) * np.nan) for n, r in honest(*a).items()}
    )
    with pytest.raises(UserError, match="nan"):
        write_export(case.system, tmp_path / "out", formats=("stablehlo",), config=case.config)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_takes_no_more_is_told_and_nothing_is_left(case, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(UserError, match=r"can't be written .*; make room"):
            write_export(case.system, tmp_path / "out", formats=("safetensors",), config=case.config)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_what_running_it_lacks_is_named(case):
    code = f"""
import sys
sys.modules["flatbuffers"] = None
import contextjax
from contextjax.spec import SystemSpec
from contextjax.types import UserError
try:
    contextjax.load({str(case.export)!r})
except UserError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True, check=True
    )
    assert re.search(r"needs a package .*flatbuffers.*pip install 'contextjax\[export\]'", done.stdout), done.stdout


def test_requests_that_cannot_be_met(case, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("mine")
    for target, options, sentence in (
        ("there", {"formats": ("stablehlo",)}, "exists already"),
        ("out", {"formats": ("onnx",), "dtype": "bfloat16"}, "leave onnx out"),
        ("out", {"formats": ("stablehlo",), "dtype": "float8"}, "float8"),
    ):
        with pytest.raises(UserError, match=sentence):
            write_export(case.system, tmp_path / target, **{"config": case.config, **options})
    assert [path.name for path in tmp_path.rglob("*")] == ["there", "file"]
    with pytest.raises(UserError, match="tensorrt"):
        check_formats(["stablehlo", "tensorrt"])
    assert check_formats(["onnx", "stablehlo", "onnx"]) == ("stablehlo", "onnx")
