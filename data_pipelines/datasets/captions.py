"""Captions in the style of COCO and Visual Genome, read as they come: pictures with texts that describe them.

Two layouts; where the first is there, it is read:
1. COCO's own: annotations/captions_{split}.json: {"images": [{"id", "file_name"}], "annotations": [{"image_id",
   "caption"}]}, pictures in {split}/. Splits are such as "train2014". A caption without a word is left out.
2. {split}.json: [{"image": path relative to the folder, "caption": text or [texts]}]   (a row per caption or per
   picture). Every *.json of the folder is a split; pictures may lie in any folders beside them.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any

from contextjax.json_files import LONG_LIST, read_json
from contextjax.types import CaptionRecord, UserError
from data_pipelines.records import DatasetReader, check_problems, stays_inside
from data_pipelines.texts import has_words

COCO = "captions_"


class CaptionsReader(DatasetReader[CaptionRecord]):
    """Reads a folder of captions; the folder is never written to."""

    name = "captions"
    record_type = CaptionRecord

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self._files = _files(self.folder)
        self.splits = tuple(self._files)
        if not self.splits:
            raise UserError(
                f'{self.folder} holds no <split>.json; expected lists of {{"image": path, "caption": text}} there, '
                "with pictures relative to the folder, or COCO's annotations/captions_<split>.json: check the path."
            )

    def annotation_files(self) -> list[Path]:
        """The files that decide what the set holds."""
        return list(self._files.values())

    def pictures(self, split: str) -> dict[str, Path]:
        """Picture path -> file, in order of first appearance. Rows with faults are told by `records`."""
        captions, _ = self._captions(split)
        return {image: self.folder / image for image, _ in captions}

    def captions(self, split: str) -> dict[str, str]:
        """None: a picture has several, and they are the records."""
        return {}

    def records(self, split: str) -> list[CaptionRecord]:
        """All captions of a split in the order of its file; the id is the picture's path and the caption's number.

        Raises:
          UserError: rows lack a picture or a caption, have an empty one, or name a path outside the folder.
        """
        captions, problems = self._captions(split)
        check_problems(problems, self._file(split).name)
        if not captions:
            raise UserError(f"{self._file(split)} holds no captions; expected at least one.")
        seen: Counter[str] = Counter()
        records = []
        for image, text in captions:
            records.append(CaptionRecord(f"{image}/{seen[image]}", image, text))
            seen[image] += 1
        return records

    def _file(self, split: str) -> Path:
        return self._files[split]

    def _captions(self, split: str) -> tuple[list[tuple[str, str]], list[str]]:
        """(picture, caption) of all sound rows, and what is wrong with the others."""
        captions, problems = [], []
        for number, row in enumerate(self._rows(split)):
            fault = _fault(row)
            if fault:
                problems.append(f"row {number} {fault}")
            else:
                image = str(PurePosixPath(row["image"]))  # "./a.png" and "a.png" are one picture
                captions += [(image, text) for text in _texts(row)]
        return captions, problems

    def _rows(self, split: str) -> list[Any]:
        """The rows of a split as the second layout has them."""
        file = self._file(split)
        if file.parent != self.folder:
            return _coco_rows(split, read_json(file, dict, layout="COCO", limits=LONG_LIST), file)
        return read_json(file, list, layout="a caption set", limits=LONG_LIST)


def _files(folder: Path) -> dict[str, Path]:
    """Split -> file."""
    coco = {path.stem.removeprefix(COCO): path for path in sorted(folder.glob(f"annotations/{COCO}*.json"))}
    return coco or {path.stem: path for path in sorted(folder.glob("*.json"))}


def _coco_rows(split: str, found: dict[str, Any], file: Path) -> list[Any]:
    """COCO's two lists as rows; a row with faults comes as it is, for its faults to be told."""
    for key in ("images", "annotations"):
        if not isinstance(found.get(key), list):
            raise UserError(f"{file} holds no list of {key}; expected COCO's annotation file: download it again.")
    names = {row["id"]: row["file_name"] for row in found["images"] if _has(row, id=int, file_name=str)}
    captions = [row for row in found["annotations"] if not (_has(row, caption=str) and not has_words(row["caption"]))]
    is_sound = lambda row: _has(row, image_id=int, caption=str) and row["image_id"] in names
    return [
        {"image": f"{split}/{names[row['image_id']]}", "caption": row["caption"]} if is_sound(row) else row
        for row in captions
    ]


def _has(row: Any, **kinds: type) -> bool:
    return isinstance(row, dict) and all(type(row.get(key)) is kind for key, kind in kinds.items())


def _texts(row: dict[str, Any]) -> list[Any]:
    return row["caption"] if isinstance(row["caption"], list) else [row["caption"]]


def _fault(row: Any) -> str:
    if not isinstance(row, dict) or not isinstance(row.get("image"), str) or "caption" not in row:
        return f"has no image and caption ({str(row)[:60]})"
    image = row["image"]
    if not stays_inside(image):
        return f"names '{image}', which is no path inside the folder"
    texts = _texts(row)
    if not texts:
        return f"has no caption for {image}"
    if not all(isinstance(text, str) for text in texts):
        return f"has a caption of {image} that is no text ({str(texts)[:60]})"
    return "" if all(map(has_words, texts)) else f"has a caption of {image} without a word"
