"""CIRR's auxiliary annotations as further training texts: what workers answered about each pair of pictures.

CIRR's folder (datasets/cirr.py) with
captions_ext/cap.ext.rc2.{split}.json: [{"pairid", "reference", "target_hard", "caption_extend": {"0".."3": answer}}]

The questions: 0, what stays; 1, what else changes; 2, how the view changes; 3, how the background changes. The answers
to 1, 2 and 3 say how the target differs, as a query does, and each is a record of its own. The answer to 0 does not and
is left out, as are the marks that stand where there is nothing to say ("[cr0] Nothing worth mentioning"). These texts
say less than the pair's own caption, so no benchmark asks them: they are for training, beside CIRR's.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from contextjax.types import ComposedRecord
from data_pipelines import annotations
from data_pipelines.datasets.cirr import CirrTextsReader
from data_pipelines.texts import has_words

QUESTIONS = ("1", "2", "3")
MARK = "["  # "[c] None existed", "[cr0] Nothing worth mentioning", "[cr1] Covered in query"


class CirrExtReader(CirrTextsReader):
    """Reads the auxiliary annotations of a folder in CIRR's layout."""

    name = "cirr_ext"
    queries = "captions_ext/cap.ext.rc2.{split}.json"

    def _queries(self, file: Path, number: int, row: Any) -> Iterable[ComposedRecord]:
        pair, reference = annotations.name(row, "pairid"), annotations.text(row, "reference")
        target = annotations.optional_name(row, "target_hard")
        answers = annotations.value(row, "caption_extend", dict, "its answers")
        for question in QUESTIONS:
            answer = annotations.words(answers, question).strip() if question in answers else ""
            if has_words(answer) and not answer.startswith(MARK):
                yield ComposedRecord(f"{pair}/{question}", reference, answer, target)
