"""The folder of an export: what lies in it, and that nothing is read that was not written."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from contextjax.checkpoints import integrity
from contextjax.export.exported import open_export
from contextjax.export.folder import check_formats
from contextjax.spec import SystemSpec
from contextjax.types import UserError


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


def test_formats_are_known_and_each_is_written_once():
    with pytest.raises(UserError, match="tensorrt"):
        check_formats(["stablehlo", "tensorrt"])
    with pytest.raises(UserError, match="expected some of"):
        check_formats([])
    assert check_formats(["onnx", "stablehlo", "onnx"]) == ("stablehlo", "onnx")
