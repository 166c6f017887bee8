"""Texts about products, read by eye and held here."""

from random import Random

import pytest

from data_pipelines.datasets.catalogue.wording import SINGLE, Change, ask_for, bare, canonical, describe, name, one_of


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("shirts", "a shirt"), ("tshirts", "a t-shirt"), ("jeans", "jeans"), ("track pants", "track pants"),
        ("dresses", "a dress"), ("watches", "a watch"), ("casual shoes", "casual shoes"), ("umbrellas", "an umbrella"),
        ("flip flops", "flip flops"), ("scarves", "a scarf"), ("handbags", "a handbag"), ("bra", "a bra"),
        ("accessory gift set", "an accessory gift set"), ("sunglasses", "sunglasses"), ("tops", "a top"),
        ("red delicious", "a red delicious"), ("asparagus", "an asparagus"), ("canvas", "a canvas"), ("shoe", "shoes"),
        ("lip care", "lip care"), ("swimwear", "swimwear"), ("hoodies", "a hoodie"), ("ties", "a tie"),
        ("mens grooming kit", "a men's grooming kit"), ("buses", "a bus"), ("bikinis", "a bikini"),
    ],
)  # fmt: skip
def test_kinds_are_said_as_english_says_them(kind, said):
    assert one_of(kind) == said and said.endswith(bare(kind))


@pytest.mark.parametrize(
    ("role", "values"),
    [
        ("kind", "Tshirt Tshirts T-shirts"), ("kind", "Shirt shirts"), ("kind", "shoe Shoes"), ("kind", "bus buses"),
        ("audience", "Man Men Male mens men's"), ("audience", "unisex anyone"),
        ("colour", "Multi multicolor Multi-Colour"), ("colour", "caf\u00e9 cafe\u0301"),
        ("plain", "Summer SUMMER"), ("plain", "tshirt t-shirt"),
    ],
)  # fmt: skip
def test_what_is_said_alike_is_one_value(role, values):
    said = {canonical(value, role) for value in values.split()}
    assert len(said) == 1 and {canonical(value, role) for value in said} == said


def test_a_change_says_the_new_value():
    for role, templates in SINGLE.items():
        change = Change(role, "baseColour", "white", "navy blue")
        texts = {ask_for([change], Random(seed)) for seed in range(200)}
        assert len(texts) == len(templates) and all("navy blue" in text for text in texts)
        assert not any("{" in text for text in texts)


def test_two_changes_say_both():
    changes = [Change("colour", "c", "white", "red"), Change("audience", "g", "men", "unisex")]
    texts = {ask_for(changes, Random(seed)) for seed in range(100)}
    assert all("in red" in text and "for anyone" in text for text in texts) and len(texts) > 6


def test_a_description_has_all_values():
    roles, columns = ("audience", "kind", "colour", "plain", "fixed"), ("g", "k", "c", "baseMaterial", "category")
    said = describe(roles, columns, ("women", "tshirts", "navy blue", "cotton", "apparel"))
    assert said == "navy blue t-shirt for women with base material cotton"
    assert describe(roles, columns, ("", "tshirts", "", "", "")) == "t-shirt"
    assert [name(column) for column in ("base_colour", "SEASON", "heelHeightCM")] == [
        "base colour", "season", "heel height cm",
    ]  # fmt: skip


def test_no_text_says_the_same_colour_of_products_without_colours():
    change = Change("kind", "class", "lemons", "limes")
    said = lambda roles: {ask_for([change], Random(seed), roles=roles) for seed in range(100)}
    assert any("colour" in text for text in said(("kind", "colour")))
    assert not any("colour" in text for text in said(("kind", "fixed")))
