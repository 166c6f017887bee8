"""The evaluator with hand-made vectors in place of a system."""

import dataclasses

import numpy as np
import pytest

from contextjax.evaluation import encode_rows, evaluate_candidates, evaluate_retrieval, score_records
from contextjax.types import CandidateRecord, ComposedRecord, EvaluationProtocol, UserError

PROTOCOL = EvaluationProtocol("toy", recall_at=(1, 2), subset_recall_at=(1,), average=("R@2", "Rs@1"))
WITHOUT_SUBSETS = EvaluationProtocol("toy", recall_at=(1,))


class Table:
    """Picture i is the number i."""

    def __init__(self, ids):
        self.ids, self.row = list(ids), {id: row for row, id in enumerate(ids)}

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, row):
        return row


class Scripted:
    """Picture i has the unit vector e_i; a query's vector is written in its text: the score of every picture."""

    def __init__(self, size):
        self.size, self.chunks = size, []

    def encode_gallery(self, images):
        self.chunks.append(len(images))
        return np.eye(self.size, dtype=np.float32)[list(images)]

    def encode_query(self, images, texts):
        assert len(images) == len(texts)
        return np.asarray([[float(x) for x in text.split()] for text in texts], np.float32)


def evaluate(records, *, protocol=PROTOCOL, ids="abcd", **options):
    return evaluate_retrieval(Scripted(len(ids)), protocol, records, Table(ids), **options)


RECORDS = [
    # The own reference has the best score and is taken out: the target is first.
    ComposedRecord("1", "a", "0.9 0.8 0.1 0.0", "b", ("b", "c"), ("add",)),
    # Second of all, first in its subset.
    ComposedRecord("2", "b", "0.9 0.8 0.1 0.0", "c", ("c", "d"), ("add",)),
    # Last of all, last in its subset.
    ComposedRecord("3", "c", "0.5 0.8 0.1 0.0", "d", ("a", "d"), ("swap",)),
]


@pytest.mark.parametrize("chunk", [1, 2, 512])
def test_ranks_subset_ranks_and_means(chunk):
    found = evaluate(RECORDS, chunk=chunk)
    assert found.ranks.tolist() == [0, 1, 2]
    assert found.subset_ranks.tolist() == [0, 0, 1]
    assert found.metrics() == pytest.approx({"R@1": 100 / 3, "R@2": 200 / 3, "Rs@1": 200 / 3, "Avg": 200 / 3})


def test_the_own_reference_stays_where_the_protocol_says_so():
    protocol = EvaluationProtocol("toy", recall_at=(1,), excludes_reference=False)
    assert evaluate(RECORDS, protocol=protocol).ranks.tolist() == [1, 2, 3]


def test_by_kind_splits_the_queries():
    found = evaluate(RECORDS).by_kind()
    assert list(found) == ["add", "swap"]
    assert found["add"] == {"R@1": 50, "R@2": 100, "Rs@1": 100, "Avg": 100, "n_queries": 2}
    assert found["swap"] == {"R@1": 0, "R@2": 0, "Rs@1": 0, "Avg": 0, "n_queries": 1}
    without_kind = [ComposedRecord("1", "a", "0 1 0 0", "b")]
    assert evaluate(without_kind, protocol=WITHOUT_SUBSETS).by_kind() == {}


def test_without_subsets_there_are_no_subset_figures():
    found = evaluate([ComposedRecord("1", "a", "0 1 0 0", "b")])
    assert found.subset_ranks.tolist() == [-1]
    assert found.metrics() == {"R@1": 100, "R@2": 100}


def test_the_best_pictures_come_with_their_scores():
    found = evaluate(RECORDS, keep=2)
    assert found.top.tolist() == [[1, 2], [0, 2], [1, 0]]
    np.testing.assert_allclose(found.scores, [[0.8, 0.1], [0.9, 0.1], [0.8, 0.5]])


def test_the_excluded_reference_is_never_among_the_best():
    """Even where more are kept than the gallery has others."""
    found = evaluate(RECORDS, keep=10)
    for record, rows, scores in zip(RECORDS, found.top, found.scores, strict=True):
        shown = [row for row, score in zip(rows, scores, strict=True) if score > -np.inf]
        assert "abcd".index(record.reference) not in shown and len(shown) == 3


def test_ties_do_not_flatter_a_system_that_sees_no_difference():
    records = [ComposedRecord(str(i), "a", "1 1 1 1", target) for i, target in enumerate("bcd")]
    assert evaluate(records, protocol=WITHOUT_SUBSETS).ranks.tolist() == [0, 1, 2]


def test_an_empty_gallery_and_secret_targets_are_told():
    with pytest.raises(UserError, match="gallery is empty"):
        evaluate_retrieval(Scripted(0), PROTOCOL, RECORDS, Table(""))
    with pytest.raises(UserError, match="1 of 4 records have no target"):
        evaluate([*RECORDS, ComposedRecord("4", "a", "0 0 0 0", None)])
    with pytest.raises(UserError, match="0 of 0 records"):
        evaluate([])


def test_the_gallery_is_encoded_in_chunks():
    system = Scripted(7)
    np.testing.assert_array_equal(encode_rows(system, Table("abcdefg"), chunk=3), np.eye(7))
    assert system.chunks == [3, 3, 1]


# ------------------------------------------------------------------------------------ candidate sets

CANDIDATES = [
    CandidateRecord("1", ("b", "a", "c"), "0.5 0.9 0.1 0", 0, "video"),  # b is the best of them
    CandidateRecord("2", ("d", "c"), "0.9 0 0.1 0.3", 1, "static"),  # d is better than c; a is no candidate
    CandidateRecord("3", ("b", "a", "c"), "0.7 0.2 0.1 0", 1, "video"),
]


class Scores:
    """A candidate's score is written in the text, at the place of its picture's number."""

    def __init__(self):
        self.calls = []

    def score_sets(self, sets, texts, ordered):
        self.calls += [list(images) for images in sets]
        return np.stack([np.asarray(t.split(), np.float32)[list(s)] for s, t in zip(sets, texts, strict=True)])


class CountingTable(Table):
    def __init__(self, ids):
        super().__init__(ids)
        self.reads = []

    def __getitem__(self, row):
        self.reads.append(row)
        return row


class Parity(Table):
    """Pictures are 0 and 1 in turn."""

    def __getitem__(self, row):
        return row % 2


def evaluate_sets(records, ids="abcd"):
    return evaluate_candidates(Scores(), records, Table(ids))


def test_candidates_are_ranked_among_themselves():
    found = evaluate_sets(CANDIDATES)
    assert found.ranks.tolist() == [0, 1, 0]
    np.testing.assert_allclose(found.scores, [[0.9, 0.5, 0.1], [0.3, 0.1, -np.inf], [0.2, 0.7, 0.1]])
    assert found.metrics()["accuracy"] == pytest.approx(200 / 3)
    assert found.by_kind() == {
        "static": {"accuracy": 0, "low95": 0, "high95": 0, "n_queries": 1},
        "video": {"accuracy": 100, "low95": 100, "high95": 100, "n_queries": 2},
    }


def test_a_sets_pictures_are_read_once_for_all_its_texts():
    system, table = Scores(), CountingTable("abcd")
    evaluate_candidates(system, CANDIDATES, table)
    assert table.reads == [3, 2, 1, 0, 2]  # sets of two, then sets of three
    assert system.calls == [[3, 2], [1, 0, 2], [1, 0, 2]]


def test_the_first_of_equal_candidates_wins():
    records = [CandidateRecord(str(i), tuple("abcd"), "1 1 1 1", i) for i in range(4)]
    found = evaluate_sets(records)
    assert found.ranks.tolist() == [0, 1, 2, 3] and found.metrics()["accuracy"] == 25


@pytest.mark.parametrize(("text", "hit"), [("nan nan nan nan", False), ("nan 0 0 0", False), ("0 nan nan nan", True)])
def test_a_score_that_is_not_a_number_never_wins(text, hit):
    found = evaluate_sets([CandidateRecord("1", tuple("abcd"), text, 0)])
    assert (found.ranks[0] == 0) == hit


def test_the_order_of_the_candidates_moves_the_index_and_nothing_else():
    rng = np.random.default_rng(0)
    texts = [" ".join(map(str, rng.random(6))) for _ in range(20)]
    records = [CandidateRecord(str(i), tuple("abcdef"), text, i % 6) for i, text in enumerate(texts)]
    permuted = []
    for record in records:
        order = rng.permutation(6)
        images = tuple(record.images[i] for i in order)
        permuted.append(dataclasses.replace(record, images=images, target=order.tolist().index(record.target)))
    ranks = evaluate_sets(records, "abcdef").ranks
    np.testing.assert_array_equal(evaluate_sets(permuted, "abcdef").ranks, ranks)
    assert 0 in ranks and ranks.any()


def test_shuffled_truths_are_found_by_chance():
    rng = np.random.default_rng(0)
    right = [CandidateRecord(str(i), tuple("abcde"), " ".join("01"[j == i % 5] for j in range(5)), i % 5)
             for i in range(1000)]  # fmt: skip
    shuffled = [dataclasses.replace(record, target=int(rng.integers(5))) for record in right]
    assert evaluate_sets(right, "abcde").metrics() == {"accuracy": 100, "low95": 100, "high95": 100}
    assert evaluate_sets(shuffled, "abcde").metrics()["accuracy"] == pytest.approx(20, abs=4)  # 3 sigma


def test_descriptions_of_one_set_are_resampled_together():
    """One set, however many descriptions, has nothing to resample."""
    hit, miss = "0 0.9", "0.9 0"
    records = [CandidateRecord(str(i), ("a", "b"), hit if i % 2 else miss, 1) for i in range(10)]
    assert evaluate_sets(records).metrics() == {"accuracy": 50, "low95": 50, "high95": 50}
    apart = [dataclasses.replace(record, images=(f"a{i}", f"b{i}")) for i, record in enumerate(records)]
    found = evaluate_candidates(Scores(), apart, Parity([name for record in apart for name in record.images])).metrics()
    assert found["low95"] < found["accuracy"] == 50 < found["high95"]


def test_baselines_look_at_nothing():
    found = evaluate_sets(CANDIDATES).baselines()
    assert found["random"]["accuracy"] == pytest.approx((100 / 3 + 100 / 2 + 100 / 3) / 3)
    assert found["best constant index"]["accuracy"] == pytest.approx(200 / 3)


def test_records_without_targets_are_scored_but_not_evaluated():
    secret = [CANDIDATES[0], dataclasses.replace(CANDIDATES[1], target=None)]
    with pytest.raises(UserError, match="1 of 2 records have no target"):
        evaluate_sets(secret)
    with pytest.raises(UserError, match="0 of 0 records"):
        evaluate_sets([])
    np.testing.assert_allclose(score_records(Scores(), secret, Table("abcd")), [[0.9, 0.5, 0.1], [0.3, 0.1, -np.inf]])
