"""Candidate sets: pairs of which both texts must be right, and texts that are scored by their sentences too."""

import numpy as np
import pytest

from contextjax.evaluation import evaluate_candidates, score_records
from contextjax.metrics import combine_propositions
from contextjax.types import CandidateRecord
from tests.evaluation.by_hand_test import CountingTable, Scores, Table

PAIRS = [
    CandidateRecord("1/0", ("a", "b"), "0.9 0.1 0 0", 0, "left"),
    CandidateRecord("2/0", ("c", "d"), "0 0 0.8 0.9", 0, "color"),  # wrong
    CandidateRecord("1/1", ("a", "b"), "0.2 0.3 0 0", 1, "left"),
    CandidateRecord("2/1", ("c", "d"), "0 0 0.1 0.9", 1, "color"),
]


def test_a_pair_counts_where_both_of_its_texts_pick_their_picture():
    found = evaluate_candidates(Scores(), PAIRS, Table("abcd"), pairs=True)
    metrics = found.metrics()
    assert (metrics["accuracy"], metrics["pair accuracy"]) == (75, 50) and next(iter(metrics)) == "accuracy"
    assert {kind: row["pair accuracy"] for kind, row in found.by_kind().items()} == {"color": 0, "left": 100}
    assert {name: row["pair accuracy"] for name, row in found.baselines().items()} == {
        "random": 25, "best constant index": 0,
    }  # fmt: skip
    plain = evaluate_candidates(Scores(), PAIRS, Table("abcd"))
    assert "pair accuracy" not in plain.metrics() and "pair accuracy" not in plain.baselines()["random"]


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_sentences_are_scored_beside_their_text(share):
    one, two = ("a", "b", "c"), ("d", "c")
    records = [CandidateRecord(id, one, "0.5 0.9 0.1 0", 0) for id in "13"]
    records.insert(1, CandidateRecord("2", two, "0 0 1 2", 1))
    sentences = {"1": [("0.9 0.1 0.2 0", False), ("0.1 0.8 0.1 0", True)], "2": [("0 0 5 3", False)], "other": []}
    table = CountingTable("abcd")
    scores = score_records(Scores(), records, table, propositions=sentences, share=share)
    plain = score_records(Scores(), records, Table("abcd"))
    parts = np.asarray([[0.9, 0.1, 0.2], [0.1, 0.8, 0.1]])
    expected = combine_propositions(plain[0], parts, np.asarray([False, True]), share=share)
    np.testing.assert_allclose(scores[0], expected, atol=1e-6)
    np.testing.assert_allclose(scores[1, :2], share * plain[1, :2] + (1 - share) * np.asarray([3, 5]), atol=1e-6)
    assert np.isneginf(scores[1, 2])
    np.testing.assert_array_equal(scores[2], plain[2])  # it has none
    assert sorted(table.reads) == [0, 1, 2, 2, 3], "a set's pictures are read once for all texts and sentences"
    found = evaluate_candidates(Scores(), records[:1], Table("abcd"), propositions=sentences, share=0.0)
    assert found.ranks.tolist() == [0]
