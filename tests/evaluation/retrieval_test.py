"""Every protocol of composed queries against a plain loop, with many ties; galleries, rewordings, secret targets."""

import dataclasses

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from contextjax.evaluation import Evaluation, evaluate_retrieval, gallery_rows, mean_metrics, rank_records
from contextjax.types import ComposedRecord, EvaluationProtocol, UserError
from data_pipelines.protocols import CIRCO, FASHION_IQ_ORIGINAL, FASHION_IQ_VAL, GENECIS, KARPATHY, PROTOCOLS

COMPOSED = [
    protocol for protocol in PROTOCOLS.values()
    if protocol.recall_at and not protocol.both_ways and protocol.gallery != "instance"
]  # fmt: skip


class Table:
    """Picture i is the number i."""

    def __init__(self, ids):
        self.ids, self.row = list(ids), {name: row for row, name in enumerate(ids)}

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, row):
        return row


class Small:
    """Embeddings of a few whole numbers, so that plain sums are exact and many scores tie."""

    def __init__(self, pictures, texts, seed):
        rng = np.random.default_rng(seed)
        self.gallery = rng.integers(-1, 2, (pictures, 3)).astype(np.float32)
        self.texts = dict(zip(texts, rng.integers(-1, 2, (len(texts), 3)).astype(np.float32), strict=True))
        self.encoded = []

    def encode_gallery(self, images):
        self.encoded += list(images)
        return self.gallery[list(images)]

    def encode_query(self, images, texts):
        assert len(images) == len(texts)
        return np.stack([self.texts[text] for text in texts])


@st.composite
def queries(draw):
    """(picture ids, records): targets and truths in the query's own group, which the reference is not in."""
    ids = [f"p{i}" for i in range(draw(st.integers(4, 9)))]
    records = []
    for number in range(draw(st.integers(1, 6))):
        reference, *others = draw(st.permutations(ids))
        group = others[: draw(st.integers(2, len(others)))]
        target, *more = draw(st.permutations(group))
        truths = (target, *more[: draw(st.integers(0, 2))])
        kinds = tuple(draw(st.sets(st.sampled_from("ab"))))
        records.append(
            ComposedRecord(str(number), reference, f"t{number}", target, tuple(group), kinds, truths, (f"r{number}",))
        )
    return ids, records


def by_loop(protocol, ids, records, system):
    """The protocol's metrics as its authors would write them down."""
    named = {n for record in records for n in (record.reference, *record.truths)}
    columns = {}
    for record in records:
        score = {name: float(system.texts[record.text] @ system.gallery[row]) for row, name in enumerate(ids)}
        gallery = {"all": ids, "named": [n for n in ids if n in named],
                   "own": [n for n in ids if n in record.subset]}[protocol.gallery]  # fmt: skip
        allowed = [n for n in gallery if not (protocol.excludes_reference and n == record.reference)]
        ranking = sorted(allowed, key=lambda n: -score[n])  # stable: ties by position
        group = [n for n in ranking if n in record.subset]
        for k in protocol.recall_at:
            right = record.truths if protocol.any_truth else (record.target,)
            columns.setdefault(f"R@{k}", []).append(bool(set(right) & set(ranking[:k])))
        for k in protocol.subset_recall_at:
            columns.setdefault(f"Rs@{k}", []).append(record.target in group[:k])
        for k in protocol.map_at:
            hits = [n in record.truths for n in ranking[:k]]
            precision = [sum(hits[: i + 1]) / (i + 1) * hit for i, hit in enumerate(hits)]
            columns.setdefault(f"mAP@{k}", []).append(sum(precision) / min(len(record.truths), k))
    found = {name: 100 * sum(values) / len(values) for name, values in columns.items()}
    if protocol.average:
        found["Avg"] = sum(found[name] for name in protocol.average) / len(protocol.average)
    return found


# Cut-offs that tell something of nine pictures, beside the protocol's own.
SMALL = {"recall_at": (1, 2, 3, 10, 50), "map_at": (1, 2, 5, 50), "subset_recall_at": (1, 2, 3)}


@pytest.mark.parametrize("protocol", COMPOSED, ids=lambda protocol: protocol.name)
@hypothesis.settings(deadline=None, max_examples=25)
@hypothesis.given(queries(), st.integers(0, 999), st.integers(1, 7), st.booleans())
def test_every_protocol_is_scored_as_in_a_plain_loop(protocol, drawn, seed, chunk, small):
    ids, records = drawn
    system = Small(len(ids), [record.text for record in records], seed)
    if small:
        protocol = dataclasses.replace(protocol, average=("R@1",), **SMALL)
    found = evaluate_retrieval(system, protocol, records, Table(ids), chunk=chunk)
    expected = by_loop(protocol, ids, records, system)
    metrics = found.metrics()
    if protocol.gallery == "own":  # there is no other group
        assert found.ranks.tolist() == found.subset_ranks.tolist()
    assert metrics == pytest.approx(expected)
    assert sorted(system.encoded) == sorted(set(system.encoded)), "a picture of the gallery is encoded once"
    if protocol.gallery == "named":  # which is made of all records
        return
    for kind, of_kind in found.by_kind().items():
        own = [record for record in records if kind in record.kinds]
        right = {"n_truths": np.mean([len(record.truths) or 1 for record in own])} if protocol.map_at else {}
        assert of_kind == pytest.approx({**by_loop(protocol, ids, own, system), **right, "n_queries": len(own)})


@hypothesis.settings(deadline=None, max_examples=25)
@hypothesis.given(st.lists(st.integers(0, 2), min_size=2, max_size=9), st.integers(0, 999), st.integers(1, 7))
def test_the_galleries_of_instances_are_scored_as_in_a_plain_loop(instances, seed, chunk):
    """Each picture has one of two texts; a query ranks its instance; areas by the trapezoidal rule, as numpy's."""
    ids = [f"{instance}/{number}" for number, instance in enumerate(instances)]
    rng, records = np.random.default_rng(seed), []
    for number, name in enumerate(ids):
        own = [other for other in ids if other[0] == name[0] and (other == name or rng.random() < 0.4)]
        records.append(ComposedRecord(str(number), "q", f"t{number}", name, truths=(name, *own)))
    system = Small(len(ids) + 1, [record.text for record in records], seed)
    found = evaluate_retrieval(system, PROTOCOLS["icir"], records, Table([*ids, "q"]), chunk=chunk)
    areas, top = [], []
    for record in records:
        gallery = [row for row, name in enumerate(ids) if name[0] == record.target[0]]
        ranking = sorted(gallery, key=lambda row: -float(system.texts[record.text] @ system.gallery[row]))
        hits = np.asarray([ids[row] in record.truths for row in ranking])
        before, after = np.cumsum(hits) - hits, np.cumsum(hits)
        place = np.arange(len(hits))
        precision = (np.where(place, before / np.maximum(place, 1), 1) + after / (place + 1)) / 2
        areas.append(100 * (precision * hits).sum() / hits.sum())
        top.append(ranking)
    metrics = found.metrics()
    assert metrics["mAP"] == pytest.approx(np.mean(areas))
    by_instance = {name: [a for a, r in zip(areas, records, strict=True) if r.target[0] == name] for name in "012"}
    assert metrics["mmAP"] == pytest.approx(np.mean([np.mean(own) for own in by_instance.values() if own]))
    assert [[row for row in rows if row >= 0] for rows in found.top] == [ranking[:10] for ranking in top]
    assert found.n_gallery == max(map(len, top))


def test_right_pictures_of_another_instance_are_refused():
    records = [ComposedRecord("0", "q", "t", "a/1", truths=("a/1", "b/2"))]
    with pytest.raises(UserError, match="0 names b/2"):
        evaluate_retrieval(Small(3, ["t"], 0), PROTOCOLS["icir"], records, Table(["a/1", "b/2", "q"]))


def test_the_two_galleries_of_a_split_are_not_the_same():
    records = [ComposedRecord("0", "a", "t", "c")]
    system = Small(4, ["t"], 0)
    system.gallery = np.asarray([[0], [3], [1], [2]], np.float32)
    system.texts = {"t": np.ones(1, np.float32)}
    whole, named = (
        evaluate_retrieval(system, protocol, records, Table("abcd"))
        for protocol in (FASHION_IQ_ORIGINAL, FASHION_IQ_VAL)
    )
    assert (whole.ranks.tolist(), whole.n_gallery) == ([2], 4)
    assert (named.ranks.tolist(), named.n_gallery, named.top.tolist()) == ([0], 2, [[2, 0]])
    assert gallery_rows(FASHION_IQ_VAL, records, Table("abcd")).tolist() == [0, 2]


def test_a_query_ranks_its_own_gallery_and_nothing_else():
    records = [ComposedRecord("0", "a", "t", "b", ("b", "d")), ComposedRecord("1", "a", "t", "c", ("c", "b", "d"))]
    system = Small(4, ["t"], 0)
    system.gallery, system.texts = np.asarray([[9], [1], [2], [3]], np.float32) / 4, {"t": np.ones(1, np.float32)}
    found = evaluate_retrieval(system, GENECIS, records, Table("abcd"))
    assert found.ranks.tolist() == [1, 1] and found.n_gallery == 3
    assert found.top.tolist() == [[3, 1, -1], [3, 2, 1]] and np.isneginf(found.scores[0, 2])
    assert found.metrics() == {"R@1": 0, "R@2": 100, "R@3": 100}


def test_any_right_picture_counts_and_queries_without_a_group_are_left_out_of_the_groups():
    records = [ComposedRecord("0", "a", "t", "b", ("b", "d"), truths=("b", "c")), ComposedRecord("1", "a", "t", "b")]
    system = Small(4, ["t"], 0)
    system.gallery, system.texts = np.asarray([[9], [1], [3], [2]], np.float32) / 4, {"t": np.ones(1, np.float32)}
    protocol = EvaluationProtocol("toy", (1, 2), subset_recall_at=(1, 2))
    found = evaluate_retrieval(system, protocol, records, Table("abcd"))
    assert found.metrics() == {"R@1": 0, "R@2": 0} and found.targets == ["b", "b"]
    found = evaluate_retrieval(system, dataclasses.replace(protocol, any_truth=True), records, Table("abcd"))
    assert found.metrics() == {"R@1": 50, "R@2": 50, "Rs@1": 0, "Rs@2": 100}
    assert found.ranks.tolist() == [0, 2] and found.targets == ["c", "b"]


def test_a_query_may_be_the_mean_of_its_rewordings():
    records = [ComposedRecord("0", "a", "t", "b", rewordings=("r",)), ComposedRecord("1", "b", "u", "a")]
    system = Small(2, [], 0)
    system.gallery = np.eye(2, dtype=np.float32)
    system.texts = {"t": np.asarray([1.0, 0], np.float32), "r": np.asarray([0.6, 0.8], np.float32),
                    "u": np.asarray([0, 1.0], np.float32)}  # fmt: skip
    plain = EvaluationProtocol("toy", (1,), excludes_reference=False)
    both = dataclasses.replace(plain, averages_rewordings=True)
    assert evaluate_retrieval(system, plain, records, Table("ab")).scores[:, 0].tolist() == [1, 1]
    found = evaluate_retrieval(system, both, records, Table("ab"))
    np.testing.assert_allclose(found.scores[0], np.asarray([1.6, 0.8]) / np.hypot(1.6, 0.8), atol=1e-6)
    np.testing.assert_allclose(found.scores[1], [1, 0], atol=1e-6)


def test_secret_targets_are_ranked_around_but_not_scored():
    records = [ComposedRecord("0", "a", "t", None, ("b", "c")), ComposedRecord("1", "b", "u", None, ("c",))]
    system = Small(4, ["t", "u"], 3)
    found = rank_records(system, PROTOCOLS["cirr"], records, Table("abcd"), keep=50)
    assert found.ranks.tolist() == found.subset_ranks.tolist() == [-1, -1]
    assert [sorted(row) for row in found.subset_top.tolist()] == [[1, 2], [-1, 2]]
    assert all("abcd".index(record.reference) not in row[:3] for record, row in zip(records, found.top, strict=True))
    with pytest.raises(UserError, match="2 of 2 records have no target"):
        found.metrics()


@pytest.mark.parametrize(
    ("protocol", "record"),
    [
        (CIRCO, ComposedRecord("7", "a", "t", "b", truths=("b", "gone"))),
        (CIRCO, ComposedRecord("7", "gone", "t", "b")),
        (CIRCO, ComposedRecord("7", "a", "t", "gone")),
        (GENECIS, ComposedRecord("7", "a", "t", "b", ("b", "gone"))),
    ],
)
def test_pictures_that_are_not_there_are_told(protocol, record):
    records = [ComposedRecord("0", "a", "t", "b", ("b",)), record]
    with pytest.raises(UserError, match=r"1 of 2 records name pictures that the gallery lacks \(7 names gone\)"):
        evaluate_retrieval(Small(2, ["t"], 0), protocol, records, Table("ab"))
    outside = ComposedRecord("8", "a", "t", "a", ("b",))  # the target is not in the query's own gallery
    with pytest.raises(UserError, match="8 names a"):
        evaluate_retrieval(Small(2, ["t"], 0), GENECIS, [outside], Table("ab"))


def test_parts_count_the_same_however_many_queries_they_have():
    assert mean_metrics([{"R@1": 10, "Rs@1": 3}, {"R@1": 40}]) == {"R@1": 25}


@hypothesis.settings(deadline=None, max_examples=25)
@hypothesis.given(st.lists(st.integers(0, 5), min_size=1, max_size=14), st.integers(0, 999), st.integers(1, 7))
def test_captions_are_scored_both_ways(pictures, seed, chunk):
    records = [ComposedRecord(str(i), f"p{row}", f"t{i}", f"p{row}") for i, row in enumerate(pictures)]
    system = Small(6, [record.text for record in records], seed)
    found = evaluate_retrieval(system, KARPATHY, records, Table([f"p{i}" for i in range(6)]), chunk=chunk)
    texts = np.stack([system.texts[record.text] for record in records])
    first = lambda scores, right, k: bool(set(np.argsort(-scores, kind="stable")[:k]) & set(right))
    expected = {}
    for k in (1, 5, 10):
        hits = [first(system.gallery @ text, [row], k) for text, row in zip(texts, pictures, strict=True)]
        expected[f"IR@{k}"] = 100 * np.mean(hits)
        own = {row: [i for i, of in enumerate(pictures) if of == row] for row in set(pictures)}
        expected[f"TR@{k}"] = 100 * np.mean([first(texts @ system.gallery[row], own[row], k) for row in own])
    assert found.metrics() == pytest.approx({**expected, "Avg": np.mean([*expected.values()])})
    assert set(found.by([("a",)] * len(records))["a"]) == {"IR@1", "IR@5", "IR@10", "n_queries"}


def test_the_first_of_a_ranking_are_ordered_by_other_scores_and_what_is_unknown_is_last():
    records = [ComposedRecord(str(i), "r", "t", "a", truths=("a", "b")) for i in range(3)]
    top = np.asarray([[0, 1, 2, 3, 4]] * 3)
    whole = Evaluation(
        EvaluationProtocol("p", recall_at=(1,)), records, 5, np.asarray([[2, 4], [1, 0], [0, -1]]), np.full(3, -1), top,
        np.zeros((3, 5)), top,
    )  # fmt: skip
    scores = np.asarray([[0.1, 0.1, 0.9], [np.nan] * 3, [0.0, 0.5, -np.inf]])
    found = whole.reranked(scores)
    assert found.top.tolist() == [[2, 0, 1, 3, 4], [0, 1, 2, 3, 4], [1, 0, 2, 3, 4]]
    assert found.truth_ranks.tolist() == [[0, 4], [2, 1], [1, -1]]
    some = found.of_rows(np.asarray([2, 0]))
    assert some.truth_ranks.tolist() == [[1, -1], [0, 4]] and [record.id for record in some.records] == ["2", "0"]
    assert some.metrics() == {"R@1": 50.0}
