"""What every reader gives: pictures, captions and records of a split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from contextjax.types import ComposedRecord, UserError


class DatasetReader(Protocol):
    """A folder as its authors publish it, seen as two tables: pictures (id -> file) and records."""

    name: str
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

    def records(self, split: str) -> list[ComposedRecord]:
        """All records of a split."""
        ...


def check_problems(problems: Sequence[str], where: str) -> None:
    """Raises one UserError that lists all problems (the first ten by name), or none."""
    if problems:
        more = f"; and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise UserError(
            f"{where} has {len(problems)} problem(s): {'; '.join(problems[:10])}{more}. "
            "Mend or remove them and try again."
        )
