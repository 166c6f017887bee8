"""Composed queries and candidate sets from products that differ in their attributes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from random import Random

from contextjax.types import CandidateRecord, ComposedRecord
from data_pipelines.datasets.catalogue.layout import CatalogueLayout
from data_pipelines.datasets.catalogue.table import Product
from data_pipelines.datasets.catalogue.wording import Change, ask_for, describe

Key = tuple[str, ...]  # the values of a product's attributes
GROUP = 6  # products of a colour query's group: all attributes but the colour agree, and the colours differ
CANDIDATES = 10  # pictures of a candidate set
TWO = "two"  # the kind of queries that ask for two changes at once
# Queries of each product by the role that changes, or TWO of every pair of attributes. In evaluation there is one of
# each role, and one of TWO.
TRAINED = {"colour": 6, "audience": 1, "kind": 2, "plain": 2, TWO: 1}


def composed_queries(products: Sequence[Product], layout: CatalogueLayout, *, train: bool) -> list[ComposedRecord]:
    """Returns queries that ask for other values of one or two attributes of a product.

    Every product of which all attributes have a value is a reference. A change leads to values that at least one
    product of the split has. All products with these values are right; outside training a record lists them, in
    training it has one of them, drawn by the query's id.

    A record's kind is the role of the attribute that changes (the column's name of a plain one), or "two". Colour
    queries outside training have the group of the reference, where there are products of six colours that otherwise
    agree: the target and one product of each of four other colours.

    Args:
      products: the products of one split.
      layout: the attributes and their roles.
      train: whether the split is trained on.
    """
    by_key: dict[Key, list[str]] = {}
    for product in products:
        if product.is_complete:
            by_key.setdefault(product.values, []).append(product.id)
    finder = _Finder(by_key)
    columns = tuple(layout.attributes)
    names = [column if role == "plain" else role for column, role in layout.attributes.items()]
    positions = [at for at, role in enumerate(layout.roles) if role != "fixed"]
    single, double = [(at,) for at in positions], list(itertools.combinations(positions, 2))

    def queries(product: Product, changed: tuple[int, ...], count: int, random: Random) -> Iterator[ComposedRecord]:
        kind = names[changed[0]] if len(changed) == 1 else TWO
        keys = finder.others(product.values, changed)
        for key in (
            finder.drawn(product.values, changed, count, random)
            if train
            else random.sample(keys, min(count, len(keys)))
        ):
            truths = by_key[key]
            target = random.choice(truths)
            is_colour = len(changed) == 1 and layout.roles[changed[0]] == "colour"
            subset = _group(product.values, key, target, keys, by_key, random) if is_colour and not train else ()
            changes = [Change(layout.roles[at], columns[at], product.values[at], key[at]) for at in changed]
            yield ComposedRecord(
                id=f"{product.id}-{'-'.join(columns[at] for at in changed)}-{key[changed[0]]}",
                reference=product.id,
                text=ask_for(changes, random, roles=layout.roles),
                target=target,
                subset=subset,
                kinds=(kind,),
                truths=() if train else (target, *(id for id in truths if id != target)),
            )

    records = []
    for product in products:
        if not product.is_complete:
            continue
        random = Random(f"query {product.id}")
        for changed in single:
            records += queries(product, changed, TRAINED[layout.roles[changed[0]]] if train else 1, random)
        possible = [changed for changed in double if finder.others(product.values, changed)]
        for changed in possible if train else random.sample(possible, min(1, len(possible))):
            records += queries(product, changed, TRAINED[TWO], random)
    return records


def candidate_sets(products: Sequence[Product], layout: CatalogueLayout) -> list[CandidateRecord]:
    """Returns descriptions of one of ten products that agree in all attributes but those that vary.

    These are the layout's `varying`, or the colours. The description is the product's title, or its attributes where it
    has none and no value is missing; a product whose description is another's of its set, too, has none.
    """
    colours = (column for column, role in layout.attributes.items() if role == "colour")
    varying = [list(layout.attributes).index(column) for column in layout.varying or colours]
    groups: dict[Key, list[Product]] = {}
    for product in products:
        fixed = tuple(value for at, value in enumerate(product.values) if at not in varying)
        if all(fixed):
            groups.setdefault(fixed, []).append(product)
    records = []
    for fixed, members in groups.items():
        shuffled = Random(f"sets {fixed}").sample(members, len(members))
        for number in range(len(members) // CANDIDATES):
            chosen = shuffled[number * CANDIDATES : (number + 1) * CANDIDATES]
            records += _descriptions(f"{'-'.join(fixed)}-{number}", chosen, layout)
    return records


def caption_of(product: Product, layout: CatalogueLayout, *, title: bool) -> str:
    """Returns a text about a product: its attributes, and its title if that is asked for."""
    said = describe(layout.roles, tuple(layout.attributes), product.values)
    return f"{said}, {product.title.lower()}" if title and product.title else said


class _Finder:
    """Finds the keys that differ from a given one in given attributes and in no others."""

    def __init__(self, keys: Mapping[Key, Sequence[str]]):
        self._keys = keys
        self._by_rest: dict[tuple[int, ...], dict[Key, list[Key]]] = {}
        self._others: dict[tuple[Key, tuple[int, ...]], list[Key]] = {}
        self._weights: dict[tuple[Key, tuple[int, ...]], list[float]] = {}

    def others(self, key: Key, changed: tuple[int, ...]) -> list[Key]:
        """Returns the keys in the order of their first product."""
        if changed not in self._by_rest:
            by_rest = self._by_rest[changed] = {}
            for known in self._keys:
                by_rest.setdefault(_without(known, changed), []).append(known)
        if (key, changed) not in self._others:
            same = self._by_rest[changed].get(_without(key, changed), [])
            self._others[key, changed] = [other for other in same if all(other[at] != key[at] for at in changed)]
        return self._others[key, changed]

    def drawn(self, key: Key, changed: tuple[int, ...], count: int, random: Random) -> list[Key]:
        """Returns at most `count` others, each drawn in proportion to the square root of its number of products."""
        keys = self.others(key, changed)
        if (key, changed) not in self._weights:
            self._weights[key, changed] = list(itertools.accumulate(len(self._keys[other]) ** 0.5 for other in keys))
        if not keys:
            return []
        return list(dict.fromkeys(random.choices(keys, cum_weights=self._weights[key, changed], k=count)))


def _without(key: Key, changed: tuple[int, ...]) -> Key:
    return tuple(value for at, value in enumerate(key) if at not in changed)


def _group(own: Key, asked: Key, target: str, keys: Sequence[Key], by_key: Mapping[Key, Sequence[str]],
           random: Random) -> tuple[str, ...]:  # fmt: skip
    """Returns the target and one product of each of four other colours, or nothing where there are too few colours."""
    others = [key for key in keys if key not in (own, asked)]
    if len(others) < GROUP - 2:
        return ()
    return (target, *(random.choice(by_key[key]) for key in random.sample(others, GROUP - 2)))


def _descriptions(name: str, products: Sequence[Product], layout: CatalogueLayout) -> Iterator[CandidateRecord]:
    columns = tuple(layout.attributes)
    texts = [product.title or describe(layout.roles, columns, product.values) for product in products]
    images = tuple(product.id for product in products)
    lower = [text.lower() for text in texts]
    for index, text in enumerate(texts):
        if lower.count(text.lower()) == 1 and (products[index].title or products[index].is_complete):
            yield CandidateRecord(f"{name}/{images[index]}", images, text, index, "static", name)
