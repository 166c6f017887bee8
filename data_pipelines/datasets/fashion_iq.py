"""Fashion-IQ's layout: pairs of garments, two captions a pair, three categories.

captions/cap.{dress,shirt,toptee}.{train,val,test}.json: [{"candidate": id, "target": id, "captions": [text, text]}]
image_splits/split.{category}.{split}.json: [id]
images/<id>.png or .jpg                                     (some ids have none: their links are dead)

The categories are apart in evaluation: the splits "dress.val", "shirt.val", "toptee.val" (and test) have the pictures
of their own split file. "train" is all categories together.

Two galleries are in use, and they are two protocols: all pictures of the split file ("original"), or the references and
targets alone ("val"). Both are made of these splits.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from contextjax.json_files import read_json
from contextjax.types import ComposedRecord
from data_pipelines import annotations
from data_pipelines.readers import ComposedReader
from data_pipelines.records import check_problems, list_pictures

CATEGORIES = ("dress", "shirt", "toptee")
STRIPPED = ".?, \t\r\n"


class FashionIqReader(ComposedReader):
    """Reads a folder in Fashion-IQ's layout."""

    name = "fashion_iq"
    layout = "Fashion-IQ"
    queries = "captions/cap.{split}.json"
    known_splits = tuple(f"{category}.{split}" for split in ("train", "val", "test") for category in CATEGORIES)

    def __init__(self, folder: str | Path):
        self._files_of: dict[str, list[str]] = {}  # split -> "<category>.<split>" of its files
        super().__init__(folder)

    def annotation_files(self) -> list[Path]:
        """Returns the files that decide what the set holds."""
        return super().annotation_files() + [self._ids(name) for names in self._files_of.values() for name in names]

    def pictures(self, split: str) -> dict[str, Path]:
        """Returns picture id -> file, in the order of the split file; the file of a dead link is not there.

        Raises:
          UserError: the split file holds other things than ids.
        """
        files, ids, problems = list_pictures(self.folder / "images"), [], []
        for file in map(self._ids, self._files_of[split]):
            make = lambda _, id: [annotations.plain_path(id, "id")]
            sound, faults = annotations.parse(read_json(file, list, layout=self.layout), make, file=file.name)
            ids, problems = ids + sound, problems + faults
        check_problems(problems, f"Split '{split}' of {self.layout}")
        return {id: files.get(unicodedata.normalize("NFC", id), self.folder / "images" / f"{id}.png") for id in ids}

    def _find_splits(self) -> Iterable[str]:
        for name in self.known_splits:
            if (self.folder / self.queries.format(split=name)).exists():
                self._files_of.setdefault("train" if name.endswith(".train") else name, []).append(name)
        return self._files_of

    def _files(self, split: str) -> list[Path]:
        return [self.folder / self.queries.format(split=name) for name in self._files_of[split]]

    def _queries(self, file: Path, number: int, row: Any) -> Iterable[ComposedRecord]:
        category = file.name.split(".")[1]
        captions = annotations.texts(row, "captions")
        if 0 < sum(not caption.strip(STRIPPED) for caption in captions) < len(captions):
            self._half.add(f"{category}/{number}")
        text, *rewordings = dict.fromkeys((joined(captions), joined(captions[::-1])))
        yield ComposedRecord(
            id=f"{category}/{number}",
            reference=annotations.text(row, "candidate"),
            text=text,
            target=annotations.optional_name(row, "target"),
            kinds=(category,),
            rewordings=tuple(rewordings),
        )

    def _ids(self, name: str) -> Path:
        return self.folder / "image_splits" / f"split.{name}.json"


def joined(captions: list[str]) -> str:
    """Returns the captions of a pair as one text, "First and second", without the punctuation around them."""
    stripped = [caption.strip(STRIPPED) for caption in captions]
    text = " and ".join(caption for caption in stripped if caption)
    return text[:1].upper() + text[1:]
