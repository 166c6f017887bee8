"""Tests of tables of attributes: CSV and parquet alike, kinds of values, and what is refused."""

import datetime
import decimal

import pytest

from contextjax.serving.attributes import FILE, Attributes, read_table
from contextjax.types import UserError

TABLE = "name,price,shop,new,code,since\na.png,3,x,true,007,2026-01-02\nb.png,2.5,,False,12,2026-11-29\nc.png,,y,,1,\n"


def write(folder, text, name="t.csv", encoding="utf-8"):
    (folder / name).write_text(text, encoding=encoding)
    return folder / name


def test_a_csv_file_is_read_with_the_kinds_of_its_columns(tmp_path):
    expected = {
        "price": [3, 2.5, None], "shop": ["x", None, "y"], "new": [True, False, None], "code": ["007", "12", "1"],
        "since": ["2026-01-02", "2026-11-29", None],
    }  # fmt: skip
    for text, encoding in ((TABLE, "utf-8"), (TABLE.replace(",", ";"), "utf-8"), (TABLE, "utf-8-sig"),
                           (TABLE.replace("name", "file_name").replace("\n", "\r\n"), "utf-8")):  # fmt: skip
        table = read_table(write(tmp_path, text, encoding=encoding))
        assert table.names == ["a.png", "b.png", "c.png"] and table.columns == expected
    kinds = {"price": "number", "shop": "text", "new": "truth value", "code": "text", "since": "text"}
    assert table.kinds == kinds
    table.write(tmp_path)
    again = Attributes.open(tmp_path)
    assert again == table and again.of(["c.png", "x.png"]).columns["price"] == [None, None]
    assert again.of(["x.png", "a.png"]).rows() == [
        {}, {"price": 3, "shop": "x", "new": True, "code": "007", "since": "2026-01-02"}
    ]  # fmt: skip
    assert Attributes.open(tmp_path / "none") == Attributes([], {})


def test_a_parquet_file_is_read_alike(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {
        "name": ["a.png", "b.png"], "price": [decimal.Decimal("1.50"), None], "count": [1, 2],
        "part": [0.5, float("nan")], "day": [datetime.date(2026, 11, 29), None],
        "new": [True, None], "shop": ["x", None],
    }  # fmt: skip
    parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet")
    assert table.names == ["a.png", "b.png"] and table.columns == {
        "price": [1.5, None], "count": [1, 2], "part": [0.5, None], "day": ["2026-11-29", None], "new": [True, None],
        "shop": ["x", None],
    }  # fmt: skip
    parquet.write_table(pyarrow.table({"name": ["a"], "tags": [["x", "y"]]}), tmp_path / "t.parquet")
    with pytest.raises(UserError, match=r"'tags' of .* holds \['x', 'y'\]; expected numbers, texts"):
        read_table(tmp_path / "t.parquet")
    (tmp_path / "t.parquet").write_bytes(b"no parquet")
    with pytest.raises(UserError, match="can't be read as a parquet file"):
        read_table(tmp_path / "t.parquet")


def test_without_pyarrow_a_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"needs pyarrow .*; pip install 'contextjax\[tables\]', or give a CSV"):
        read_table(tmp_path / "t.parquet")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        ("file,price\na,1\n", r"the columns file, price; expected 'name'"),
        ("name,price\na,1\na,2\n", "has a more than once"),
        ("name,price\na,1,2\n", "Row 2 of .* has 3 cells; expected 2"),
        ("name,price,price\na,1,2\n", "a name for each column, all different"),
        ("name,price\n,1\n", "is no name"),
        ('name,price\n"a,1\n' + "x" * 200_000, "no CSV file"),
    ],
)
def test_bad_tables_are_refused_with_a_sentence(tmp_path, text, sentence):
    with pytest.raises(UserError, match=sentence):
        read_table(write(tmp_path, text))


def test_files_of_another_encoding_missing_and_damaged_ones_are_refused(tmp_path):
    with pytest.raises(UserError, match="not UTF-8"):
        read_table(write(tmp_path, TABLE.replace("x", "ä"), encoding="latin-1"))
    with pytest.raises(UserError, match="missing"):
        read_table(tmp_path / "none.csv")
    for content in ("{", "[]", '{"names": ["a"], "columns": {"b": []}}'):
        (tmp_path / FILE).write_text(content)
        with pytest.raises(UserError, match="embed with --attributes=TABLE again"):
            Attributes.open(tmp_path)
