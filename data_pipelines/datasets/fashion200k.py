"""Fashion200k's layout: garments with short descriptions; a query asks for another word of one description.

labels/{dress,jacket,pants,skirt,top}_{train,test}_detect_all.txt      PICTURE<tab>DETECTION SCORE<tab>DESCRIPTION
test_queries.txt                                                       REFERENCE TARGET
<PICTURE>, such as women/dresses/cocktail_dresses/1/1_0.jpeg

The files of labels are as the data set's authors describe them (github.com/xthan/fashion-200k). The protocol and
test_queries.txt are TIRG's (Vo et al., CVPR 2019): two pictures whose descriptions differ in one word are reference and
target, and the text is "replace WORD with WORD". A picture's id is its path. The real files were never read here.
"""

from __future__ import annotations

import dataclasses
import functools
import io
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random

from contextjax.json_files import LONG_LIST, read_text
from contextjax.types import ComposedRecord, UserError
from data_pipelines import annotations
from data_pipelines.readers import DatasetReader, SplitRecords
from data_pipelines.records import check_problems, matching

TRAIN, TEST = "train", "test"
LABELS = "labels/*_{split}_detect_all.txt"
QUERIES = "test_queries.txt"
TRAINED = 4  # queries of each training reference, with another description each


@dataclasses.dataclass(frozen=True)
class Garment:
    """A picture, the words of its description, and the category whose file lists it."""

    picture: str
    words: tuple[str, ...]
    category: str


class Fashion200kReader(DatasetReader[ComposedRecord]):
    """Reads a folder in Fashion200k's layout, with TIRG's test queries.

    Raises:
      UserError: the folder has no file of labels.
    """

    name = "fashion200k"
    layout = "Fashion200k"
    record_type = ComposedRecord

    def __init__(self, folder: str | Path):
        super().__init__(folder)
        self.splits = tuple(split for split in (TRAIN, TEST) if self._labels(split))
        if not self.splits:
            raise UserError(
                f"{self.folder} holds no {LABELS.format(split='{train,test}')}; expected a folder in {self.layout}'s "
                "layout: check the path."
            )

    def annotation_files(self) -> list[Path]:
        """Returns the files that decide what the set holds."""
        labels = [file for split in self.splits for file in self._labels(split)]
        return [*labels, self.folder / QUERIES] if TEST in self.splits else labels

    def pictures(self, split: str) -> dict[str, Path]:
        """Returns picture id -> file, in the order of the labels. `read` reports faults."""
        return {id: self.folder / id for id in self._garments(split)[0]}

    def captions(self, split: str) -> dict[str, str]:
        """Returns picture id -> its description, of the pictures that have one."""
        return {id: " ".join(garment.words) for id, garment in self._garments(split)[0].items() if garment.words}

    def read(self, split: str) -> SplitRecords[ComposedRecord]:
        """Returns the queries of a split; those of "test" have all pictures with the target's description.

        Raises:
          UserError: rows are faulty, test_queries.txt is missing, or no two descriptions differ in one word.
        """
        garments, problems = self._garments(split)
        check_problems(problems, f"Split '{split}' of {self.layout}")
        if split == TRAIN:
            records = list(_training_queries(garments.values()))
            return self._checked(records, [], self.folder / "labels", "descriptions that differ in one word")
        remedy = "TIRG's authors publish it (github.com/google/tirg)"
        file = self.folder / QUERIES
        lines = _lines(read_text(file, layout=self.layout, remedy=remedy, limits=LONG_LIST))
        pairs, problems = annotations.parse(lines, _pair, file=QUERIES)
        sound, unknown = [], []
        for number, pair in enumerate(pairs):
            if absent := [picture for picture in pair if picture not in garments]:
                unknown.append(f"query {number} names the unknown picture {absent[0]}")
            else:
                sound.append((number, garments[pair[0]], garments[pair[1]]))
        alike = _by_words(garments.values())
        queries = lambda _, row: _test_queries(row[0], row[1], row[2], alike)
        records, more = annotations.parse(sound, queries, file=QUERIES)
        return self._checked(records, problems + more, file, "queries", unknown=unknown)

    def _labels(self, split: str) -> list[Path]:
        folder, pattern = LABELS.format(split=split).split("/")
        return matching(self.folder / folder, pattern)

    @functools.lru_cache(2)  # noqa: B019 (a reader lives as long as its command)
    def _garments(self, split: str) -> tuple[dict[str, Garment], list[str]]:
        """Returns picture id -> garment, the first of each picture, and the problems of faulty lines."""
        garments: dict[str, Garment] = {}
        problems = []
        for file in self._labels(split):
            lines = _lines(read_text(file, layout=self.layout, limits=LONG_LIST))
            make = functools.partial(_garment, category=file.name.split("_")[0])
            rows, faults = annotations.parse(lines, make, file=file.name)
            problems += faults
            for garment in rows:
                garments.setdefault(garment.picture, garment)
        return garments, problems


def _lines(text: str) -> Iterator[str]:
    return (line for line in io.StringIO(text) if line.strip())  # str.splitlines splits at other characters, too


def _garment(number: int, line: str, category: str) -> Iterator[Garment]:
    columns = line.rstrip("\r\n").split("\t")
    if len(columns) != 3:
        raise annotations.Fault(f"has {len(columns)} columns ({line[:80]!r}), expected picture, score and description")
    description = annotations.checked_text(columns[2], "description")
    yield Garment(annotations.plain_path(columns[0].strip(), "picture"), tuple(description.split()), category)


def _pair(number: int, line: str) -> Iterator[list[str]]:
    names = line.split()
    if len(names) != 2:
        raise annotations.Fault(f"has {len(names)} names ({line[:80]!r}), expected a reference and a target")
    yield [annotations.plain_path(name, "picture") for name in names]


def _by_words(garments: Iterable[Garment]) -> Mapping[tuple[str, ...], list[str]]:
    """Returns a description's words -> the pictures that have it."""
    alike = defaultdict(list)
    for garment in garments:
        alike[garment.words].append(garment.picture)
    return alike


def _test_queries(
    number: int, reference: Garment, target: Garment, alike: Mapping[tuple[str, ...], Sequence[str]]
) -> Iterator[ComposedRecord]:
    if not (reference.words and target.words) or reference.words == target.words:
        given = " ".join(reference.words)
        raise annotations.Fault(f"has two pictures of {given[:80]!r}, expected descriptions that differ")
    yield ComposedRecord(
        id=str(number),
        reference=reference.picture,
        text=_replacement(reference.words, target.words),
        target=target.picture,
        kinds=(reference.category,),
        truths=(target.picture, *(id for id in alike[target.words] if id != target.picture)),
    )


def _training_queries(garments: Iterable[Garment]) -> Iterator[ComposedRecord]:
    """Yields at most TRAINED queries of each picture, with a target drawn by the reference's id."""
    garments = list(garments)
    alike = _by_words(garments)
    by_rest = defaultdict(list)  # a description without one of its words -> the descriptions that it is of
    for words in alike:
        for rest in dict.fromkeys(_rests(words)):
            by_rest[rest].append(words)

    @functools.cache
    def differing(own: tuple[str, ...]) -> list[tuple[str, ...]]:
        """Returns the descriptions that differ from one in one word, and not in the order of words alone."""
        others = dict.fromkeys(other for rest in _rests(own) for other in by_rest[rest])
        return [other for other in others if set(other) != set(own)]

    for garment in garments:
        own, random = garment.words, Random(f"query {garment.picture}")
        others = differing(own)
        for number, words in enumerate(random.sample(others, min(TRAINED, len(others)))):
            yield ComposedRecord(
                id=f"{garment.picture}/{number}",
                reference=garment.picture,
                text=_replacement(own, words),
                target=random.choice(alike[words]),
                kinds=(garment.category,),
            )


def _rests(words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    return (words[:at] + words[at + 1 :] for at in range(len(words)))


def _replacement(own: Sequence[str], asked: Sequence[str]) -> str:
    """Returns the text of a query: the first word that the other description lacks, or the last one, on each side."""
    odd = lambda words, others: next((word for word in words if word not in others), words[-1])
    return f"replace {odd(own, asked)} with {odd(asked, own)}"
