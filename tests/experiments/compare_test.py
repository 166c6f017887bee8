"""compare: finished runs are kept, and their table is printed."""

import json

import pytest

from contextjax.types import UserError
from experiments.shared.variant_runs import read_rows
from tests.commands import in_process

ROW = {"variant": "recipe", "seed": "0", "metrics": {"R@1": 50.0}, "steps": 7, "seconds": 500.0}


def test_finished_runs_are_kept_and_a_damaged_line_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROW) + "\n")
    command = ["compare", "--config=configs/pictograms.py", f"--workdir={tmp_path}", "--seeds=0"]
    done = in_process(*command)  # nothing is trained
    assert done.returncode == 0 and "| recipe | 1 | 7 | 500–500 | 50.0 ± 0.0 |" in done.stdout
    path.write_text(path.read_text() + "{damaged\n")
    with pytest.raises(UserError, match=r"rows\.jsonl, line 2 is not JSON"):
        read_rows(path)
