"""The evaluator with hand-made vectors in place of a system."""

import numpy as np
import pytest

from contextjax.evaluation import encode_rows, evaluate_retrieval
from contextjax.types import ComposedRecord, EvaluationProtocol, UserError

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
    ComposedRecord("1", "a", "0.9 0.8 0.1 0.0", "b", ("b", "c"), "add"),
    # Second of all, first in its subset.
    ComposedRecord("2", "b", "0.9 0.8 0.1 0.0", "c", ("c", "d"), "add"),
    # Last of all, last in its subset.
    ComposedRecord("3", "c", "0.5 0.8 0.1 0.0", "d", ("a", "d"), "swap"),
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
