"""Recorded steps: exactly the chosen ones are in the trace, and training is unchanged."""

import gzip
import json
import time

import jax
import numpy as np
import pytest

from contextjax.training.step_profile import parse_steps
from contextjax.types import UserError
from tests.training.loop_test import Interrupted, lines, run


def traced_steps(workdir):
    """The numbers of the steps in each trace of a workdir."""
    traces = []
    for path in sorted((workdir / "profile").rglob("*.trace.json.gz")):
        events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
        traces.append({int(e["args"]["step_num"]) for e in events if e.get("name") == "train" and "args" in e})
        assert list(path.parent.glob("*.xplane.pb"))
    return traces


@pytest.mark.long
def test_exactly_the_chosen_steps_are_recorded_and_training_is_unchanged(tmp_path):
    plain = run(tmp_path / "plain")
    recorded = run(tmp_path / "recorded", profile=(5, 7))
    assert traced_steps(tmp_path / "recorded") == [{5, 6, 7}] and not traced_steps(tmp_path / "plain")
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(recorded), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    assert lines(tmp_path / "recorded") == lines(tmp_path / "plain")


@pytest.mark.long
def test_a_recording_that_is_interrupted_is_closed_and_what_is_left_is_recorded(tmp_path):
    with pytest.raises(Interrupted):
        run(tmp_path, cut=7, profile=(6, 9))
    time.sleep(1.1)  # the profiler names a recording by its second
    run(tmp_path, profile=(5, 9))
    first, second = traced_steps(tmp_path)
    assert min(first) == 6 and max(first) < 9 and second == {6, 7, 8, 9}


@pytest.mark.parametrize("text", ["5", "5:", "0:3", "7:5", "5:13", "a:b", "-1:2"])
def test_steps_that_there_are_not_are_refused(text):
    assert parse_steps("", steps=12) is None and parse_steps("5:5", steps=12) == (5, 5)
    with pytest.raises(
        UserError, match=rf"--profile is '{text}'; expected the first and the last step .* from 1 to 12"
    ):
        parse_steps(text, steps=12)
