"""A user's own set: lists of composed queries beside their pictures.

{split}.json: [{"reference": path, "target": path, "caption": text}]     or one such object a line, in {split}.jsonl
Paths are relative to the folder, stay in it, and are the pictures' ids. Files that links put elsewhere are refused.

A split has the pictures that its queries name.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from contextjax.json_files import LONG_LIST, parse_json, read_json, read_text
from contextjax.types import ComposedRecord, UserError
from data_pipelines import annotations
from data_pipelines.readers import ComposedReader
from data_pipelines.records import matching, named_pictures

LINES = ".jsonl"


class ManifestReader(ComposedReader):
    """Reads a folder of manifests."""

    name = "manifest"
    layout = "a manifest"

    def _find_splits(self) -> list[str]:
        self._root = self.folder.resolve()
        files = sorted(path for pattern in ("*.json", f"*{LINES}") for path in matching(self.folder, pattern))
        self._split_files = {path.stem: path for path in files}
        if not files:
            raise UserError(
                f"{self.folder} holds no <split>.json and no <split>{LINES}; expected lists of "
                '{"reference": path, "target": path, "caption": text} there: check the path.'
            )
        if len(self._split_files) < len(files):
            raise UserError(
                f"{self.folder} holds a split as .json and as {LINES} too; expected one of them: remove one."
            )
        return sorted(self._split_files)

    def pictures(self, split: str) -> dict[str, Path]:
        """Returns picture path -> file, of the pictures that the queries name."""
        return {name: self.folder / name for name in self._named(split)}

    def _files(self, split: str) -> list[Path]:
        return [self._split_files[split]]

    def _rows(self, file: Path) -> list[Any]:
        if file.suffix != LINES:
            return read_json(file, list, layout=self.layout, limits=LONG_LIST)
        lines = read_text(file, layout=self.layout, limits=LONG_LIST).split("\n")
        return [_object(line) for line in lines if line.strip()]

    def _queries(self, file: Path, number: int, row: Any) -> Iterable[ComposedRecord]:
        yield ComposedRecord(
            id=str(number),
            reference=annotations.path(row, "reference"),
            text=annotations.words(row, "caption"),
            target=annotations.path(row, "target"),
        )

    def _parsed(self, split: str) -> tuple[list[ComposedRecord], list[str]]:
        records, problems = super()._parsed(split)
        named = dict.fromkeys(name for record in records for name in named_pictures(record))
        outside = [name for name in named if not self._is_inside(name)]
        sound = [record for record in records if not set(outside) & set(named_pictures(record))] if outside else records
        return sound, problems + [f"{name} is a link to a place outside the folder" for name in outside]

    def _is_inside(self, name: str) -> bool:
        try:
            return (self.folder / name).resolve().is_relative_to(self._root)
        except (OSError, RuntimeError):  # circular links
            return False


def _object(line: str) -> Any:
    """Parses a line; a line that is no JSON is returned as it is, a row with a fault."""
    try:
        return parse_json(line)
    except ValueError:
        return line
