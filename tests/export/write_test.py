"""An export is written as a whole or not at all, and is the live system."""

import json
import resource

import numpy as np
import pytest

import contextjax
from contextjax.export.parity import TOLERANCES
from contextjax.export.write import write_export
from contextjax.types import UserError
from tests.export.conftest import SIZES, TEXTS, make_system


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
    ("dtype", "formats", "size"), [("float16", ("stablehlo", "onnx"), 0.6), ("int8", ("onnx",), 0.8)]
)
@pytest.mark.usefixtures("short_certificate")
def test_smaller_types_are_near_the_live_model(case, tmp_path, pictures, dtype, formats, size):
    """Compares sizes, too: the scales of so small matrices are much of the file; at real sizes int8 is a quarter."""
    manifest = write_export(case.system, tmp_path / "out", formats=formats, dtype=dtype, config=case.config)
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (tmp_path / "out", case.export)]
    assert sizes[0] < size * sizes[1] and manifest["dtype"] == dtype
    parity = json.loads((tmp_path / "out" / "parity.json").read_text())
    assert "computes in float32" in parity["difference"] and parity["tolerance"] == TOLERANCES[dtype] < 0.11
    exported = contextjax.load(tmp_path / "out")
    assert exported.identity != case.system.identity and f"in {dtype}." in (tmp_path / "out" / "README.md").read_text()
    gallery = exported.encode_gallery(pictures)
    assert 0 < np.abs(gallery - case.system.encode_gallery(pictures)).max() < TOLERANCES[dtype]


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


def test_requests_that_cannot_be_met(case, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("mine")
    for target, options, sentence in (
        ("there", {"formats": ("stablehlo",)}, "exists already"),
        ("out", {"formats": ("onnx",), "dtype": "bfloat16"}, "leave onnx out"),
        ("out", {"formats": ("stablehlo", "onnx"), "dtype": "int8"}, "'stablehlo,onnx'; export it by itself"),
        ("out", {"formats": ("safetensors",), "dtype": "int8"}, "int8 is a type of onnx alone"),
        ("out", {"formats": ("stablehlo",), "dtype": "float8"}, "float8"),
    ):
        with pytest.raises(UserError, match=sentence):
            write_export(case.system, tmp_path / target, **{"config": case.config, **options})
    assert [path.name for path in tmp_path.rglob("*")] == ["there", "file"]
