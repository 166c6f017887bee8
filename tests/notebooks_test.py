"""The notebooks run from top to bottom on a tiny run."""

import json
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.long

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_runs(path, tiny_run, pictograms, tmp_path, monkeypatch):
    for link, target in (("runs/demo", tiny_run), ("data/pictograms/cirr", pictograms)):
        (tmp_path / link).parent.mkdir(parents=True)
        (tmp_path / link).symlink_to(target)
    monkeypatch.chdir(tmp_path)
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] for cell in cells), "outputs are not kept in the repository"
    names: dict = {}
    for cell in cells:
        exec(compile("".join(cell["source"]), str(path), "exec"), names)
    np.testing.assert_allclose(np.linalg.norm(names["gallery"], axis=1), 1, atol=1e-5)
    assert len(names["best"]) == 5
    assert 0 not in names["best"], "the reference is no answer"
