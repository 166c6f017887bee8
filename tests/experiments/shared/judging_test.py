"""The worth of votes: metrics of groups and rankings, places, draws and windows."""

import numpy as np
import pytest

from contextjax.types import CandidateRecord, ComposedRecord
from data_pipelines.chat.questions import NoAnswer
from data_pipelines.judge.judge import Vote
from data_pipelines.protocols import CIRR, GENECIS
from experiments.shared.judging import ChooseTask, GroupTask, by_position, draw_rows, scores_of, windowed


def vote(*scores, shown=None):
    return Vote(np.asarray(scores, float), shown or tuple(range(len(scores))))


def failed(count):
    return Vote(np.full(count, np.nan), tuple(range(count)), (NoAnswer("is noise"),))


SETS = [CandidateRecord(str(i), tuple("abcd")[: 4 - i], f"text {i}", 0, kind="static", set=str(i)) for i in range(3)]


def test_sets_of_several_sizes_are_scored_together():
    task = ChooseTask(SETS, pairs=False)
    votes = [[vote(0, 0, 0, 1)], [vote(1, 0, 0), failed(3)], [failed(2)]]
    scores = scores_of(task, votes)
    assert (
        scores[0].tolist() == [0, 0, 0, 1] and scores[1].tolist() == [0.5, 0, 0, -np.inf] and np.isnan(scores[2]).all()
    )
    scored = task.scored(scores)
    assert scored.metrics(np.arange(3))["accuracy"] == pytest.approx(100 / 3)
    assert scored.values.tolist() == [False, True, False]
    assert scored.by_kind["static"]["n_queries"] == 3
    assert scored.baselines(np.asarray([2]))["random"]["accuracy"] == 50


def test_a_group_is_scored_within_itself():
    groups = [ComposedRecord(str(i), "r", "t", "c", subset=("a", "r", "b", "c")) for i in range(3)]
    task = GroupTask(groups, CIRR)
    assert task.candidates[0] == ("a", "b", "c") and task.targets.tolist() == [2, 2, 2]
    votes = [[vote(1 / 3, 2 / 3, 1)], [vote(1, 1 / 3, 2 / 3)], [failed(3)]]
    scored = task.scored(scores_of(task, votes))
    found = scored.metrics(np.arange(3))
    assert found == pytest.approx({"Rs@1": 100 / 3, "Rs@2": 200 / 3, "Rs@3": 200 / 3})
    assert scored.baselines(np.arange(3))["random"] == pytest.approx({"Rs@1": 100 / 3, "Rs@2": 200 / 3, "Rs@3": 100})
    assert GroupTask(groups, GENECIS).interval_of == "R@1"


def test_places_are_those_where_the_target_was_shown():
    task = ChooseTask(SETS[:1], pairs=False)
    votes = [[vote(1, 0, 0, 0), vote(1, 0, 0, 0, shown=(3, 2, 1, 0)), vote(0, 1, 0, 0, shown=(3, 2, 1, 0)), failed(4)]]
    assert by_position(task, votes) == {"1": {"n": 2, "accuracy": 50}, "4": {"n": 2, "accuracy": 50}}


def test_draws_are_even_over_kinds_and_differ_by_seed():
    records = [CandidateRecord(str(i), ("a", "b"), "t", 0, kind="video" if i % 4 == 0 else "static") for i in range(80)]
    rows = draw_rows(records, 20, 1)
    assert len(set(rows)) == 20 and sum(records[row].kind == "video" for row in rows) == 10
    assert rows.tolist() == draw_rows(records, 20, 1).tolist() != draw_rows(records, 20, 10).tolist()
    assert len(draw_rows(records, 70, 1)) == 70 and len(draw_rows(records, 0, 1)) == 80 == len(
        draw_rows(records, 99, 1)
    )


def test_pairs_are_drawn_whole():
    records = [CandidateRecord(f"{i}/{side}", (f"{i}a", f"{i}b"), "t", side) for side in (0, 1) for i in range(10)]
    drawn = [records[row] for row in draw_rows(records, 6, 0, pairs=True)]
    assert len(drawn) == 6 and len({record.images for record in drawn}) == 3


def test_a_window_holds_the_target_anywhere():
    records = [CandidateRecord(str(i), tuple("abcdefghij"), "t", i % 10) for i in range(200)]
    places = set()
    for before, after in zip(records, windowed(records, 4), strict=True):
        assert after.images[after.target] == before.images[before.target] and len(after.images) == 4
        assert "".join(after.images) in "abcdefghij"
        places.add((before.target, after.target))
    assert {place for target, place in places if target == 5} == {0, 1, 2, 3}
    assert windowed(records[:1], 12) == records[:1]
