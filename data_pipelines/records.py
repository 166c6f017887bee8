"""What every reader gives: pictures, captions and records of a split."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import Any, Protocol, TypeVar

from contextjax.types import CandidateRecord, CaptionRecord, ComposedRecord, UserError

Record = TypeVar("Record", bound=ComposedRecord | CandidateRecord | CaptionRecord)


class DatasetReader(Protocol[Record]):
    """A folder as its authors publish it, seen as two tables: pictures (id -> file) and records."""

    name: str
    record_type: type[Record]
    splits: tuple[str, ...]

    def annotation_files(self) -> list[Path]:
        """The files that decide what the set holds."""
        ...

    def pictures(self, split: str) -> dict[str, Path]:
        """Picture id -> file."""
        ...

    def captions(self, split: str) -> dict[str, str]:
        """Picture id -> caption; empty where the set has none."""
        ...

    def records(self, split: str) -> list[Record]:
        """All records of a split."""
        ...


def read_json(path: Path, kind: type, *, layout: str) -> Any:
    """The contents of an annotation file.

    Args:
      path: the file.
      kind: dict or list, whichever the file holds.
      layout: whose layout the file belongs to, for the messages.

    Raises:
      UserError: the file is missing, is not JSON, or holds something else.
    """
    if not path.exists():
        raise UserError(f"{path} is missing; expected {layout}'s layout: check the folder, or download it again.")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(
            f"{path} is not JSON ({error}); expected {layout}'s annotation file: download it again."
        ) from error
    if not isinstance(found, kind):
        raise UserError(
            f"{path} holds a {type(found).__name__}; expected {layout}'s {kind.__name__}: download it again."
        )
    return found


def stays_inside(path: str) -> bool:
    """Whether a path that an annotation file names is one in its own folder: relative, and never going up."""
    parsed = PureWindowsPath(path)  # which takes both slashes for separators, and knows drives
    return bool(parsed.parts) and not parsed.anchor and ".." not in parsed.parts and "\0" not in path


def check_problems(problems: Sequence[str], where: str) -> None:
    """Raises one UserError that lists all problems (the first ten by name), or none."""
    if problems:
        more = f"; and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise UserError(
            f"{where} has {len(problems)} problem(s): {'; '.join(problems[:10])}{more}. "
            "Mend or remove them and try again."
        )
