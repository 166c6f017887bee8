"""Parts of both evaluations: records need targets, and kinds have metrics of their own."""

import pytest

from contextjax.evaluation.shared import by_label, check_targets
from contextjax.types import CandidateRecord, ComposedRecord, UserError


def test_records_without_targets_are_counted():
    known, secret = ComposedRecord("1", "a", "b", "c"), ComposedRecord("2", "a", "b")
    check_targets([known])
    with pytest.raises(UserError, match="1 of 2 records have no target"):
        check_targets([known, secret])
    with pytest.raises(UserError, match="0 of 0 records"):
        check_targets([])


def test_a_record_counts_under_each_of_its_kinds():
    records = [
        CandidateRecord("1", ("a", "b"), "x", 0, "video", kinds=("video", "left")),
        CandidateRecord("2", ("a", "b"), "x", 0, "static"),
        CandidateRecord("3", ("a", "b"), "x", 0, "video"),
    ]
    assert by_label([record.kinds for record in records], lambda rows: {"rows": rows.tolist()}) == {
        "left": {"rows": [0], "n_queries": 1},
        "static": {"rows": [1], "n_queries": 1},
        "video": {"rows": [0, 2], "n_queries": 2},
    }
    assert by_label([()], lambda rows: {}) == {}
    assert list(by_label([(10,), (2,)], lambda rows: {})) == ["2", "10"]  # numbers in their order
