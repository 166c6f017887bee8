"""Milvus beside the exact index: the same calls, the same answers. Skipped without the extra [milvus]."""

import numpy as np
import pytest

from contextjax.serving.attributes import Attributes
from contextjax.serving.index import Index
from contextjax.types import UserError
from tests.serving.conftest import vectors

pytest.importorskip("pymilvus", reason="needs the extra [milvus]")

from contextjax.serving.milvus import MilvusIndex, mirror


@pytest.fixture
def both(tmp_path):
    """An exact index and a collection in a file, of one model."""
    made = MilvusIndex(str(tmp_path / "m.db"), dimension=16, fingerprint="m-1")
    yield Index.create(tmp_path / "index", 16, fingerprint="m-1"), made
    made.close()


def equal(index, made, queries, k):
    for exact, hits in zip(index.search(queries, k), made.search(queries, k), strict=True):
        assert [name for name, _ in hits] == [name for name, _ in exact]
        np.testing.assert_allclose([score for _, score in hits], [score for _, score in exact], atol=1e-5)


def test_the_same_calls_give_the_same_answers(both):
    names, stored = [f"{i}.png" for i in range(2500)], vectors(2500)
    for index in both:
        index.add(names[:2000], stored[:2000])
        index.add(names[2000:], stored[2000:])
        index.remove(["7.png", "2400.png"])
        assert len(index) == 2498
    equal(*both, vectors(20, seed=1), 10)


NAMES = [
    "dog's bed.png", "'", '"', 'a"b', "a\\b.png", "a\\", "\\'", "\\n", "tab\t", "line\n.png", "\r\n", "", "%_*",
    "{x}.png", "\x00\x01\x7f\x85", "name == 'a'] or name in ['b", "собака 犬 🐕.png", "e\u0301", "\u00e9",
    "\u202egnp\u2028", "я" * 2048, "x" * 4096,
]  # fmt: skip


def test_any_name_can_be_put_in_found_and_removed(both):
    """Alone, beside all others, and copied from an index."""
    index, made = both
    stored = vectors(len(NAMES))
    for name, vector in zip(NAMES, stored, strict=True):
        made.add([name], vector[None])
        assert made.present([name]) == [name] and made.search(vector[None], 1)[0][0][0] == name
        with pytest.raises(UserError, match="already"):
            made.add([name], vector[None])
    for name in NAMES:
        made.remove([name])
        assert name not in made.present(NAMES)
    assert len(made) == 0
    index.add(NAMES, stored)
    assert mirror(index, made) == (len(NAMES), 0) and mirror(index, made) == (0, 0)
    assert set(made.stamps()) == set(NAMES) == set(made.present(NAMES))
    equal(index, made, stored, 3)
    made.remove(NAMES)
    assert len(made) == 0


def test_an_index_is_copied_and_kept_up_to_date(both):
    index, made = both
    index.add(["a", "b", "c"], vectors(3), stamps=np.asarray([[1, 1], [2, 2], [3, 3]]))
    assert mirror(index, made) == (3, 0) and mirror(index, made) == (0, 0)
    index.remove(["a", "b"])
    index.add(["b", "d"], vectors(2, seed=1), stamps=np.asarray([[9, 9], [4, 4]]))  # b has changed
    assert mirror(index, made) == (2, 2) and len(made) == 3
    equal(index, made, vectors(2, seed=3), 5)


def test_filters_and_thresholds_are_those_of_the_exact_index(both):
    index, made = both
    names = [f"{row}.png" for row in range(60)]
    index.add(names, vectors(60), stamps=np.arange(120).reshape(60, 2) + 1)
    missing = lambda value, row: None if row % 7 == 0 else value
    columns = {
        "price": [missing(row / 2, row) for row in range(60)],
        "shop no": [missing("ab'"[row % 3], row) for row in range(60)],
        "ok": [missing(row % 2 == 0, row) for row in range(60)],
    }  # fmt: skip
    index.set_attributes(Attributes(names, columns))
    assert mirror(index, made) == (60, 0) and mirror(index, made) == (0, 0) and made.kinds == index.kinds
    queries = vectors(2, seed=1)
    for where in ("price < 10", "`shop no` in ('a', '\\'')", "`shop no` not in ('a')", "ok != true or price >= 20.5",
                  "price = 1 and ok = true", "price > 1000"):  # fmt: skip
        for exact, hits in zip(
            index.search(queries, 20, where=where), made.search(queries, 20, where=where), strict=True
        ):
            assert [name for name, _ in hits] == [name for name, _ in exact], where
    least = index.search(queries, 5)[0][4][1] - 1e-4
    assert len(made.search(queries, 20, threshold=least)[0]) == 5
    asked = ["8.png", "7.png", "9.png", "unknown.png"]  # 7 has no value of any column
    assert made.attributes_of(asked) == index.attributes_of(asked)
    assert index.attributes_of(asked)[1:] == [{}, {"price": 4.5, "shop no": "a", "ok": False}, {}]
    columns["price"][1] = 500
    index.set_attributes(Attributes(names, columns))
    assert mirror(index, made) == (1, 1) and made.search(queries, 1, where="price = 500")[0][0][0] == "1.png"
    with pytest.raises(UserError, match="'size', and there are price"):
        made.search(queries, 1, where="size = 1")


def test_a_collection_follows_its_gallery_to_another_path(tmp_path):
    file, rows = str(tmp_path / "m.db"), np.arange(8).reshape(4, 2) + 1
    made = MilvusIndex(file, dimension=16, fingerprint="m-1")
    first = Index.create(tmp_path / "first", 16, fingerprint="m-1", gallery="one")
    first.add(["a", "b", "c", "d"], vectors(4), stamps=rows)
    assert mirror(first, made) == (4, 0) and made.gallery == "one"
    moved = Index.create(tmp_path / "moved", 16, fingerprint="m-1", gallery="two")
    moved.add(["a", "b", "e"], vectors(3), stamps=rows[:3])
    assert mirror(moved, made) == (1, 2)
    made.close()
    again = MilvusIndex(file, dimension=16, fingerprint="m-1")
    other = Index.create(tmp_path / "other", 16, fingerprint="m-1", gallery="three")
    other.add(["a", "b"], vectors(2), stamps=rows[2:])
    with pytest.raises(UserError, match="of the gallery two, not three"):
        mirror(other, again)
    assert again.gallery == "two" and len(again) == 3
    again.close()


def test_it_is_opened_again_and_mistakes_are_refused(both, tmp_path):
    _, made = both
    with pytest.raises(UserError, match="empty"):
        made.search(vectors(1), 1)
    made.add(["a"], vectors(1))
    for call, sentence in (
        (lambda: made.add(["a"], vectors(1)), "has 'a' already"),
        (lambda: made.add(["b", "b"], vectors(2)), "'b' come"),
        (lambda: made.add(["b"], vectors(1, 8)), r"expected \[1, 16\]"),
        (lambda: made.add(["b" * 5000], vectors(1)), "4,096 bytes"),
        (lambda: made.remove(["x"]), "has no 'x'"),
        (lambda: made.search(vectors(1, 8), 1), r"\[B, 16\]"),
        (lambda: made.check("m-2"), "of the model m-1"),
        (lambda: MilvusIndex("somewhere"), r"expected FILE\.db"),
        (lambda: MilvusIndex("http://[bad"), r"expected FILE\.db"),
        (lambda: MilvusIndex(str(tmp_path / "none.db")), "no collection"),
        (lambda: MilvusIndex(str(tmp_path / "none" / "m.db"), dimension=8), r"not exists\.$"),
        (lambda: MilvusIndex("http://127.0.0.1:1", timeout=0.5), "check the address and the server"),
    ):
        with pytest.raises(UserError, match=sentence):
            call()
    made.close()
    with pytest.raises(UserError, match="of the model m-1, but this one is m-2"):
        MilvusIndex(str(tmp_path / "m.db"), dimension=16, fingerprint="m-2")
    with pytest.raises(UserError, match="16 values a picture; expected 8"):
        MilvusIndex(str(tmp_path / "m.db"), dimension=8, fingerprint="m-1")
    again = MilvusIndex(str(tmp_path / "m.db"))
    assert len(again) == 1 and again.search(vectors(1), 1)[0][0][0] == "a"
    again.close()


def test_a_collection_is_of_one_gallery_and_another_has_its_own(tmp_path):
    file, about = str(tmp_path / "m.db"), {"dimension": 16, "fingerprint": "m-1"}
    first = MilvusIndex(file, **about, gallery="one")
    first.add(["a"], vectors(1))
    first.close()
    with pytest.raises(UserError, match=r"of the gallery one, not two; give this one another --milvus_collection"):
        MilvusIndex(file, **about, gallery="two")
    second = MilvusIndex(file, **about, gallery="two", collection="second")
    second.add(["a", "b"], vectors(2))
    second.close()
    for collection, gallery, count in (("contextjax", "one", 1), ("second", "two", 2)):
        opened = MilvusIndex(file, collection=collection)
        assert (opened.gallery, len(opened)) == (gallery, count)
        with pytest.raises(UserError, match=f"of the gallery {gallery}, not three"):
            mirror(Index.create(tmp_path / collection, 16, fingerprint="m-1", gallery="three"), opened)
        assert len(opened) == count
        opened.close()


def test_a_killed_beginning_is_begun_again_and_a_collection_of_others_is_left(tmp_path, monkeypatch):
    from pymilvus import MilvusClient

    file, made = str(tmp_path / "m.db"), MilvusIndex._make

    def killed(self, name, *more):
        if name == "contextjax":
            raise KeyboardInterrupt
        made(self, name, *more)

    monkeypatch.setattr(MilvusIndex, "_make", killed)
    with pytest.raises(KeyboardInterrupt):
        MilvusIndex(file, dimension=8, fingerprint="m-1")
    monkeypatch.undo()
    again = MilvusIndex(file, dimension=16, fingerprint="m-2")
    again.add(["a"], vectors(1))
    again.close()
    client = MilvusClient(file)
    client.create_collection("theirs", dimension=8)
    client.close()
    with pytest.raises(UserError, match=r"what the collection 'theirs' is of.*give another --milvus_collection"):
        MilvusIndex(file, dimension=16, collection="theirs")
    opened = MilvusIndex(file)
    assert (opened.dimension, opened.present(["b", "a"])) == (16, ["a"])
    opened.close()


def test_whatever_a_search_or_an_opening_asks_has_a_timeout(tmp_path, monkeypatch):
    """An unavailable server is not waited for. The client here notes how long it would wait."""
    import pymilvus

    timeouts = {}

    def noting(name):
        asked = getattr(pymilvus.MilvusClient, name)
        return lambda self, *given, **options: (timeouts.setdefault(name, []).append(options.get("timeout")),
                                                asked(self, *given, **options))[1]  # fmt: skip

    MilvusIndex(file := str(tmp_path / "m.db"), dimension=16).close()
    names = ("__init__", "has_collection", "query", "search")
    client = type("Noting", (pymilvus.MilvusClient,), {name: noting(name) for name in names})
    monkeypatch.setattr(pymilvus, "MilvusClient", client)
    opened = MilvusIndex(file, timeout=7)
    assert opened.present(["a"]) == [] and len(opened) == 0
    with pytest.raises(UserError, match="empty"):
        opened.search(vectors(1), 1)
    opened.close()
    assert set(timeouts) == set(names) and {timeout for each in timeouts.values() for timeout in each} == {7}


@pytest.mark.slow
def test_its_best_are_the_exact_index_best_of_50000(tmp_path):
    stored, names = vectors(50_000, 64), [str(i) for i in range(50_000)]
    index = Index.create(tmp_path / "index", 64)
    index.add(names, stored)
    made = MilvusIndex(str(tmp_path / "m.db"), dimension=64)
    mirror(index, made)
    equal(index, made, vectors(100, 64, seed=1), 10)
    made.close()
