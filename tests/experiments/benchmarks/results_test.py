"""Records of benchmarks, two of them side by side."""

import json

import pytest

from contextjax.types import UserError
from experiments.benchmarks import results
from tests.experiments.benchmarks.conftest import make_record


@pytest.mark.long
def test_two_results_side_by_side(trained_timing, tmp_path):
    first = make_record(trained_timing)
    second = first | {"samples_per_second": 3 * first["samples_per_second"], "batch": 16, "flops": None}
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, found in zip(paths, (first, second), strict=True):
        path.write_text(json.dumps(found))
    lines = results.compare([str(path) for path in paths])
    assert "batch differs: 8 and 16" in lines and "mode differs" not in lines
    rows = {
        line.split("|")[1].strip(): line.split("|")[-2].strip() for line in lines.splitlines() if line.count("|") == 5
    }
    assert rows["samples_per_second"] == "3.000" and rows["steps_per_second"] == "1.000" and rows["flops"] == "-"
    assert "mfu_of_peak" not in rows
    with pytest.raises(UserError, match="got 1 files; expected two"):
        results.compare([str(paths[0])])
    paths[1].write_text("[]")
    with pytest.raises(UserError, match="holds a list; expected a benchmark's dict"):
        results.compare([str(path) for path in paths])
    paths[1].write_text("{}")
    with pytest.raises(UserError, match="is no result of one benchmark"):
        results.compare([str(path) for path in paths])
