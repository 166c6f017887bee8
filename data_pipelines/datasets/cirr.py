"""CIRR's layout: composed triplets in groups of six pictures.

captions/cap.rc2.{split}.json   image_splits/split.rc2.{split}.json
img_raw/{train/<0..99>,dev,test1}/<name>.png   (or the same folders without img_raw/)
image_captions/captions.{split}.json           (optional: [{"image": path, "caption": text}])
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from contextjax.json_files import read_json
from contextjax.types import CaptionRecord, ComposedRecord, UserError
from data_pipelines import annotations
from data_pipelines.readers import ComposedReader, DatasetReader, SplitRecords
from data_pipelines.records import check_problems, matching


class CirrReader(ComposedReader):
    """Reads a folder in CIRR's layout."""

    name = "cirr"
    layout = "CIRR"
    queries = "captions/cap.rc2.{split}.json"
    remedy = "check the path (`python -m experiments.generate` writes a set in CIRR's own layout)"

    def annotation_files(self) -> list[Path]:
        """Returns the files that decide what the set holds."""
        patterns = (self.queries.format(split="*"), "image_splits/*.json", "image_captions/*.json")
        return sorted(path for pattern in patterns for path in matching(self.folder, pattern))

    def pictures(self, split: str) -> dict[str, Path]:
        """Returns picture name -> file, in the order of the split file.

        Raises:
          UserError: the split file names files outside the folder.
        """
        file = f"image_splits/split.rc2.{split}.json"
        root = self.folder / "img_raw" if (self.folder / "img_raw").is_dir() else self.folder
        make = lambda _, item: [(item[0], root / annotations.plain_path(item[1], item[0]))]
        pictures, problems = annotations.parse(self._json(file, dict).items(), make, file=file)
        check_problems(problems, f"Split '{split}' of {self.layout}")
        return dict(pictures)

    def captions(self, split: str) -> dict[str, str]:
        """Returns picture name -> caption; empty where the set has no captions."""
        file = _caption_file(split)
        if not (self.folder / file).exists():
            return {}
        make = lambda _, row: [(Path(annotations.text(row, "image")).stem, annotations.words(row, "caption"))]
        captions, problems = annotations.parse(self._json(file, list), make, file=file)
        check_problems(problems, f"The captions of split '{split}'")
        return dict(captions)

    def _queries(self, file: Path, number: int, row: Any) -> Iterable[ComposedRecord]:
        reference = annotations.text(row, "reference")
        group = annotations.value(row, "img_set", dict, "its group") if annotations.has(row, "img_set") else {}
        members = annotations.items(group, "members") if annotations.has(group, "members") else []
        yield ComposedRecord(
            id=annotations.name(row, "pairid"),
            reference=reference,
            text=annotations.words(row, "caption"),
            target=annotations.optional_name(row, "target_hard"),
            subset=tuple(member for member in members if member != reference),
            kinds=(annotations.text(row, "edit"),) if row.get("edit") else (),
        )

    def _json(self, file: str, kind: type) -> Any:
        return read_json(self.folder / file, kind, layout=self.layout)


class CirrTextsReader(CirrReader):
    """Reads other texts of CIRR's pairs. A pair has CIRR's group, where CIRR has the pair."""

    def __init__(self, folder: str | Path):
        super().__init__(folder)
        self._cirr = CirrReader(folder)

    def annotation_files(self) -> list[Path]:
        """Returns the files that decide what the set holds."""
        return sorted({*super().annotation_files(), *self._cirr.annotation_files()})

    def _parsed(self, split: str) -> tuple[list[ComposedRecord], list[str]]:
        records, problems = super()._parsed(split)
        triplets, faults = self._cirr._parsed(split) if split in self._cirr.splits else ([], [])
        groups = {(triplet.reference, triplet.target): triplet.subset for triplet in triplets}
        group = lambda record: groups.get((record.reference, record.target), ())
        return [dataclasses.replace(record, subset=group(record)) for record in records], problems + faults


class CirrCaptionsReader(DatasetReader[CaptionRecord]):
    """Reads the captions of a folder in CIRR's layout: one record for each captioned picture.

    Its prepared pictures are those of CirrReader, written once for both.
    """

    name = "cirr_captions"
    layout = "CIRR"
    record_type = CaptionRecord

    def __init__(self, folder: str | Path):
        super().__init__(folder)
        self._cirr = CirrReader(folder)
        self.splits = tuple(split for split in self._cirr.splits if (self.folder / _caption_file(split)).exists())
        if not self.splits:
            raise UserError(
                f"{self.folder} holds no {_caption_file('<split>')}; expected the pictures' captions there, "
                'as [{"image": path, "caption": text}]: add them.'
            )

    def annotation_files(self) -> list[Path]:
        """Returns the files that decide what the set holds."""
        return self._cirr.annotation_files()

    def pictures(self, split: str) -> dict[str, Path]:
        """Returns picture name -> file of the whole split, captioned or not."""
        return self._cirr.pictures(split)

    def captions(self, split: str) -> dict[str, str]:
        """Returns picture name -> caption."""
        return self._cirr.captions(split)

    def read(self, split: str) -> SplitRecords[CaptionRecord]:
        """Returns all captions of a split.

        Raises:
          UserError: rows are faulty, or there are no captions.
        """
        known, captions = self.pictures(split), self.captions(split)
        unknown = [f"a caption is of the unknown picture {name}" for name in captions if name not in known]
        records = [CaptionRecord(name, name, text) for name, text in captions.items() if name in known]
        return self._checked(records, [], self.folder / _caption_file(split), "captions", unknown=unknown)


def _caption_file(split: str) -> str:
    return f"image_captions/captions.{split}.json"
