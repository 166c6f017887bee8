"""GeneCIS's layout: four tasks, each query with a small gallery of its own.

genecis/{focus,change}_{attribute,object}.json: [{"condition": text, "reference": picture, "target": picture,
                                                  "gallery": [picture]}]      (or the four files in the folder itself)
Object tasks, picture = {"val_image_id": 139}:
  val2017/000000000139.jpg                     (COCO 2017; or in coco/val2017/)
Attribute tasks, picture = {"image_id": 2345, "instance_bbox": [left, top, width, height]}:
  VG_100K/<id>.jpg, VG_100K_2/<id>.jpg         (Visual Genome; or in VG_100K_all/, or all of these in visual_genome/)

The four tasks are the four splits. A query's own gallery, target first, is its record's `subset`. Pictures of the
attribute tasks are crops around their boxes (records.Crop).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from contextjax.types import ComposedRecord
from data_pipelines import annotations
from data_pipelines.readers import ComposedReader
from data_pipelines.records import Crop, PictureFile, list_pictures

TASKS = ("change_attribute", "change_object", "focus_attribute", "focus_object")
COCO = ("val2017", "coco/val2017")
VISUAL_GENOME = ("VG_100K", "VG_100K_2", "VG_100K_all")
DILATION = 0.7
MAX_SIDE = 1_000_000  # no picture that is read is as long


class GenecisReader(ComposedReader):
    """Reads a folder in GeneCIS's layout."""

    name = "genecis"
    layout = "GeneCIS"
    queries = "genecis/{split}.json"
    known_splits = TASKS

    def pictures(self, split: str) -> dict[str, PictureFile]:
        """Returns picture id -> file, or the crop of one, of the pictures that the queries name."""
        if split.endswith("_object"):
            folders = [self.folder / name for name in COCO]
            files = list_pictures(*folders)
            return {id: files.get(f"{int(id):012d}", folders[0] / f"{int(id):012d}.jpg") for id in self._named(split)}
        folders = [self.folder / place / name for place in ("", "visual_genome") for name in VISUAL_GENOME]
        files, crops = list_pictures(*folders), {}
        for id in self._named(split):
            image, _, box = id.partition("/")
            left, top, width, height = map(float, box.split(","))
            file = files.get(image, folders[0] / f"{image}.jpg")
            crops[id] = Crop(file, (left, top, width, height), dilation=DILATION)
        return crops

    def _files(self, split: str) -> list[Path]:
        nested = self.folder / self.queries.format(split=split)
        return [nested if nested.exists() else self.folder / f"{split}.json"]

    def _queries(self, file: Path, number: int, row: Any) -> Iterable[ComposedRecord]:
        id = _coco_id if file.stem.endswith("_object") else _crop_id
        target = id(annotations.value(row, "target", dict, "a picture"))
        gallery = [id(picture) for picture in annotations.items(row, "gallery", dict, "a list of pictures")]
        if not gallery:
            raise annotations.Fault("has an empty gallery, expected pictures")
        yield ComposedRecord(
            id=str(number),
            reference=id(annotations.value(row, "reference", dict, "a picture")),
            text=annotations.words(row, "condition"),
            target=target,
            subset=tuple(dict.fromkeys([target, *gallery])),
        )


def _coco_id(picture: dict[str, Any]) -> str:
    return _number(picture, "val_image_id")


def _crop_id(picture: dict[str, Any]) -> str:
    """Returns "<picture>/<left>,<top>,<width>,<height>"."""
    box = annotations.items(picture, "instance_bbox", int | float, "four numbers")
    if len(box) != 4 or min(box[2:]) <= 0 or not all(abs(number) <= MAX_SIDE for number in box):
        raise annotations.Fault(f"has the box {box}, expected left, top, width and height")
    return f"{_number(picture, 'image_id')}/{','.join(map(str, box))}"


def _number(picture: dict[str, Any], key: str) -> str:
    number = annotations.name(picture, key)
    if not (number.isdecimal() and len(number) <= 12):
        raise annotations.Fault(f"has {number!r} for its {key}, expected a whole number")
    return str(int(number))
