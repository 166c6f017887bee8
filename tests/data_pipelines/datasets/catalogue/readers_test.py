"""The readers of a catalogue against plain loops over its table."""

import csv

import pytest

from contextjax.types import UserError
from data_pipelines.datasets.catalogue.readers import CatalogueCaptionsReader, CatalogueReader, CatalogueSetsReader
from data_pipelines.tables import load_split
from tests.catalogues import DESCRIPTION, product_rows, write_catalogue

CHANGES = {
    "colour": {"baseColour"}, "audience": {"gender"}, "kind": {"articleType"},
    "two": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def table(catalogue_folder):
    """id -> the row, in small letters."""
    with (catalogue_folder / "styles.csv").open() as file:
        return {row["id"]: {key: value.lower() for key, value in row.items()} for row in csv.DictReader(file)}


def test_the_id_decides_the_split(catalogue_folder, table):
    reader = CatalogueReader(catalogue_folder)
    assert reader.splits == ("test", "train", "val")
    for split, digits in (("val", "1"), ("test", "0"), ("train", "23456789")):
        assert list(reader.pictures(split)) == sorted(id for id in table if id[-1] in digits)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_queries_ask_for_what_their_right_pictures_are(catalogue_folder, table, split):
    """Exactly the asked attributes differ, and outside training every product that fits is listed."""
    reader = CatalogueReader(catalogue_folder)
    records, attributes, seen = reader.records(split), tuple(DESCRIPTION["attributes"]), set()
    assert records == CatalogueReader(catalogue_folder).records(split)
    assert len({record.id for record in records}) == len(records)
    for record in records:
        own, target = table[record.reference], table[record.target]
        changed = {name for name in attributes if own[name] != target[name]}
        (kind,) = record.kinds
        assert changed == CHANGES[kind] or (kind == "two" and len(changed) == 2)
        assert "category" not in changed
        fitting = {id for id in reader.pictures(split) if all(table[id][name] == target[name] for name in attributes)}
        assert record.target in fitting and record.reference not in fitting
        assert record.truths == () if split == "train" else set(record.truths) == fitting
        if "baseColour" in changed:
            assert target["baseColour"] in record.text
        seen.add(kind)
    assert seen == set(CHANGES)


@pytest.mark.parametrize("reader", [CatalogueReader, CatalogueSetsReader, CatalogueCaptionsReader])
def test_the_order_of_the_rows_changes_nothing(tmp_path, reader):
    rows = product_rows(150)
    own, other = (
        reader(write_catalogue(tmp_path / name, each)) for name, each in (("a", rows), ("b", rows[::-1]))
    )  # fmt: skip
    for split in ("train", "val"):
        assert own.records(split) == other.records(split) and list(own.pictures(split)) == list(other.pictures(split))


def test_groups_are_of_six_colours_of_one_article(catalogue_folder, table):
    records = [record for record in CatalogueReader(catalogue_folder).records("val") if record.subset]
    assert len(records) > 20
    for record in records:
        group = [table[id] for id in (record.reference, *record.subset)]
        assert len(group) == 6 == len({row["baseColour"] for row in group}) and record.target in record.subset
        assert (
            len({(row["gender"], row["articletype" if "articletype" in row else "articleType"]) for row in group}) == 1
        )


def test_sets_agree_in_all_but_the_colour(tmp_path):
    rows = [(str(number), "Men", "Shirts", "Apparel", ("Red", "Blue")[number % 2], f"Shirt {number % 15}")
            for number in range(20)]  # fmt: skip
    folder = write_catalogue(tmp_path / "sets", [(f"{id}2", *rest) for id, *rest in rows])
    reader = CatalogueSetsReader(folder)
    records = reader.records("train")
    assert {len(record.images) for record in records} == {10} and len({record.set for record in records}) == 2
    titles = {f"{id}2": title for id, *_, title in rows}
    for record in records:
        assert titles[record.images[record.target]] == record.text
        assert [titles[id] for id in record.images].count(record.text) == 1, "a text fits one picture"
    with pytest.raises(UserError, match="holds no 10 products of this split that agree in all but what varies"):
        reader.records("val")


def test_sets_vary_in_the_attributes_that_are_named(tmp_path):
    rows = [
        (f"{number}2", "Men", f"Kind {number % 12}", "Apparel", "Red", f"Kind {number % 12}") for number in range(36)
    ]
    folder = write_catalogue(tmp_path / "sets", rows, varying=["articleType"])
    records = CatalogueSetsReader(folder).records("train")
    kind = {id: kind for id, _, kind, *_ in rows}
    assert len({record.set for record in records}) == 3
    for record in records:
        kinds = [kind[image] for image in record.images]
        assert kinds[record.target] == record.text and kinds.count(record.text) == 1
    with pytest.raises(UserError, match="'price' among those that vary, which is no attribute"):
        CatalogueSetsReader(write_catalogue(tmp_path / "odd", rows, varying=["price"]))


def test_captions_of_composed_queries_have_the_attributes_alone(catalogue_folder, table):
    for product, caption in CatalogueReader(catalogue_folder).captions("val").items():
        row = table[product]
        assert caption.startswith(row["baseColour"]) and caption.endswith(f"for {row['gender']}")


def test_captions_have_attributes_and_title(catalogue_folder, table):
    for record in CatalogueCaptionsReader(catalogue_folder).records("val"):
        row = table[record.image]
        assert record.text.startswith(row["baseColour"]) and record.text.endswith(row["name"])
        assert f"for {row['gender']}" in record.text


def test_a_value_that_is_missing_keeps_a_product_from_queries_and_not_from_the_gallery(tmp_path):
    rows = product_rows(120)
    rows[1] = (*rows[1][:4], "NA", rows[1][5])  # of val
    reader = CatalogueReader(write_catalogue(tmp_path / "catalogue", rows))
    named = {id for record in reader.records("val") for id in (record.reference, *record.truths)}
    assert rows[1][0] in reader.pictures("val") and rows[1][0] not in named


def test_a_split_is_prepared_and_a_query_without_a_group_is_kept(catalogue_folder):
    data = load_split(CatalogueReader(catalogue_folder), catalogue_folder, "val", size=8)
    assert data.has_captions and len(data.pictures) == 80
    assert {bool(record.subset) for record in data.records} == {True, False}


def test_each_reader_of_a_folder_has_tables_of_its_own(catalogue_folder):
    """A folder that one reader has prepared is read by the others, with their own records and captions."""
    readers = CatalogueReader, CatalogueCaptionsReader, CatalogueSetsReader
    loaded = [load_split(reader(catalogue_folder), catalogue_folder, "train", size=16) for reader in readers]
    for reader, data in zip(readers, loaded, strict=True):
        assert {type(record) for record in data.records} == {reader.record_type}
        assert dict(zip(data.pictures.ids, data.captions, strict=True)) == reader(catalogue_folder).captions("train")
