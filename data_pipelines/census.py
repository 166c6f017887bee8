"""The census of a prepared split, for the user: counts, texts, pictures, and what was left out."""

from __future__ import annotations

import dataclasses
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from contextjax.types import NAMED, listed, printable


def about_pictures(pictures: Iterable[tuple[str, tuple[int, int], int, bytes]]) -> dict[str, Any]:
    """Counts sizes and duplicates of pictures.

    Args:
      pictures: (id, (width, height) in pixels, length of the file, digest of the file) each.
    """
    sides, lengths, same = [], [], defaultdict(list)
    for name, side, length, digest in pictures:
        sides.append(list(side))
        lengths.append(length)
        same[digest].append(name)
    by_area = sorted(sides, key=lambda side: (side[0] * side[1], side))
    return {
        "pictures": len(sides),
        "bytes": sum(lengths),
        "sizes": {
            "smallest": by_area[0],
            "median": by_area[len(by_area) // 2],
            "largest": by_area[-1],
            "different": len(set(map(tuple, sides))),
        },
        "duplicates": [names for names in same.values() if len(names) > 1],
    }


def about_records(records: Sequence[Any]) -> dict[str, Any]:
    """Counts the words of the texts, and records that differ in their id alone."""
    texts = [record.text for record in records]
    words = [len(text.split()) for text in texts]
    contents = [dataclasses.replace(record, id="") for record in records]
    return {
        "records": len(records),
        "words": {"min": min(words), "median": statistics.median(words), "max": max(words)},
        "longest": texts[words.index(max(words))],
        "different_texts": len(set(texts)),
        "duplicates": len(contents) - len(set(contents)),
    }


def lines(split: str, census: Mapping[str, Any]) -> list[str]:
    """Returns the lines of a split's census as they are printed."""
    pictures, records, left_out = census["pictures"], census["records"], census["left_out"]
    side = lambda name: "{} x {}".format(*pictures["sizes"][name])
    words = records["words"]
    same = [listed(names, between=" = ") for names in pictures["duplicates"]]
    printed = [
        f"split {split}: {records['records']:,} records, {pictures['pictures']:,} pictures "
        f"({pictures['bytes'] / 1e6:,.1f} MB)",
        f"  texts: {words['min']} to {words['max']} words, median {words['median']:g}; "
        f"{records['different_texts']:,} different; the longest: {_short(records['longest'])}",
        f"  pictures: {side('smallest')} to {side('largest')} pixels, median {side('median')}; "
        f"{pictures['sizes']['different']:,} different sizes",
        f"  duplicates: {records['duplicates']:,} records; {_some(same)}",
        f"  left out: {census['records_left_out']:,} records; {_some(list(left_out))}",
    ]
    problems = [printable(problem) for problem in list(left_out.values())[:NAMED]]
    problems += [f"and {len(left_out) - NAMED:,} more"] if len(left_out) > NAMED else []
    printed += [f"    {problem}" for problem in problems]
    return printed + [f"  {sentence}" for sentence in (*oddities(census), *unknown(census))]


def oddities(census: Mapping[str, Any]) -> list[str]:
    """Returns a sentence about each kind of odd records, which an evaluation scores like the others."""
    return [f"{len(ids):,} records {kind}: {listed(ids)}" for kind, ids in census["odd"].items()]


def unknown(census: Mapping[str, Any]) -> list[str]:
    """Returns a sentence about the records that name unknown pictures, if there are any."""
    sentences = census["unknown"]
    return (
        [f"{len(sentences):,} more records that can't be asked: {listed(sentences, between='; ')}"] if sentences else []
    )


def _some(names: Sequence[str]) -> str:
    return f"{len(names):,} pictures{': ' if names else ''}{listed(names)}"


def _short(text: str) -> str:
    return printable(repr(text if len(text) <= 100 else text[:100] + "…"))
