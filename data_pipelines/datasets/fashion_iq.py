"""Fashion-IQ's layout, read as it comes: pairs of garments, two captions a pair, three categories.

captions/cap.{dress,shirt,toptee}.{train,val,test}.json: [{"candidate": id, "target": id, "captions": [text, text]}]
image_splits/split.{category}.{split}.json: [id]
images/<id>.png or .jpg                                     (some ids have none: their links are dead)

The categories are apart in evaluation: the splits "dress.val", "shirt.val", "toptee.val" (and test) have the pictures
of their own split file. "train" is all categories together.

Two galleries are in use, and they are two protocols: all pictures of the split file ("original"), or the references and
targets alone ("val"). Both are made of these splits.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from contextjax.json_files import read_json
from contextjax.types import ComposedRecord, UserError
from data_pipelines import rows
from data_pipelines.composed import ComposedReader
from data_pipelines.records import check_problems, list_pictures

CATEGORIES = ("dress", "shirt", "toptee")
STRIPPED = ".?, \t\r\n"


class FashionIqReader(ComposedReader):
    """Reads a folder in Fashion-IQ's layout; the folder is never written to."""

    name = "fashion_iq"
    layout = "Fashion-IQ"

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        found = {path.name[len("cap.") : -len(".json")] for path in self.folder.glob("captions/cap.*.*.json")}
        known = [f"{category}.{split}" for split in ("train", "val", "test") for category in CATEGORIES]
        self._parts: dict[str, list[str]] = {}  # split -> "<category>.<split>" of its files
        for part in known:
            if part in found:
                self._parts.setdefault("train" if part.endswith(".train") else part, []).append(part)
        if not self._parts:
            raise UserError(
                f"{self.folder} holds no captions/cap.{{{','.join(CATEGORIES)}}}.*.json; expected a folder in "
                "Fashion-IQ's layout: check the path."
            )
        self.splits = tuple(self._parts)

    def annotation_files(self) -> list[Path]:
        """The files that decide what the set holds."""
        return super().annotation_files() + [self._ids(part) for parts in self._parts.values() for part in parts]

    def pictures(self, split: str) -> dict[str, Path]:
        """Picture id -> file, in the order of the split file; a dead link's file is not there.

        Raises:
          UserError: the split file holds other things than ids.
        """
        files, ids, problems = list_pictures(self.folder / "images"), [], []
        for file in map(self._ids, self._parts[split]):
            make = lambda _, id: [rows.plain_path(id, "id")]
            found, faults = rows.parse(read_json(file, list, layout=self.layout), make, file=file.name)
            ids, problems = ids + found, problems + faults
        check_problems(problems, f"Split '{split}' of {self.layout}")
        return {id: files.get(id, self.folder / "images" / f"{id}.png") for id in ids}

    def _files(self, split: str) -> list[Path]:
        return [self.folder / "captions" / f"cap.{part}.json" for part in self._parts[split]]

    def _queries(self, file: Path, number: int, row: Any) -> Iterable[ComposedRecord]:
        category = file.name.split(".")[1]
        captions = rows.items(row, "captions")
        text, *rewordings = dict.fromkeys((joined(captions), joined(captions[::-1])))
        yield ComposedRecord(
            id=f"{category}/{number}",
            reference=rows.text(row, "candidate"),
            text=text,
            target=rows.maybe(row, "target"),
            kinds=(category,),
            rewordings=tuple(rewordings),
        )

    def _ids(self, part: str) -> Path:
        return self.folder / "image_splits" / f"split.{part}.json"


def joined(captions: list[str]) -> str:
    """ "First and second": the captions of a pair as one text, without what stands around them."""
    stripped = [caption.strip(STRIPPED) for caption in captions]
    text = " and ".join(caption for caption in stripped if caption)
    return text[:1].upper() + text[1:]
