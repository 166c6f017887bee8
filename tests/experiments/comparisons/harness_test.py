"""The harness of the comparisons: what differs is not timed, rounds alternate, ratios and tables. No PyTorch needed."""

import json

import numpy as np
import pytest

from contextjax.types import UserError
from experiments.comparisons import harness


def test_rounds_alternate():
    calls = []
    programs = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    times = harness.alternate(programs, 3, seconds=0)
    assert [len(t) for t in times.values()] == [3, 3]
    assert calls == [*"aa", *"bb", *"ab", *"ba", *"ab"]


def test_a_timing_lasts_as_long_as_asked():
    calls = []
    (times,) = harness.alternate({"a": lambda: calls.append(sum(range(1000)))}, 2, seconds=0.01).values()
    assert len(calls) > 20 and max(times) < 0.01


@pytest.mark.parametrize("is_relative", [False, True])
@pytest.mark.parametrize("wrong", [1.001, float("nan")])
def test_what_differs_is_not_timed(wrong, is_relative):
    timed = []
    same = {"loss": 2.0, "masking": 1.0}
    check = lambda ours: harness.Case(
        programs={"ours": lambda: timed.append("ours")},
        checks=[("step 1", lambda: {**ours, "steps": 3.0}, lambda: same)],
        tolerance=1e-4,
        is_relative=is_relative,
    )
    checked = harness.measure(check(same), pairs=1)["checked"]
    assert checked == {"step 1": {"difference": 0.0, "loss": (2.0, 2.0), "masking": (1.0, 1.0)}}
    timed.clear()
    with pytest.raises(UserError, match=r"step 1: masking differs by .*, 1 there\); expected 0.0001 at most"):
        harness.measure(check({**same, "masking": wrong}), pairs=1)
    assert not timed


def test_arrays_agree_by_their_largest_difference():
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(size=(2, 3, 4))
    largest = np.abs(ours - theirs).max()
    assert harness.agree("embedding", ours, theirs, tolerance=1.01 * largest) == {"difference": pytest.approx(largest)}
    with pytest.raises(UserError, match="embedding: result differs"):
        harness.agree("embedding", ours, theirs, tolerance=0.99 * largest)


def test_ratios_are_of_the_same_rounds():
    assert harness.ratio([2.0, 3.0, 4.0], [1.0, 2.0, 1.0]) == {"median": 2.0, "min": 1.5, "max": 4.0}
    case = harness.Case(
        programs={"a": lambda: None, "b": lambda: None}, ratios=[("a", "b")], costs={"a": lambda: {"flops": 3.0}}
    )
    tables = harness.measure(case, pairs=2)
    a, b = (tables["programs"][name]["seconds"] for name in "ab")
    assert tables["ratios"] == {"a / b": harness.ratio(a, b)} and tables["programs"]["a"]["flops"] == 3


def test_tables_are_markdown_and_json():
    tables = {
        "programs": {"ours": {"seconds": [1.0, 3.0, 2.0], "flops": 2.5e12}, "theirs": {"seconds": [4.0]}},
        "checked": {"step 1": {"loss": (1.5, 1.25)}},
        "empty": {},
    }
    lines = harness.markdown(tables).splitlines()
    assert lines == [
        "",
        "| programs | seconds | flops |",
        "|---|---|---|",
        "| ours | 2 (1 to 3) | 2.5 T |",
        "| theirs | 4 (4 to 4) |  |",
        "",
        "| checked | loss |",
        "|---|---|",
        "| step 1 | 1.5, 1.25 |",
    ]
    assert json.loads(json.dumps(tables))["checked"]["step 1"]["loss"] == [1.5, 1.25]
