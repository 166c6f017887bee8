"""LaSCo's layout: generated queries over the pictures of COCO 2014.

lasco_{train,val}.json: [{"qid": 28714000, "query-image": [28714, "val2014/COCO_val2014_000000028714.jpg"],
                          "query-text": text, "target-image": [277005, "val2014/..."]}]
lasco_val_corpus.json: [{"id": 42, "path": "val/val2014/..."}]      (the gallery of "val"; mind the extra val/)
{train2014,val2014}/COCO_*.jpg                                      (or the same in coco/)

A picture's id is its path, as the queries write it. Other splits than "val" have the pictures that their queries name.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from contextjax.json_files import read_json
from contextjax.types import ComposedRecord
from data_pipelines import annotations
from data_pipelines.readers import ComposedReader
from data_pipelines.records import check_problems, matching

CORPUS = "_corpus.json"


class LascoReader(ComposedReader):
    """Reads a folder in LaSCo's layout."""

    name = "lasco"
    layout = "LaSCo"
    queries = "lasco_{split}.json"

    def annotation_files(self) -> list[Path]:
        """Returns the files that decide what the set holds."""
        return matching(self.folder, "lasco_*.json")

    def pictures(self, split: str) -> dict[str, Path]:
        """Returns picture path -> file: the corpus of a split that has one, else the pictures that its queries name.

        Raises:
          UserError: the corpus has rows without a path, or with one that leaves the folder.
        """
        root = self.folder / "coco" if (self.folder / "coco").is_dir() else self.folder
        corpus = self.folder / f"lasco_{split}{CORPUS}"
        is_needed = split == "val" or corpus.exists()
        return {name: root / name for name in (_corpus(corpus, split) if is_needed else self._named(split))}

    def _find_splits(self) -> list[str]:
        return [split for split in super()._find_splits() if not split.endswith("_corpus")]

    def _queries(self, file: Path, number: int, row: Any) -> Iterable[ComposedRecord]:
        yield ComposedRecord(
            id=f"{annotations.name(row, 'qid')}/{number}",
            reference=_path(row, "query-image"),
            text=annotations.words(row, "query-text"),
            target=_path(row, "target-image") if annotations.has(row, "target-image") else None,
        )


def _path(row: Any, key: str) -> str:
    picture = annotations.value(row, key, list, "its number and path")
    return annotations.plain_path(picture[1] if len(picture) == 2 else picture, key)


def _corpus(file: Path, split: str) -> list[str]:
    """Returns the pictures of a gallery, whose paths have the split's name before the queries' paths."""
    make = lambda _, row: [annotations.path(row, "path").removeprefix(f"{split}/")]
    paths, problems = annotations.parse(read_json(file, list, layout="LaSCo"), make, file=file.name)
    check_problems(problems, f"The gallery of split '{split}'")
    return list(dict.fromkeys(paths))
