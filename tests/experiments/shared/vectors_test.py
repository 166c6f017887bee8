"""Tests of an index's embeddings as files: npy with parquet, and FAISS's own."""

import numpy as np
import pytest

from contextjax.serving.attributes import Attributes
from contextjax.serving.index import Index
from contextjax.types import UserError
from experiments.shared.vectors import write_vectors
from tests.serving.conftest import vectors

parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def index(tmp_path):
    made = Index.create(tmp_path / "index", 16, storage="bfloat16")
    made.add(["a.png", "b.png", "c.png"], vectors(3))
    made.add(["d.png"], vectors(1, seed=1))
    made.set_attributes(Attributes(["b.png", "d.png"], {"price": [1, 2], "part": [0.5, 1], "shop": ["x", None]}))
    return made


def test_embeddings_and_rows_are_in_the_index_s_order(index, tmp_path):
    write_vectors(index, tmp_path / "out", ["npy"])
    array = np.load(tmp_path / "out" / "embeddings.npy")
    assert array.dtype == np.float32 and sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "embeddings.npy", "rows.parquet"
    ]  # fmt: skip
    np.testing.assert_allclose(array, np.concatenate([vectors(3), vectors(1, seed=1)]), atol=4e-3)
    rows = parquet.read_table(tmp_path / "out" / "rows.parquet").to_pydict()
    assert rows == {"name": index.names, "price": [None, 1, None, 2], "part": [None, 0.5, None, 1.0],
                    "shop": [None, "x", None, None]}  # fmt: skip
    with pytest.raises(UserError, match="exists already"):
        write_vectors(index, tmp_path / "out", ["npy"])


def test_faiss_finds_what_the_index_finds(index, tmp_path):
    faiss = pytest.importorskip("faiss")
    write_vectors(index, tmp_path / "out", ["faiss"])
    read = faiss.read_index(str(tmp_path / "out" / "embeddings.faiss"))
    queries = vectors(3, seed=2)
    scores, rows = read.search(queries, 4)
    for hits, own, found in zip(index.search(queries, 4), scores, rows, strict=True):
        assert [index.names[row] for row in found] == [name for name, _ in hits]
        np.testing.assert_allclose(own, [score for _, score in hits], atol=1e-5)


def test_what_is_missing_is_named_before_anything_is_written(index, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(UserError, match=r"needs faiss .*pip install faiss-cpu"):
        write_vectors(index, tmp_path / "out", ["npy", "faiss"])
    assert not (tmp_path / "out").exists()
