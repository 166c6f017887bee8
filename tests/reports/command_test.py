"""The report command refuses an evaluation that is missing, of another checkpoint, or of other code."""

import json
import subprocess
import sys

import pytest

CALL = """
import json, pathlib, sys
from contextjax.types import UserError
from experiments.report import check_unchanged, read_evaluation
path, now = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
try:
    found = read_evaluation(path, "abc-20", remedy="evaluate")
    check_unchanged(found["metrics"], now, path, remedy="evaluate")
except UserError as error:
    print(error)
"""


def say(path, **now):
    """What the user is told; in a process of its own, since entry points define the same flags."""
    command = [sys.executable, "-c", CALL, str(path), json.dumps({"R@1": 36.3} | now)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def evaluation_file(tmp_path):
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps({"config_hash": "abc", "step": 20, "metrics": {"R@1": 36.3}, "baselines": {}}))
    return path


def test_the_same_checkpoint_and_nearly_the_same_score_pass(evaluation_file):
    assert say(evaluation_file, **{"R@1": 36.6}) == ""


def test_a_missing_evaluation_is_told(tmp_path):
    assert "holds the baselines; evaluate first" in say(tmp_path / "evaluation.json")


def test_an_older_checkpoint_is_told(evaluation_file):
    evaluation_file.write_text(evaluation_file.read_text().replace("20", "10"))
    assert "is of checkpoint abc-10, but the one that is shown is abc-20; evaluate again" in say(evaluation_file)


def test_a_changed_score_is_told(evaluation_file):
    told = say(evaluation_file, **{"R@1": 0.6})
    assert "says R@1 36.3 and the same checkpoint now scores 0.60" in told
    assert "R@9" in say(evaluation_file, **{"R@9": 1.0})
