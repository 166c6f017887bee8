"""MMVP-VLM's layout: pairs of pictures that differ in one visual pattern, with a text of each.

Questions.csv: columns "Question ID", "Type" (the pattern) and "Statement"; every two rows are a pair
MLLM_VLM Images/<Type>/<Question ID>.jpg: the picture that the statement describes

Relied on: names of files and folders are those of the public release (Hugging Face, MMVP/MMVP_VLM: nine folders, 270
pictures, MIT); columns, pairing and the text's beginning are what public readers of it agree on. The release has 9
patterns of 15 pairs; any number is read. A pair counts only if both texts pick their own picture
(metrics.pair_accuracy).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from contextjax.json_files import read_text
from contextjax.types import CandidateRecord, UserError
from data_pipelines.annotations import stays_inside
from data_pipelines.readers import DatasetReader, SplitRecords
from data_pipelines.texts import has_words

QUESTIONS, PICTURES = "Questions.csv", "MLLM_VLM Images"
COLUMNS = ("Question ID", "Type", "Statement")
PREFIX = "a photo of "


class MmvpReader(DatasetReader[CandidateRecord]):
    """Reads a folder in MMVP-VLM's layout."""

    name = "mmvp"
    layout = "MMVP-VLM"
    record_type = CandidateRecord
    splits = ("test",)

    def __init__(self, folder: str | Path):
        super().__init__(folder)
        for path in (self.folder / QUESTIONS, self.folder / PICTURES):
            if not path.exists():
                raise UserError(
                    f"{self.folder} holds no {path.name}; expected a folder in MMVP-VLM's layout, with {QUESTIONS} and "
                    f"'{PICTURES}/<pattern>/<id>.jpg': check the path."
                )

    def annotation_files(self) -> list[Path]:
        """Returns the file that decides what the set holds."""
        return [self.folder / QUESTIONS]

    def pictures(self, split: str) -> dict[str, Path]:
        """Returns picture "<pattern>/<id>" -> file. `records` reports rows with faults."""
        return {
            f"{kind}/{number}": self.folder / PICTURES / kind / f"{number}.jpg"
            for number, kind, _ in self._rows()
            if stays_inside(f"{kind}/{number}")
        }

    def read(self, split: str) -> SplitRecords[CandidateRecord]:
        """Returns two records a pair, one for each text, both with the pair's pictures; see `pair_ids`.

        Raises:
          UserError: a row has no partner, a partner of another pattern, or an id that is no number; or there are no
            rows.
        """
        rows = self._rows()
        pairs = list(zip(rows[::2], rows[1::2], strict=False))
        problems = [fault for row in rows if (fault := _fault(row))]
        problems += [f"question {rows[-1][0]} has no partner"] if len(rows) % 2 else []
        problems += [
            f"questions {first} and {second} are a pair, but of the patterns '{kind}' and '{other}'"
            for (first, kind, _), (second, other, _) in pairs
            if kind != other
        ]
        records = [
            CandidateRecord(
                id=f"{pair[0][0]}-{pair[1][0]}/{target}",
                images=tuple(f"{kind}/{number}" for number, kind, _ in pair),
                text=PREFIX + statement if has_words(statement) else "",
                target=target,
                kind=kind,
            )
            for pair in pairs
            for target, (_, kind, statement) in enumerate(pair)
        ]
        return self._checked(records, problems, self.folder / QUESTIONS, "questions", split=split)

    def _rows(self) -> list[tuple[str, str, str]]:
        """Returns (id, pattern, statement) of every row, without the white space around them."""
        path = self.folder / QUESTIONS
        try:
            header, *rows = list(csv.reader(io.StringIO(read_text(path, layout=self.layout), newline=""))) or [[]]
        except csv.Error as error:
            raise UserError(
                f"{path} can't be read as CSV ({error}); expected MMVP-VLM's: download it again."
            ) from error
        names = [name.strip() for name in header]
        if not set(COLUMNS) <= set(names):
            raise UserError(
                f"{path} has the columns {', '.join(names) or 'of an empty file'}; expected {', '.join(COLUMNS)}."
            )
        places = [names.index(name) for name in COLUMNS]
        filled = [[*row, *[""] * (len(names) - len(row))] for row in rows if row]
        return [(row[places[0]].strip(), row[places[1]].strip(), row[places[2]].strip()) for row in filled]


def pair_ids(records: Sequence[CandidateRecord]) -> list[str]:
    """Returns the pair of each record, "<id>-<id>", by which metrics.pair_accuracy groups."""
    return [record.id.rpartition("/")[0] for record in records]


def _fault(row: tuple[str, str, str]) -> str:
    number, kind, _ = row
    if not number.isdecimal():
        return f"a question has the id '{number}', which is no number"
    if not stays_inside(kind):
        return f"question {number} has the pattern '{kind}', which is no folder's name"
    return ""
