"""Files of decisions are read or refused; samples are fair and reproducible."""

import json

import pytest

from contextjax.types import UserError
from data_pipelines.synthesis.review import read_decisions

ID = "0123456789abcdef"


@pytest.mark.parametrize(
    "contents",
    [{}, {"decisions": []}, {"decisions": {"x": "accept"}}, {"decisions": {ID: "maybe"}}, {"decisions": {ID: 1}}],
)
def test_other_files_are_no_decisions(contents, tmp_path):
    (tmp_path / "decisions.json").write_text(json.dumps(contents))
    with pytest.raises(UserError, match="no file of decisions"):
        read_decisions(tmp_path / "decisions.json")
