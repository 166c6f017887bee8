"""Bounding boxes of the things in pictures, read from beside a data set's annotations and added to the records.

boxes.json, or boxes/boxes.<split>.json: {picture: [{"name": name, "box": [left, top, right, bottom] in pixels}]}
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from contextjax import images
from contextjax.files import existing
from contextjax.json_files import read_json
from contextjax.types import PictureBoxes
from data_pipelines.records import PictureFile, Record, check_problems, matching


def box_files(folder: Path) -> list[Path]:
    """Returns the files of boxes in a data set's folder."""
    return [*matching(folder, "boxes.json"), *matching(folder, "boxes/boxes.*.json")]


def with_boxes(
    records: Sequence[Record], folder: Path, split: str, pictures: Mapping[str, PictureFile]
) -> list[Record]:
    """Returns records with the boxes of their reference, or of the picture that they describe, where a file has them.

    Raises:
      UserError: boxes are malformed or lie outside their picture; the message lists all of them.
    """
    file = next((f for f in (folder / "boxes" / f"boxes.{split}.json", folder / "boxes.json") if f.exists()), None)
    if file is None:
        return list(records)
    rows, known, problems = read_json(file, dict, layout="a data set"), {}, []
    for name in dict.fromkeys(filter(None, map(_boxed_picture, records))):
        path = pictures.get(name)
        if name not in rows or not isinstance(path, Path) or not (path := existing(path)).exists():
            continue  # a missing picture is reported where the pictures are read
        size = images.size_of(path)
        if size is None:
            continue  # so is a broken one
        faults = [fault for row in _list(rows[name]) if (fault := _fault(row, size))]
        problems += [f"{name} has {fault}" for fault in faults]
        if not faults:
            things = tuple((row["name"], tuple(map(float, row["box"]))) for row in rows[name])
            known[name] = PictureBoxes(size, things)
    check_problems(problems, file.name)
    return [
        dataclasses.replace(record, boxes=known[name]) if (name := _boxed_picture(record)) in known else record
        for record in records
    ]  # fmt: skip


def _boxed_picture(record: Any) -> str | None:
    """Returns the picture whose boxes a record has; None of a kind of record that has none."""
    return getattr(record, "boxed_picture", None)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _fault(row: Any, size: tuple[int, int]) -> str:
    """Returns what is wrong with a row of boxes; "" where nothing is."""
    name, box = (row.get("name"), row.get("box")) if isinstance(row, dict) else (None, None)
    if not isinstance(name, str) or not name.strip() or not isinstance(box, list) or len(box) != 4:
        return f"{str(row)[:80]}, which is no name and box of four numbers"
    if not all(type(side) in (int, float) and math.isfinite(side) for side in box):
        return f"the box {box} of '{name}', which is not four numbers"
    left, top, right, bottom = box
    if not (0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]):
        return f"the box {box} of '{name}', which is not left < right, top < bottom within {size[0]} x {size[1]} pixels"
    return ""
