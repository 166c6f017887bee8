"""Captions in the style of COCO and Visual Genome: pictures with texts that describe them.

Two layouts; where the first is there, it is read:
1. COCO's own: annotations/captions_{split}.json: {"images": [{"id", "file_name"}], "annotations": [{"image_id",
   "caption"}]}, pictures in {split}/. Splits are such as "train2014".
2. {split}.json: [{"image": path relative to the folder, "caption": text or [texts]}]   (a row per caption or per
   picture). Every *.json of the folder is a split; pictures may lie in any folders beside them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from contextjax.json_files import LONG_LIST, read_json
from contextjax.types import CaptionRecord, UserError
from data_pipelines import annotations
from data_pipelines.readers import DatasetReader, SplitRecords
from data_pipelines.records import matching

COCO = "captions_"
UNLISTED = object()  # stands for a row about a picture that COCO's file does not list


class CaptionsReader(DatasetReader[CaptionRecord]):
    """Reads a folder of captions."""

    name = "captions"
    layout = "a caption set"
    record_type = CaptionRecord

    def __init__(self, folder: str | Path):
        super().__init__(folder)
        coco = {path.stem.removeprefix(COCO): path for path in matching(self.folder, f"annotations/{COCO}*.json")}
        self._files = coco or {path.stem: path for path in matching(self.folder, "*.json")}
        self.splits = tuple(self._files)
        if not self.splits:
            raise UserError(
                f'{self.folder} holds no <split>.json; expected lists of {{"image": path, "caption": text}} there, '
                "with pictures relative to the folder, or COCO's annotations/captions_<split>.json: check the path."
            )

    def annotation_files(self) -> list[Path]:
        """Returns the files that decide what the set holds."""
        return list(self._files.values())

    def pictures(self, split: str) -> dict[str, Path]:
        """Returns picture path -> file, in order of first appearance. `records` reports rows with faults."""
        captions, *_ = self._captions(split)
        return {image: self.folder / image for image, _ in captions}

    def read(self, split: str) -> SplitRecords[CaptionRecord]:
        """Returns all captions of a split in the order of its file; the id is the picture's path and a number.

        Raises:
          UserError: rows lack a picture or a caption, or name a path outside the folder; or there are no captions.
        """
        captions, problems, unknown = self._captions(split)
        counts: Counter[str] = Counter()
        records = []
        for image, text in captions:
            records.append(CaptionRecord(f"{image}/{counts[image]}", image, text))
            counts[image] += 1
        return self._checked(records, problems, self._files[split], "captions", unknown=unknown)

    def _captions(self, split: str) -> tuple[list[tuple[str, str]], list[str], list[str]]:
        """Returns (picture, caption) of all sound rows, the problems of the others, and rows of unknown pictures."""
        file = self._files[split]
        if file.parent == self.folder:
            rows, unknown = read_json(file, list, layout=self.layout, limits=LONG_LIST), []
        else:
            rows, unknown = _coco_rows(split, read_json(file, dict, layout="COCO", limits=LONG_LIST), file)
        return *annotations.parse(rows, _captions_of, file=file.name), unknown


def _captions_of(_: int, row: Any) -> Iterator[tuple[str, str]]:
    """Yields (picture, caption) of a row in the second layout. Raises annotations.Fault."""
    if row is UNLISTED:
        return
    image = annotations.path(row, "image")
    given = annotations.value(row, "caption", str | list | None, "a text or texts")
    texts = annotations.texts(row, "caption") if isinstance(given, list) else [annotations.words(row, "caption")]
    if not texts:
        raise annotations.Fault(f"has no caption for {image}")
    for text in texts:
        yield image, text


def _coco_rows(split: str, content: dict[str, Any], file: Path) -> tuple[list[Any], list[str]]:
    """Returns COCO's two lists as rows of the second layout, and a sentence of each row about an unlisted picture.

    A faulty row is returned as it is, to be reported.
    """
    for key in ("images", "annotations"):
        if not isinstance(content.get(key), list):
            raise UserError(f"{file} holds no list of {key}; expected COCO's annotation file: download it again.")
    names = {row["id"]: row["file_name"] for row in content["images"] if _has(row, id=int, file_name=str)}
    rows, unknown = [], []
    for number, row in enumerate(content["annotations"]):
        if (
            not (_has(row, image_id=int, caption=str) or _has(row, image_id=int, caption=type(None)))
            or "caption" not in row
        ):
            rows.append(row)
        elif row["image_id"] in names:
            rows.append({"image": f"{split}/{names[row['image_id']]}", "caption": row["caption"]})
        else:
            rows.append(UNLISTED)  # the rows keep their numbers
            unknown.append(f"annotation {number} is of the unknown picture {row['image_id']}")
    return rows, unknown


def _has(row: Any, **kinds: type) -> bool:
    return isinstance(row, dict) and all(type(row.get(key)) is kind for key, kind in kinds.items())
