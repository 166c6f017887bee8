"""Queries and sets of a few products by hand."""

from data_pipelines.datasets.catalogue.changes import candidate_sets, caption_of, composed_queries
from data_pipelines.datasets.catalogue.layout import CatalogueLayout
from data_pipelines.datasets.catalogue.table import Product

LAYOUT = CatalogueLayout(("x.csv",), {"colour": "colour", "article": "kind", "season": "fixed"})


def product(id, colour, article="shirt", season="summer", title=""):
    return Product(id, f"{id}.jpg", (colour, article, season), title, "val")


PRODUCTS = [
    product("1", "red"), product("2", "blue"), product("3", "blue"), product("4", "red", "coat"),
    product("5", "red", season="winter"), product("6", ""),
]  # fmt: skip


def test_exactly_the_asked_attribute_differs_and_all_that_fit_are_right():
    records = {record.id: record for record in composed_queries(PRODUCTS, LAYOUT, train=False)}
    assert {record.reference for record in records.values()} == {"1", "2", "3", "4"}  # 5 and 6 differ in more
    to_blue = records["1-colour-blue"]
    assert set(to_blue.truths) == {"2", "3"} and to_blue.target == to_blue.truths[0] and to_blue.kinds == ("colour",)
    assert "blue" in to_blue.text and to_blue.subset == ()  # too few colours for a group
    assert records["4-article-shirt"].truths == ("1",) and records["4-article-shirt"].kinds == ("kind",)
    assert set(records["4-colour-article-blue"].truths) == {"2", "3"}
    assert records["4-colour-article-blue"].kinds == ("two",)


def test_training_lists_no_right_pictures_and_is_the_same_again():
    records = composed_queries(PRODUCTS, LAYOUT, train=True)
    assert records == composed_queries(PRODUCTS, LAYOUT, train=True) and not any(record.truths for record in records)


def test_a_group_has_five_other_colours():
    colours = ("red", "blue", "green", "pink", "grey", "black", "white")
    records = composed_queries([product(c, c) for c in colours], LAYOUT, train=False)
    assert len(records) == 7
    for record in records:
        assert len({record.reference, *record.subset}) == 6 and record.subset[0] == record.target


def test_sets_are_of_ten_and_a_text_that_fits_two_describes_none():
    titles = ["same", "same", *map(str, range(9))]
    products = [product(str(i), f"colour {i}", title=title) for i, title in enumerate(titles)]
    records = candidate_sets(products, LAYOUT)
    (images,) = {record.images for record in records}
    chosen = [titles[int(id)] for id in images]
    assert len(images) == 10 and [r.text for r in records] == [t for t in chosen if chosen.count(t) == 1]
    assert all(titles[int(record.images[record.target])] == record.text for record in records)


def test_a_caption_has_the_attributes_and_the_title():
    shirt = product("1", "red", title="Fine Shirt")
    caption = caption_of(shirt, LAYOUT, title=True)
    assert "red" in caption and caption.endswith(", fine shirt")
    assert caption_of(shirt, LAYOUT, title=False) == caption.removesuffix(", fine shirt")


def test_without_a_title_only_products_with_every_value_are_described():
    products = [product(str(i), "" if i == 4 else f"colour {i}") for i in range(10)]
    records = candidate_sets(products, LAYOUT)
    assert len(records) == 9 and {record.images[record.target] for record in records} == set("012356789")
