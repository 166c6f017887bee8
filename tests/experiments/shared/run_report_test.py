"""The report of a run refuses an evaluation that is missing, of another checkpoint, or of other code."""

import json

import pytest

from contextjax.types import UserError
from experiments.shared.run_report import check_unchanged, read_evaluation

EVALUATION = {"protocol": "cirr", "split": "val", "config_hash": "abc", "step": 20, "metrics": {"R@1": 36.3},
              "baselines": {}}  # fmt: skip


def check(path, **now):
    evaluation = read_evaluation(path, "abc-20", remedy="evaluate")
    check_unchanged(evaluation["metrics"], {"R@1": 36.3} | now, path, remedy="evaluate")


@pytest.fixture
def evaluation_file(tmp_path):
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps(EVALUATION))
    return path


def test_the_same_checkpoint_and_nearly_the_same_score_pass(evaluation_file):
    check(evaluation_file, **{"R@1": 36.6})


def test_a_missing_evaluation_is_reported(tmp_path):
    with pytest.raises(UserError, match="holds the baselines; evaluate first"):
        check(tmp_path / "evaluation.json")


def test_an_older_checkpoint_is_reported(evaluation_file):
    evaluation_file.write_text(evaluation_file.read_text().replace("20", "10"))
    with pytest.raises(
        UserError, match=r"is of checkpoint abc-10, but the one that is shown is abc-20; evaluate again"
    ):
        check(evaluation_file)


def test_a_changed_score_is_reported(evaluation_file):
    with pytest.raises(UserError, match=r"says R@1 36.3 and the same checkpoint now scores 0.60"):
        check(evaluation_file, **{"R@1": 0.6})
    with pytest.raises(UserError, match="R@9"):
        check(evaluation_file, **{"R@9": 1.0})
