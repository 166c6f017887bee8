"""Hotel-CIR's layout: hotel rooms that differ in what a text says.

captions/hotel_{train,val,test}_data.json: [{"query_image": path, "result_image": path, "difference": text,
                                            "distractors": [path] (optional)}]
images/{train,val_test}/<the last three components of the path>      (train for "train", val_test for all other splits)

A picture's id is these three components. A split has the pictures that its rows name; the target and its distractors
are the query's group.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from contextjax.types import ComposedRecord
from data_pipelines import annotations
from data_pipelines.readers import ComposedReader

ID_LENGTH = 3  # components of a path


class HotelCirReader(ComposedReader):
    """Reads a folder in Hotel-CIR's layout."""

    name = "hotel_cir"
    layout = "Hotel-CIR"
    queries = "captions/hotel_{split}_data.json"

    def pictures(self, split: str) -> dict[str, Path]:
        """Returns picture id -> file, of the pictures that the rows name."""
        root = self.folder / "images" / ("train" if split == "train" else "val_test")
        return {name: root / name for name in self._named(split)}

    def _queries(self, file: Path, number: int, row: Any) -> Iterable[ComposedRecord]:
        target = _id(annotations.text(row, "result_image"), "result_image")
        others = annotations.items(row, "distractors") if annotations.has(row, "distractors") else []
        group = dict.fromkeys([target, *(_id(other, "distractors") for other in others)]) if others else ()
        yield ComposedRecord(
            id=str(number),
            reference=_id(annotations.text(row, "query_image"), "query_image"),
            text=annotations.words(row, "difference"),
            target=target,
            subset=tuple(group),
        )


def _id(path: str, key: str) -> str:
    """Returns the last components of a path, which may be one of its authors' machine."""
    return annotations.plain_path("/".join(path.split("/")[-ID_LENGTH:]), key)
