"""Tables as shops have them: encodings, line ends, quotation marks, and the faults of rows."""

import json
import unicodedata

import pytest

from contextjax.types import UserError
from data_pipelines.datasets.catalogue.layout import CatalogueLayout
from data_pipelines.datasets.catalogue.readers import CatalogueReader
from data_pipelines.datasets.catalogue.table import read_catalogue, split_of
from tests.catalogues import product_rows, write_catalogue

LAYOUT = CatalogueLayout(("styles.csv",), {"colour": "colour"}, title="name")
PLAIN = 'id,colour,name\n1,"Red","Tee, ""Café"""\n\n2,Blue,Tee\n'


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (PLAIN.encode(), "utf-8"),
        (PLAIN.encode("utf-8-sig"), "ascii"),  # the mark decides
        (PLAIN.encode("utf-16"), "utf-8"),
        (PLAIN.replace("\n", "\r\n").encode(), "utf-8"),
        (PLAIN.encode("cp1252"), "cp1252"),
        (PLAIN.replace("Tee, ", "Tee; ").replace(",", ";").replace("Tee; ", "Tee, ").encode(), "utf-8"),
        (PLAIN.replace("d\",\"T", "d\"\t\"T").replace("id,colour,name", "id\tcolour\tname").replace("1,", "1\t")
         .replace("2,Blue,", "2\tBlue\t").encode(), "utf-8"),
    ],
    ids=["utf-8", "mark", "utf-16", "crlf", "cp1252", "semicolons", "tabs"],
)  # fmt: skip
def test_a_table_is_read_as_it_was_written(tmp_path, content, encoding):
    folder = write_catalogue(tmp_path / "c", [("1",), ("2",)])
    (folder / "styles.csv").write_bytes(content)
    layout = CatalogueLayout(("styles.csv",), {"colour": "colour"}, title="name", encoding=encoding)
    catalogue = read_catalogue(folder, layout)
    assert catalogue.faults == ()
    assert [(p.id, p.values, p.title) for p in catalogue.products] == [
        ("1", ("red",), 'Tee, "Café"'), ("2", ("blue",), "Tee"),
    ]  # fmt: skip


def test_a_title_takes_what_unprotected_commas_cut_off(tmp_path):
    folder = write_catalogue(tmp_path / "c", [("1",)])
    (folder / "styles.csv").write_text("id,colour,name,,\n1,red,Perfume, Balm and Gel,\n")
    (product,) = read_catalogue(folder, LAYOUT).products
    assert product.title == "Perfume, Balm and Gel"


def test_every_fault_is_told_with_its_line(tmp_path):
    folder = write_catalogue(tmp_path / "c", [("1",), ("2",), ("5",)])
    (folder / "styles.csv").write_text(
        "id,colour,size\n1,red,3\n2,blue\n1,green,4\n,red,1\n3,red,3\n../5,red,2\n5,red,2,9\n"
    )
    catalogue = read_catalogue(folder, CatalogueLayout(("styles.csv",), {"colour": "colour"}))
    assert [product.id for product in catalogue.products] == ["1"]
    text = "; ".join(sorted(catalogue.faults))
    for fault in (
        "line 3 of styles.csv has 2 values, expected 3", "line 4 of styles.csv has the id 1 of line 2",
        "line 5 of styles.csv has no id", "line 6 of styles.csv has no picture images/3.jpg",
        "line 7 of styles.csv has 'images/../5.jpg' for its picture", "line 8 of styles.csv has 4 values, expected 3",
    ):  # fmt: skip
        assert fault in text
    assert len(catalogue.faults) == 6


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"id,name\n1,a\n", "have no column colour; they have id, name"),
        (b"number,colour,name\n", "has no column 'id'; it has number, colour, name"),
        (b'id,colour,name\n1,red,"x\n2,red,y\n', "can't be read from line 2 on .*close the quotation marks"),
        ("id,colour,name\n1,rosé,x\n".encode("cp1252"), r"is not utf-8 \(line 2: .*give its encoding"),
        (b"id,colour,colour,name\n", "has the column colour twice"),
        (b"x" * 200_000, "has no header .*expected the names of its columns in the first line"),
        (b"", "begins with an empty line; expected the names of its columns, 'id' among them"),
    ],
)
def test_a_table_that_is_none_ends_with_one_sentence(tmp_path, content, sentence):
    folder = write_catalogue(tmp_path / "c", [("1",)])
    (folder / "styles.csv").write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        read_catalogue(folder, LAYOUT)


def test_the_faults_of_all_tables_are_said_at_once(tmp_path):
    folder = write_catalogue(tmp_path / "c", [("1",)])
    (folder / "styles.csv").write_text("id,colour,colour\n")
    layout = CatalogueLayout(("styles.csv", "names.csv"), {"colour": "colour"}, title="name")
    with pytest.raises(UserError, match=r"has the column colour twice.*names\.csv is missing"):
        read_catalogue(folder, layout)


def test_a_picture_s_name_may_be_composed_in_unicode_s_other_way(tmp_path):
    folder = write_catalogue(tmp_path / "c", [(unicodedata.normalize("NFD", "é1"),)])
    (folder / "styles.csv").write_text("id,colour,name\n" + unicodedata.normalize("NFC", "é1") + ",red,Tee\n")
    assert read_catalogue(folder, LAYOUT).faults == ()


@pytest.mark.parametrize("value", ["", "NA", "n.a.", "#N/A", "--", "?", "Unknown", "not specified", "undefined"])
def test_what_stands_for_no_value_is_none(tmp_path, value):
    folder = write_catalogue(tmp_path / "c", [("1",)])
    (folder / "styles.csv").write_text(f"id,colour,name\n1,{value},Tee\n")
    assert [product.values for product in read_catalogue(folder, LAYOUT).products] == [("",)]


def test_values_that_are_said_alike_are_one(tmp_path):
    folder = write_catalogue(tmp_path / "c", [("1",), ("2",)])
    (folder / "styles.csv").write_text("id,kind\n2,Tshirt\n1,TSHIRTS\n")
    products = read_catalogue(folder, CatalogueLayout(("styles.csv",), {"kind": "kind"})).products
    assert [(product.id, product.values) for product in products] == [("1", ("t-shirt",)), ("2", ("t-shirt",))]


def test_a_picture_is_a_file_and_a_fault_says_what_is_there_instead(tmp_path):
    folder = write_catalogue(tmp_path / "c", [("1",), ("2",)])
    (folder / "images" / "1.jpg").rename(folder / "images" / "1.JPG")
    (folder / "images" / "3.jpg").mkdir()
    rows = ["1,red,a", "2,red,b", "3,red,c", f"{'9' * 300},red,d"]
    (folder / "styles.csv").write_text("\n".join(["id,colour,name", *rows]) + "\n")
    catalogue = read_catalogue(folder, LAYOUT)
    assert [product.id for product in catalogue.products] == ["2"] and len(catalogue.faults) == 3
    assert "line 2 of styles.csv has no picture images/1.jpg, but 1.JPG is there" in catalogue.faults[0]
    assert "line 4 of styles.csv has no picture images/3.jpg" in catalogue.faults[1]
    layout = CatalogueLayout(("styles.csv",), {"colour": "colour"}, title="name", picture="photos/{id}.jpg")
    assert "nor is there a folder photos" in read_catalogue(folder, layout).faults[0]


def test_a_quotation_mark_within_a_value_is_the_fault_of_its_row(tmp_path):
    folder = write_catalogue(tmp_path / "c", [("1",), ("2",), ("3",)])
    (folder / "styles.csv").write_text('id,colour,name\n1,red,"5" heel\n2,blue,"a, b"\n3,red\n')
    catalogue = read_catalogue(folder, LAYOUT)
    assert [product.title for product in catalogue.products] == ["a, b"]
    assert [fault.split(" has ")[1] for fault in catalogue.faults] == [
        "a quotation mark within a value; double it", "2 values, expected 3",
    ]  # fmt: skip


@pytest.mark.parametrize("last", ['3,green,"b"', '3,"green",b', '3,"gr""een",b'])
def test_rows_that_an_open_quotation_mark_takes_in_are_reported(last, tmp_path):
    folder = write_catalogue(tmp_path / "c", [("1",), ("2",), ("3",), ("4",)])
    (folder / "styles.csv").write_text(
        f'id,colour,name\n1,red,"a\n2,blue,x\n{last}\n4,pink,"two\nlines, of, 3, words"\n'
    )
    catalogue = read_catalogue(folder, LAYOUT)
    assert [product.title for product in catalogue.products] == ["two lines, of, 3, words"]
    assert [fault[:64] for fault in catalogue.faults] == [
        "line 2 of styles.csv has a value that goes on to line 4 and take"
    ]


def test_tables_are_joined_by_id(tmp_path):
    folder = write_catalogue(tmp_path / "c", [("1",), ("2",)])
    (folder / "styles.csv").write_text("id,colour\n1,red\n2,blue\n")
    (folder / "names.csv").write_text("name,id\nShirt,2\nCoat,9\n")
    layout = CatalogueLayout(("styles.csv", "names.csv"), {"colour": "colour"}, title="name")
    assert [product.title for product in read_catalogue(folder, layout).products] == ["", "Shirt"]


def test_faults_are_skipped_where_the_description_says_so(tmp_path):
    rows = product_rows(60)
    folder = write_catalogue(tmp_path / "c", rows)
    (folder / "images" / f"{rows[1][0]}.jpg").unlink()
    with pytest.raises(UserError, match="has 1 problem"):
        CatalogueReader(folder).records("train")
    description = json.loads((folder / "catalogue.json").read_text())
    (folder / "catalogue.json").write_text(json.dumps(description | {"faults": "skip"}))
    assert len(CatalogueReader(folder).pictures("val")) == 19


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"tables": []}, "no tables"), ({"tables": ["../x.csv"]}, "the table '../x.csv'"),
        ({"attributes": {"a": "size"}}, "the role 'size' for a, expected one of colour"),
        ({"attributes": {"a": "fixed"}}, "no attributes that can change"),
        ({"picture": "images/a.jpg"}, "expected a path with a column"), ({"encoding": "utf-99"}, "encoding 'utf-99'"),
        ({"encoding": "undefined"}, "encoding 'undefined'"), ({"encoding": "utf\0"}, "the encoding"),
        ({"picture": "images/{id:d}.jpg"}, "expected a path with a column"), ({"id": ""}, "no column of the id"),
        ({"picture": "images/{id!r}.jpg"}, "expected a path with a column"),
        ({"attributes": {"a": "colour", "b": "colour"}}, "the role colour for a and b, expected one"),
        ({"faults": "ignore"}, "'ignore' for faults"), ({"title": 3}, "'3' for title"), ({"sizes": ""}, "key 'sizes'"),
    ],
)  # fmt: skip
def test_a_description_that_is_none_ends_with_one_sentence(tmp_path, change, sentence):
    with pytest.raises(UserError, match=sentence):
        CatalogueReader(write_catalogue(tmp_path / "c", [("1",)], **change))


def test_an_id_that_is_no_number_has_a_split_of_its_own():
    assert [split_of(id) for id in ("11", "10", "12")] == ["val", "test", "train"]
    splits = [split_of(f"sku-{number}") for number in range(2000)]
    assert splits == [split_of(f"sku-{number}") for number in range(2000)]
    assert 100 < splits.count("val") < 300 and 100 < splits.count("test") < 300
