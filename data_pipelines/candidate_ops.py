"""Records to batches of captions and of candidate sets: the ops between the tables and the loader."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from contextjax.tokenizers import TextTokenizer
from contextjax.types import CandidateBatch, CandidateRecord, CaptionBatch, CaptionRecord, Picture, Tokens, UserError
from data_pipelines.augment import Augment
from data_pipelines.records import check_problems
from data_pipelines.tables import CandidateData, CaptionData, SplitData
from data_pipelines.texts import clean_caption, clean_description

AUGMENTATION = 1  # keeps its draws apart from those of the order, whose seed has no third number


def cleaned(data: SplitData[Any]) -> SplitData[Any]:
    """The split with its records' texts as the published recipe of their kind cleans them, of any length.

    The published limit of 30 words is left to the tokenizer's length: in the published 30 tokens it never cuts first,
    and with more tokens longer texts are wanted.
    """
    clean = {CaptionRecord: clean_caption, CandidateRecord: clean_description}
    return dataclasses.replace(
        data,
        records=tuple(
            dataclasses.replace(record, text=clean[type(record)](record.text, max_words=None))
            if type(record) in clean
            else record
            for record in data.records
        ),
    )


@dataclasses.dataclass(frozen=True)
class PictureSample:
    """One record with its pictures: that of a caption, or the candidates of a description."""

    record: int  # row of the record table
    pictures: Sequence[Picture]  # uint8 [H, W, 3] each


class _TextSamples:
    """A sample for each record: its text, tokenised once, and its pictures, decoded on access and maybe augmented."""

    def __init__(
        self,
        data: CaptionData | CandidateData,
        rows: Sequence[np.ndarray] | np.ndarray,
        tokenizer: TextTokenizer,
        *,
        what: str,
        text_length: int | None,
        augment: Augment | None,
        seed: int,
    ):
        """`rows` are the picture rows of each record, `what` its texts' name in messages."""
        self.data, self._rows, self._what = data, rows, what
        self._augment, self._seed = augment, seed
        encoded = tokenizer([record.text for record in data.records], length=text_length)
        empty = np.flatnonzero(encoded.tokens.mask.sum(axis=1) <= 2)  # nothing but the first and the last token
        check_problems(
            [f"{data.records[row].id} ({data.records[row].text[:60]!r}) has no words left" for row in empty],
            f"The {what} of split '{data.split}'",
        )
        self._texts, self.truncated = encoded.tokens, int(encoded.truncated.sum())

    def __len__(self) -> int:
        return len(self.data.records)

    def truncations(self) -> list[tuple[str, int, int, str]]:
        """(what, how many were cut, of how many, the config key of the length)."""
        return [(self._what, self.truncated, len(self), "text_length")]

    def __getitem__(self, index: int) -> PictureSample:
        """The sample without augmentation."""
        pictures = self.data.pictures
        return PictureSample(index, [pictures[int(row)] for row in self._rows[index]])

    def draw(self, index: int, position: int) -> PictureSample:
        """The sample as it is at a position of the loader's stream, augmented by what (seed, position) draws."""
        sample = self[index]
        if self._augment is None:
            return sample
        rng = np.random.default_rng([self._seed, position, AUGMENTATION])
        return PictureSample(index, self._augment(sample.pictures, rng))

    def _collate_texts(self, samples: Sequence[PictureSample]) -> tuple[np.ndarray, Tokens]:
        """Record rows [B] and texts [B, T]."""
        records = np.asarray([sample.record for sample in samples], np.int32)
        return records, Tokens(self._texts.ids[records], self._texts.mask[records])


class CaptionSamples(_TextSamples):
    """The captions of a split, each with its picture."""

    def __init__(
        self,
        data: CaptionData,
        tokenizer: TextTokenizer,
        *,
        text_length: int | None = None,
        augment: Augment | None = None,
        seed: int = 0,
    ):
        """What the config's `data` section says.

        Args:
          data: a split.
          tokenizer: of the text encoder.
          text_length: tokens a text, the first and the last included; None: the tokenizer's own.
          augment: of the pictures, in `draw`.
          seed: of the augmentation.

        Raises:
          UserError: captions without a token, all of them by id.
        """
        row = data.pictures.row
        self._pictures = np.asarray([row[record.image] for record in data.records], np.int32)
        super().__init__(
            data, self._pictures[:, None], tokenizer, what="captions", text_length=text_length,
            augment=augment, seed=seed,
        )  # fmt: skip

    def collate(self, samples: Sequence[PictureSample]) -> CaptionBatch:
        """Stacks samples."""
        records, texts = self._collate_texts(samples)
        images = np.stack([sample.pictures[0] for sample in samples])
        return CaptionBatch(images=images, texts=texts, image_ids=self._pictures[records], records=records)


class CandidateSamples(_TextSamples):
    """The descriptions of a split, each with the candidates of its set."""

    def __init__(
        self,
        data: CandidateData,
        tokenizer: TextTokenizer,
        *,
        candidates: int = 10,
        text_length: int | None = None,
        augment: Augment | None = None,
        seed: int = 0,
    ):
        """What the config's `data` section says.

        Args:
          data: a split that publishes its targets.
          tokenizer: of the text encoder.
          candidates: K of the batches. A smaller set repeats its first picture, marked invalid.
          text_length: tokens a text, the first and the last included; None: the tokenizer's own.
          augment: of the pictures, in `draw`.
          seed: of the augmentation.

        Raises:
          UserError: descriptions without a target or a token, or sets of more than K pictures, all of them by id.
        """
        _check_records(data, candidates)
        row, self.candidates = data.pictures.row, candidates
        self._targets = np.asarray([record.target for record in data.records], np.int32)
        self._ordered = np.asarray([record.kind == "video" for record in data.records])
        rows = [np.asarray([row[name] for name in record.images], np.int32) for record in data.records]
        super().__init__(
            data, rows, tokenizer, what="descriptions", text_length=text_length, augment=augment,
            seed=seed,
        )  # fmt: skip

    def collate(self, samples: Sequence[PictureSample]) -> CandidateBatch:
        """Stacks samples, each filled up to K candidates."""
        records, texts = self._collate_texts(samples)
        missing = [self.candidates - len(sample.pictures) for sample in samples]
        return CandidateBatch(
            images=np.stack(
                [np.stack([*s.pictures, *[s.pictures[0]] * n]) for s, n in zip(samples, missing, strict=True)]
            ),
            texts=texts,
            target=self._targets[records],
            valid=np.arange(self.candidates) < self.candidates - np.asarray(missing)[:, None],
            ordered=self._ordered[records],
            records=records,
        )


def _check_records(data: CandidateData, candidates: int) -> None:
    secret = [record.id for record in data.records if record.target is None]
    if secret:
        raise UserError(
            f"{len(secret)} of {len(data.records)} descriptions of split '{data.split}' have no target (the first is "
            f"{secret[0]}); train on a split that publishes them."
        )
    large = {record.id.rpartition("/")[0]: len(record.images) for record in data.records
             if len(record.images) > candidates}  # fmt: skip
    check_problems(
        [f"set {name} has {count} pictures, more than the batch's {candidates} candidates"
         for name, count in large.items()],
        f"Split '{data.split}'",
    )  # fmt: skip
