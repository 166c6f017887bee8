"""CIRCO's layout: queries with several right pictures, over COCO 2017's unlabeled ones.

annotations/{val,test}.json: [{"id": 0, "reference_img_id": 1, "relative_caption": text, "shared_concept": text,
                              (val only) "target_img_id": 2, "gt_img_ids": [2, 7], "semantic_aspects": [text]}]
COCO2017_unlabeled/annotations/image_info_unlabeled2017.json: {"images": [{"id": 1, "file_name": "000000000001.jpg"}]}
COCO2017_unlabeled/unlabeled2017/<file_name>                 (or COCO2017_unlabeled/data/)

A picture's id is its number in COCO. All pictures are the gallery of both splits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from contextjax.json_files import read_json
from contextjax.types import ComposedRecord, UserError
from data_pipelines import annotations
from data_pipelines.readers import ComposedReader
from data_pipelines.records import check_problems

TEMPLATE = "Find a picture that also {shared_concept}, but {relative_caption}."
COCO = "COCO2017_unlabeled"
IMAGES = f"{COCO}/annotations/image_info_unlabeled2017.json"


class CircoReader(ComposedReader):
    """Reads a folder in CIRCO's layout."""

    name = "circo"
    layout = "CIRCO"
    queries = "annotations/{split}.json"
    known_splits = ("test", "val")

    def annotation_files(self) -> list[Path]:
        """Returns the files that decide what the set holds."""
        return [*super().annotation_files(), self.folder / IMAGES]

    def pictures(self, split: str) -> dict[str, Path]:
        """Returns picture number -> file, in the order of COCO's list.

        Raises:
          UserError: COCO's list has rows without a number or a file's name, or names a number twice.
        """
        root = self.folder / COCO / "unlabeled2017"
        root = root if root.is_dir() else self.folder / COCO / "data"
        listed = read_json(self.folder / IMAGES, dict, layout=self.layout).get("images")
        if not isinstance(listed, list):
            raise UserError(f"{self.folder / IMAGES} holds no list of images; expected COCO's: download it again.")
        make = lambda _, row: [(annotations.name(row, "id"), root / annotations.path(row, "file_name"))]
        pictures, problems = annotations.parse(listed, make, file=IMAGES)
        counts = Counter(id for id, _ in pictures)
        problems += [f"picture {id} comes {count} times in {IMAGES}" for id, count in counts.items() if count > 1]
        check_problems(problems, f"The gallery of {self.layout}")
        return dict(pictures)

    def _queries(self, file: Path, number: int, row: Any) -> Iterable[ComposedRecord]:
        target = annotations.optional_name(row, "target_img_id")
        truths = annotations.items(row, "gt_img_ids", int, "a list of numbers") if target else []
        shared, relative = (annotations.words(row, key).strip() for key in ("shared_concept", "relative_caption"))
        id = annotations.name(row, "id")
        if bool(shared) != bool(relative):
            self._half.add(id)
        text = TEMPLATE.format(shared_concept=shared, relative_caption=relative.rstrip("."))
        yield ComposedRecord(
            id=id,
            reference=annotations.name(row, "reference_img_id"),
            text=text if shared or relative else "",
            target=target,
            kinds=tuple(annotations.items(row, "semantic_aspects")) if annotations.has(row, "semantic_aspects") else (),
            truths=tuple(dict.fromkeys([target, *map(str, truths)])) if target else (),
        )
