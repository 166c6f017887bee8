"""compare: finished runs are kept, and their table is printed."""

import json

import pytest

from contextjax.types import UserError
from experiments.shared.variant_runs import read_rows
from tests.commands import in_process

ROW = {"variant": "recipe", "seed": "0", "metrics": {"R@1": 50.0}, "steps": 7, "seconds": 500.0}


def test_finished_runs_are_kept_and_damaged_lines_are_set_aside(tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROW) + "\n")
    command = ["compare", "--config=configs/pictograms.py", f"--workdir={tmp_path}", "--seeds=0"]
    done = in_process(*command)  # nothing is trained
    assert done.returncode == 0 and "| recipe | 1 | 7 | 500–500 | 50.0 ± 0.0 |" in done.stdout
    other = json.dumps({**ROW, "seed": "1"})
    damaged = b'{damaged\n\xff\xfe\n{"variant": "recipe"}\n'
    path.write_bytes(
        f"{json.dumps(ROW)}\n".encode() + damaged + f"{other}\n{other[:20]}".encode()
    )  # the last one is cut
    assert read_rows(path) == [ROW, {**ROW, "seed": "1"}] == read_rows(path)
    assert "has 3 damaged lines: set aside in rows.jsonl.damaged" in capsys.readouterr().err
    assert (tmp_path / "rows.jsonl.damaged").read_bytes() == damaged
    assert path.read_text() == f"{json.dumps(ROW)}\n{other}\n"
    path.write_text("# another file\n")
    with pytest.raises(UserError, match="holds no row of compare"):
        read_rows(path)
    assert path.read_text() == "# another file\n"
