"""The certificate: of the written programs, on fresh inputs, in the type of the export."""

import json

import numpy as np
import pytest

from contextjax.export.exported import open_export
from contextjax.export.folder import read_manifest
from contextjax.export.parity import BATCHES, INPUTS
from experiments.shared.weights import export
from tests.export.conftest import TEXTS, make_system, write_run


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
