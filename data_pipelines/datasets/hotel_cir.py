"""Hotel-CIR's layout, read as it comes: hotel rooms that differ in what a text says.

captions/hotel_{train,val,test}_data.json: [{"query_image": path, "result_image": path, "difference": text,
                                            "distractors": [path] (optional)}]
images/{train,val_test}/<the last three parts of the path>        (train for "train", val_test for all other splits)

A picture's id is these three parts. A split has the pictures that its rows name; the target and its distractors are the
query's group.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from contextjax.types import ComposedRecord, UserError
from data_pipelines import rows
from data_pipelines.composed import ComposedReader

PARTS = 3


class HotelCirReader(ComposedReader):
    """Reads a folder in Hotel-CIR's layout; the folder is never written to."""

    name = "hotel_cir"
    layout = "Hotel-CIR"

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        names = [path.name for path in sorted(self.folder.glob("captions/hotel_*_data.json"))]
        if not names:
            raise UserError(
                f"{self.folder} holds no captions/hotel_*_data.json; expected a folder in Hotel-CIR's layout: "
                "check the path."
            )
        self.splits = tuple(name.removeprefix("hotel_").removesuffix("_data.json") for name in names)

    def pictures(self, split: str) -> dict[str, Path]:
        """Picture id -> file, of the pictures that the rows name."""
        root = self.folder / "images" / ("train" if split == "train" else "val_test")
        return {name: root / name for name in self._named(split)}

    def _files(self, split: str) -> list[Path]:
        return [self.folder / "captions" / f"hotel_{split}_data.json"]

    def _queries(self, file: Path, number: int, row: Any) -> Iterable[ComposedRecord]:
        target = _id(rows.text(row, "result_image"), "result_image")
        others = rows.items(row, "distractors") if rows.has(row, "distractors") else []
        group = dict.fromkeys([target, *(_id(other, "distractors") for other in others)]) if others else ()
        yield ComposedRecord(
            id=str(number),
            reference=_id(rows.text(row, "query_image"), "query_image"),
            text=rows.text(row, "difference"),
            target=target,
            subset=tuple(group),
        )


def _id(path: str, key: str) -> str:
    """The last parts of a path, which may be one of its authors' machine."""
    return rows.plain_path("/".join(path.split("/")[-PARTS:]), key)
