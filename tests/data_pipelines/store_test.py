"""Stored tables: rows in their order, complete or not at all, and shared on the disk by links."""

import pickle
import tempfile

import pytest
import tensorflow_datasets as tfds

from contextjax.types import UserError
from data_pipelines.store import StoredRows, StoredTable

TEXTS = [f"text {number}" for number in range(20)]


def write(table, texts=TEXTS):
    table.write({"text": tfds.features.Text()}, ({"text": text} for text in texts), lambda: {"count": len(texts)})


@pytest.fixture
def table(tmp_path):
    table = StoredTable(tmp_path, "texts", about="texts.json")
    assert table.about is None
    write(table)
    return table


def test_rows_come_in_their_order_here_and_in_another_process(table, tmp_path):
    rows = StoredRows(table.folder)
    assert [row["text"].decode() for row in rows] == TEXTS
    assert len(rows) == 20 and rows[7] == {"text": b"text 7"}
    assert pickle.loads(pickle.dumps(rows))[19] == rows[19]
    assert StoredTable(tmp_path, "texts", about="texts.json").about == {"count": 20}


def test_a_table_whose_rows_fail_is_not_there(table, tmp_path):
    def rows():
        yield {"text": "one"}
        raise UserError("no more")

    with pytest.raises(UserError, match="no more"):
        table.write({"text": tfds.features.Text()}, rows(), dict)
    assert StoredTable(tmp_path, "texts", about="texts.json").about is None
    write(table, ["again"])
    assert [row["text"] for row in StoredRows(table.folder)] == [b"again"]


def test_a_linked_table_shares_its_files(table, tmp_path):
    other = StoredTable(tmp_path, "copy", about="copy.json")
    assert other.link(table, {"count": "the same"})
    assert list(StoredRows(other.folder)) == list(StoredRows(table.folder))
    inodes = lambda folder: {path.stat().st_ino for path in folder.iterdir()}
    assert inodes(other.folder) == inodes(table.folder)
    assert StoredTable(tmp_path, "copy", about="copy.json").about == {"count": "the same"}


def test_a_table_that_another_process_has_written_meanwhile_is_not_linked(table, tmp_path):
    write(StoredTable(tmp_path, "texts", about="texts.json"), ["other"])
    other = StoredTable(tmp_path, "copy", about="copy.json")
    assert not other.link(table, {}) and other.about is None and not other.folder.exists()


def test_writing_leaves_no_temporary_folder(tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    write(StoredTable(tmp_path, "texts", about="texts.json"))
    assert not list((tmp_path / "temporary").iterdir())
