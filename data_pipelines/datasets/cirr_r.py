"""CIRR_R: rewritten texts for CIRR's own pairs of pictures.

CIRR's folder (datasets/cirr.py) with
rewritten_captions/rewritten_{split}.json:
  [{"query_image_url": ".../<name>.png", "retrieved_image_url": ".../<name>.png",
    "difference_captions": [sentence] or one text}]

For training, each sentence is a record: five to seven sentences are longer than the 77 tokens of CLIP's text tower,
which would never see the last of them, and one sentence is about as long as the texts of CIRR that are asked in the
end. In any other split the sentences of a pair are one text, so that a query says all that it asks for and every pair
counts once; it is cut where the text tower ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from contextjax.types import ComposedRecord
from data_pipelines import annotations
from data_pipelines.datasets.cirr import CirrTextsReader


class CirrRewrittenReader(CirrTextsReader):
    """Reads the rewritten texts of a folder in CIRR's layout."""

    name = "cirr_r"
    layout = "CIRR_R"
    queries = "rewritten_captions/rewritten_{split}.json"

    def _queries(self, file: Path, number: int, row: Any) -> Iterable[ComposedRecord]:
        reference, target = (_name(annotations.text(row, f"{which}_image_url")) for which in ("query", "retrieved"))
        if isinstance(row.get("difference_captions"), list):
            given = annotations.texts(row, "difference_captions")
        else:
            given = [annotations.words(row, "difference_captions")]
        sentences = [sentence.strip() for sentence in given if sentence.strip()]
        if 0 < len(sentences) < len(given):
            self._half.add(f"{number}")
        if file.stem == "rewritten_train":
            texts = {f"{number}/{i}": sentence for i, sentence in enumerate(sentences or [""])}
        else:
            texts = {str(number): _joined(sentences)}
        for id, text in texts.items():
            yield ComposedRecord(id, reference, text, target)


def _name(url: str) -> str:
    return url.rpartition("/")[2].removesuffix(".png")


def _joined(sentences: list[str]) -> str:
    return " ".join(sentence if sentence[-1] in ".!?" else f"{sentence}." for sentence in sentences)
