"""Records say which kinds they are of and whether their candidates are ordered; a fresh state owns its buffers."""

import dataclasses

import numpy as np
import pytest

from contextjax.types import CandidateRecord, TrainState


@pytest.mark.parametrize(
    ("kind", "count", "kinds", "ordered"),
    [
        ("video", 3, ("video",), True),
        ("video", 2, ("video",), False),
        ("static", 3, ("static",), False),
        ("", 3, (), False),
    ],
)
def test_candidates_are_ordered_where_they_are_frames_of_a_video(kind, count, kinds, ordered):
    record = CandidateRecord("id", tuple("abc"[:count]), "text", 0, kind=kind)
    assert record.kinds == kinds and record.is_ordered == ordered


def test_a_fresh_state_has_a_buffer_for_each_number():
    state = TrainState.fresh({"w": 1}, None, None)
    numbers = [state.step, state.health.bad_steps, state.health.skipped, state.health.norms]
    assert not any(np.any(number) for number in numbers)
    assert not any(np.shares_memory(a, b) for i, a in enumerate(numbers) for b in numbers[:i])


def test_the_kinds_of_a_candidate_record_are_its_candidates_and_its_texts():
    record = CandidateRecord("id", ("a", "b"), "text", 0, "static", "s", ("absolute", "size"))
    assert (
        record.kinds == ("static", "absolute", "size") and dataclasses.replace(record, text="x").kinds == record.kinds
    )
    assert CandidateRecord("id", ("a", "b"), "text", 0).kinds == ()
    assert CandidateRecord("id", ("a", "b"), "text", 0, kinds=("comparative",)).kinds == ("comparative",)
