"""The exports of a run by type: size, difference, metrics and times side by side."""

import dataclasses

import pytest

from contextjax.types import UserError
from experiments.comparisons import exports, harness


@pytest.mark.long
def test_types_are_measured_beside_float32(tiny_run, pictograms, monkeypatch):
    from contextjax.export import parity
    from tests.shape_checks import no_shape_checks

    monkeypatch.setattr(parity, "BATCHES", (3,))
    with no_shape_checks():
        tables = exports.compare(exports.Options(str(tiny_run), str(pictograms), pairs=2, batch=2, seconds=0.0))
    rows = tables["exports"]
    assert list(rows) == ["live", "float32", "float16", "int8"] and rows["float32"]["R@1"] == rows["live"]["R@1"]
    assert rows["int8"]["bytes"] < rows["float16"]["bytes"] < rows["float32"]["bytes"]
    assert rows["float32"]["difference"] < 1e-5 < rows["float16"]["difference"] < rows["int8"]["difference"] < 0.1
    assert len(tables["programs"]) == 9 and "gallery, int8 / gallery, float32" in tables["ratios"]
    header = harness.markdown(tables).strip().splitlines()[0].strip("| ").split(" | ")
    assert header[0] == "exports" and {"bytes", "difference", "R@1", "Rs@1"} <= set(header)


@pytest.mark.parametrize("types", [("int8",), ("float32", "int4")])
def test_types_that_can_t_be_compared_are_refused(types):
    with pytest.raises(UserError, match=f"--types is '{','.join(types)}'; expected float32, and some of"):
        exports.compare(dataclasses.replace(exports.Options(), types=types))
