"""Captions in the style of COCO and Visual Genome: pictures with texts that describe them.

Two layouts; where the first is there, it is read:
1. COCO's own: annotations/captions_{split}.json: {"images": [{"id", "file_name"}], "annotations": [{"image_id",
   "caption"}]}, pictures in {split}/. Splits are such as "train2014". A caption without a word is left out.
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
from data_pipelines.readers import DatasetReader
from data_pipelines.texts import has_words

COCO = "captions_"


class CaptionsReader(DatasetReader[CaptionRecord]):
    """Reads a folder of captions."""

    name = "captions"
    layout = "a caption set"
    record_type = CaptionRecord

    def __init__(self, folder: str | Path):
        super().__init__(folder)
        coco = {path.stem.removeprefix(COCO): path for path in sorted(self.folder.glob(f"annotations/{COCO}*.json"))}
        self._files = coco or {path.stem: path for path in sorted(self.folder.glob("*.json"))}
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
        captions, _ = self._captions(split)
        return {image: self.folder / image for image, _ in captions}

    def records(self, split: str) -> list[CaptionRecord]:
        """Returns all captions of a split in the order of its file; the id is the picture's path and a number.

        Raises:
          UserError: rows lack a picture or a caption, have an empty one, or name a path outside the folder; or there
            are no captions.
        """
        captions, problems = self._captions(split)
        counts: Counter[str] = Counter()
        records = []
        for image, text in captions:
            records.append(CaptionRecord(f"{image}/{counts[image]}", image, text))
            counts[image] += 1
        return self._checked(records, problems, self._files[split], "captions")

    def _captions(self, split: str) -> tuple[list[tuple[str, str]], list[str]]:
        """Returns (picture, caption) of all sound rows, and the problems of the others."""
        file = self._files[split]
        if file.parent == self.folder:
            rows = read_json(file, list, layout=self.layout, limits=LONG_LIST)
        else:
            rows = _coco_rows(split, read_json(file, dict, layout="COCO", limits=LONG_LIST), file)
        return annotations.parse(rows, _captions_of, file=file.name)


def _captions_of(_: int, row: Any) -> Iterator[tuple[str, str]]:
    """Yields (picture, caption) of a row in the second layout. Raises annotations.Fault."""
    image, given = annotations.path(row, "image"), annotations.value(row, "caption", str | list, "a text or texts")
    texts = annotations.items(row, "caption") if isinstance(given, list) else [annotations.text(row, "caption")]
    if not texts:
        raise annotations.Fault(f"has no caption for {image}")
    if not all(map(has_words, texts)):
        raise annotations.Fault(f"has a caption of {image} without a word")
    for text in texts:
        yield image, text


def _coco_rows(split: str, content: dict[str, Any], file: Path) -> list[Any]:
    """Returns COCO's two lists as rows of the second layout; a faulty row is returned as it is, to be reported."""
    for key in ("images", "annotations"):
        if not isinstance(content.get(key), list):
            raise UserError(f"{file} holds no list of {key}; expected COCO's annotation file: download it again.")
    names = {row["id"]: row["file_name"] for row in content["images"] if _has(row, id=int, file_name=str)}
    rows = [row for row in content["annotations"] if not (_has(row, caption=str) and not has_words(row["caption"]))]
    is_sound = lambda row: _has(row, image_id=int, caption=str) and row["image_id"] in names
    return [
        {"image": f"{split}/{names[row['image_id']]}", "caption": row["caption"]} if is_sound(row) else row
        for row in rows
    ]


def _has(row: Any, **kinds: type) -> bool:
    return isinstance(row, dict) and all(type(row.get(key)) is kind for key, kind in kinds.items())
