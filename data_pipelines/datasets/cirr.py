"""CIRR's layout, read as it comes: composed triplets in groups of six pictures.

captions/cap.rc2.{split}.json   image_splits/split.rc2.{split}.json
img_raw/{train/<0..99>,dev,test1}/<name>.png   (or the same folders without img_raw/)
image_captions/captions.{split}.json           (optional: [{"image": path, "caption": text}])
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from contextjax.types import CaptionRecord, ComposedRecord, UserError
from data_pipelines.records import DatasetReader, check_problems, read_json
from data_pipelines.texts import has_words


class CirrReader(DatasetReader[ComposedRecord]):
    """Reads a folder in CIRR's layout; the folder is never written to."""

    name = "cirr"
    record_type = ComposedRecord

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        found = sorted(self.folder.glob("captions/cap.rc2.*.json"))
        if not found:
            raise UserError(
                f"{self.folder} holds no captions/cap.rc2.*.json; expected a folder in CIRR's layout: "
                "check the path, or write one with `python -m experiments.generate`."
            )
        self.splits = tuple(path.name.split(".")[2] for path in found)

    def annotation_files(self) -> list[Path]:
        """The files that decide what the set holds."""
        return sorted(p for pattern in ("captions", "image_splits", "image_captions")
                      for p in self.folder.glob(f"{pattern}/*.json"))  # fmt: skip

    def pictures(self, split: str) -> dict[str, Path]:
        """Picture name -> file, in the order of the split file."""
        names = self._json(f"image_splits/split.rc2.{split}.json", dict)
        root = self.folder / "img_raw" if (self.folder / "img_raw").is_dir() else self.folder
        return {name: root / path for name, path in names.items()}

    def captions(self, split: str) -> dict[str, str]:
        """Picture name -> caption; empty where the set has none."""
        file = _caption_file(split)
        if not (self.folder / file).exists():
            return {}
        try:
            return {Path(row["image"]).stem: row["caption"] for row in self._json(file, list)}
        except (KeyError, TypeError) as error:
            raise UserError(f"A row of {self.folder / file} lacks {error}; expected image and caption.") from error

    def records(self, split: str) -> list[ComposedRecord]:
        """All triplets of a split.

        Raises:
          UserError: records name pictures that the split file does not have, or have no text.
        """
        known = self._json(f"image_splits/split.rc2.{split}.json", dict)
        records, problems = [], []
        for item in self._json(f"captions/cap.rc2.{split}.json", list):
            record = _record(item)
            unknown = [n for n in (record.reference, record.target, *record.subset) if n and n not in known]
            if unknown:
                problems.append(f"pair {record.id} names the unknown picture {unknown[0]}")
            if not record.text.strip():
                problems.append(f"pair {record.id} has an empty text")
            records.append(record)
        check_problems(problems, f"captions/cap.rc2.{split}.json")
        if not records:
            raise UserError(f"{self.folder}/captions/cap.rc2.{split}.json holds no triplets; expected at least one.")
        return records

    def _json(self, file: str, kind: type) -> Any:
        return read_json(self.folder / file, kind, layout="CIRR")


class CirrCaptionsReader(DatasetReader[CaptionRecord]):
    """Reads the captions of a folder in CIRR's layout: one record for each captioned picture.

    Its prepared pictures are those of CirrReader, written once for both.
    """

    name = "cirr_captions"
    record_type = CaptionRecord

    def __init__(self, folder: str | Path):
        self._cirr = CirrReader(folder)
        self.folder = self._cirr.folder
        self.splits = tuple(split for split in self._cirr.splits if (self.folder / _caption_file(split)).exists())
        if not self.splits:
            raise UserError(
                f"{self.folder} holds no {_caption_file('<split>')}; expected the pictures' captions there, "
                'as [{"image": path, "caption": text}]: add them.'
            )

    def annotation_files(self) -> list[Path]:
        """The files that decide what the set holds."""
        return self._cirr.annotation_files()

    def pictures(self, split: str) -> dict[str, Path]:
        """Picture name -> file of the whole split, captioned or not."""
        return self._cirr.pictures(split)

    def captions(self, split: str) -> dict[str, str]:
        """Picture name -> caption."""
        return self._cirr.captions(split)

    def records(self, split: str) -> list[CaptionRecord]:
        """All captions of a split.

        Raises:
          UserError: captions are of pictures that the split file does not have, or say nothing.
        """
        known, captions, problems = self.pictures(split), self.captions(split), []
        for name, text in captions.items():
            if name not in known:
                problems.append(f"a caption of the unknown picture {name}")
            if not isinstance(text, str) or not has_words(text):
                problems.append(f"picture {name} has no text as its caption ({str(text)[:60]!r})")
        check_problems(problems, _caption_file(split))
        if not captions:
            raise UserError(f"{self.folder}/{_caption_file(split)} holds no captions; expected at least one.")
        return [CaptionRecord(name, name, text) for name, text in captions.items()]


def _caption_file(split: str) -> str:
    return f"image_captions/captions.{split}.json"


def _record(item: dict[str, Any]) -> ComposedRecord:
    try:
        for name in ("reference", "caption"):
            if not isinstance(item[name], str):
                raise TypeError(f"a text as {name}")
        members = item.get("img_set", {}).get("members", ())
        return ComposedRecord(
            id=str(item["pairid"]),
            reference=item["reference"],
            text=item["caption"],
            target=item.get("target_hard"),
            subset=tuple(name for name in members if name != item["reference"]),
            kinds=(item["edit"],) if item.get("edit") else (),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"A CIRR item lacks {error}: {str(item)[:120]}; expected pairid, reference, caption."
        ) from error
