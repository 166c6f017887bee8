"""A goodput log that does not add up is found."""

import datetime
import json
import time

from contextjax.training.goodput import KINDS
from experiments.fault_injection.goodput import check_goodput


def test_a_log_that_does_not_add_up_is_found(tmp_path):
    now = int(time.time())
    line = lambda begin, seconds: json.dumps(
        {
            "began": f"{datetime.datetime.fromtimestamp(begin, datetime.UTC):%Y-%m-%dT%H:%M:%SZ}",
            "steps": [0, 1],
            "seconds": dict.fromkeys(KINDS, 0.0) | {"start": 2.0, "step": seconds - 2.0},
        }
    )
    for seconds, problems in (((90, 50), 0), ((150, 50), 1), ((90, 58), 1), ((90, 40), 1)):
        (tmp_path / "goodput.jsonl").write_text(f"{line(now - 150, seconds[0])}\n{line(now - 50, seconds[1])}\n")
        outcome = check_goodput(tmp_path)
        assert outcome.times == 2 and len(outcome.problems) == problems, outcome


def test_a_run_without_a_log_is_found(tmp_path):
    assert list(check_goodput(tmp_path).problems) == ["there is none"]
