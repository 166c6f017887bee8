"""Candidate sets: pairs of which both texts must be right, and texts that are scored by their sentences too."""

import dataclasses

import numpy as np
import pytest

from contextjax.evaluation import evaluate_candidates, score_records, with_texts_of_other_sets
from contextjax.metrics import combine_propositions
from contextjax.types import CandidateRecord, UserError
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


def test_the_control_gives_every_text_to_another_set_and_keeps_all_texts():
    sizes = [3, 1, 2, 4, 1, 3]
    records = [
        CandidateRecord(f"{number}/{index}", (f"{number}a", f"{number}b"), f"text {number} {index}", index % 2)
        for index in range(4)
        for number, size in enumerate(sizes)
        if index < size
    ]
    moved = with_texts_of_other_sets(records, seed=3)
    assert [(m.id, m.images, m.target) for m in moved] == [(r.id, r.images, r.target) for r in records]
    assert sorted(m.text for m in moved) == sorted(r.text for r in records)
    assert all(m.text.split()[1] != m.id.split("/")[0] for m in moved)
    assert moved == with_texts_of_other_sets(records, seed=3) != with_texts_of_other_sets(records, seed=4)
    assert with_texts_of_other_sets(records[:1]) == []


def test_the_control_is_at_chance_for_a_system_that_reads_well():
    records = [
        CandidateRecord(
            str(row), ("a", "b", "c", "d"), " ".join("1" if k == row % 4 else "0" for k in range(4)), row % 4
        )
        for row in range(400)
    ]
    records = [dataclasses.replace(record, set=record.id) for record in records]
    assert evaluate_candidates(Scores(), records, Table("abcd")).metrics()["accuracy"] == 100
    moved = with_texts_of_other_sets(records)
    assert evaluate_candidates(Scores(), moved, Table("abcd")).metrics()["accuracy"] == pytest.approx(25, abs=7)


@pytest.mark.parametrize("given", [np.zeros((1, 3)), np.zeros((4, 3)), np.zeros(4), [[0, 1]] * 3])
def test_scores_of_another_number_of_candidates_are_refused(given):
    class Odd:
        def score_sets(self, sets, texts, ordered):
            return given

    with pytest.raises(UserError, match=r"4 sets of 2 candidates got scores of the shape .*; expected \[4, 2\]"):
        score_records(Odd(), PAIRS, Table("abcd"))
