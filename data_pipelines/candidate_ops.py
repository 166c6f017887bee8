"""Records to batches of captions and of candidate sets, between the prepared tables and the loader."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from contextjax.tokenizers import TextTokenizer, tokenize_propositions
from contextjax.types import (
    CandidateBatch,
    CandidateRecord,
    CaptionBatch,
    CaptionRecord,
    ComposedRecord,
    Picture,
    Tokens,
    UserError,
)
from data_pipelines.augment import AUGMENTATION, Augment
from data_pipelines.mixtures import source_rows
from data_pipelines.ops import TextSamples
from data_pipelines.records import check_problems
from data_pipelines.tables import CandidateData, CaptionData, SplitData
from data_pipelines.texts import clean_caption, clean_description


def cleaned(data: SplitData[Any]) -> SplitData[Any]:
    """Returns the split with its records' texts cleaned as in the published recipe of their kind, of any length.

    The published limit of 30 words is left to the tokenizer's length: in the published 30 tokens it never cuts first,
    and with more tokens longer texts are wanted.
    """
    clean = {CaptionRecord: clean_caption, CandidateRecord: clean_description, ComposedRecord: clean_caption}
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
    """A sample: one or several records and their pictures, a caption's one or the candidates of descriptions."""

    records: np.ndarray  # int [m]: rows of the record table
    pictures: Sequence[Picture]  # uint8 [H, W, 3] each


class PictureSamples(TextSamples):
    """Records in groups that share their pictures, which are decoded on access and may be augmented."""

    def __init__(
        self,
        data: CaptionData | CandidateData,
        shown: Sequence[np.ndarray] | np.ndarray,
        groups: Sequence[np.ndarray],
        tokenizer: TextTokenizer,
        *,
        what: str,
        text_length: int | None,
        augment: Augment | None,
        seed: int,
    ):
        """Tokenises the texts, as TextSamples does.

        Args:
          data: a split, or a mixture of several.
          shown: the rows of the pictures that each record's sample shows.
          groups, tokenizer, what, text_length: see TextSamples.
          augment: of the pictures, in `draw`.
          seed: of the augmentation.

        Raises:
          UserError: texts have no token; the message lists all of them by id.
        """
        super().__init__(data, groups, tokenizer, what=what, text_length=text_length)
        self._shown, self._augment, self._seed = shown, augment, seed
        specials = tokenizer.begin + 1  # the first, where there is one, and the last token
        empty = np.flatnonzero(self._encoded.tokens.mask.sum(axis=1) <= specials)
        check_problems(
            [f"{data.records[row].id} ({data.records[row].text[:60]!r}) has no words left" for row in empty],
            f"The {what} of split '{data.split}'",
        )

    def __getitem__(self, index: int) -> PictureSample:
        """Returns the sample without augmentation."""
        pictures = self.data.pictures
        records = self._groups[index]
        return PictureSample(records, [pictures[int(row)] for row in self._shown[records[0]]])

    def draw(self, index: int, position: int) -> PictureSample:
        """Returns the sample at a position of the loader's stream, with the augmentation that (seed, position) draw."""
        sample = self[index]
        if self._augment is None:
            return sample
        rng = np.random.default_rng([self._seed, position, AUGMENTATION])
        return PictureSample(sample.records, self._augment(sample.pictures, rng))


class CaptionSamples(PictureSamples):
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
        """Tokenises the texts.

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
            data, self._pictures[:, None], _one_each(data), tokenizer, what="captions", text_length=text_length,
            augment=augment, seed=seed,
        )  # fmt: skip

    def collate(self, samples: Sequence[PictureSample]) -> CaptionBatch:
        """Stacks samples."""
        records = _records_of(samples)
        images = np.stack([sample.pictures[0] for sample in samples])
        ids = self._pictures[records]
        return CaptionBatch(images=images, texts=self._texts(records), image_ids=ids, records=records)


class CandidateSamples(PictureSamples):
    """The descriptions of a split, each with the candidates of its set."""

    def __init__(
        self,
        data: CandidateData,
        tokenizer: TextTokenizer,
        *,
        candidates: int = 10,
        descriptions: int = 1,
        propositions: int = 0,
        proposition_length: int = 0,
        text_length: int | None = None,
        augment: Augment | None = None,
        seed: int = 0,
    ):
        """Tokenises the texts.

        Args:
          data: a split that publishes its targets.
          tokenizer: of the text encoder.
          candidates: K of the batches. A smaller set repeats its first picture, marked invalid.
          descriptions: how many of a set's descriptions make a sample, so that its pictures are encoded once for all,
            also where each is about some of them only; where some are left over, the set's first ones fill up.
          propositions: into how many short sentences of `proposition_length` tokens each text is split beside; 0: none.
          text_length: tokens a text, the first and the last included; None: the tokenizer's own.
          augment: of the pictures, in `draw`.
          seed: of the augmentation.

        Raises:
          UserError: descriptions without a target or a token, or sets of more than K pictures, all of them by id.
        """
        _check_targets(data)
        row, self.candidates = data.pictures.row, candidates
        self._ordered = np.asarray([record.is_ordered for record in data.records])
        shown = _pictures_of_sets(data) if descriptions > 1 else [record.images for record in data.records]
        _check_sizes(data, shown, candidates)
        self._targets, self._valid = _places(data, shown, candidates)
        super().__init__(
            data, [np.asarray([row[name] for name in names], np.int32) for names in shown],
            _by_set(data, descriptions) if descriptions > 1 else _one_each(data), tokenizer,
            what="descriptions", text_length=text_length, augment=augment, seed=seed,
        )  # fmt: skip
        self._propositions = None
        if propositions:
            texts = [record.text for record in data.records]
            self._propositions, self._cut_propositions = tokenize_propositions(
                tokenizer, texts, limit=propositions, length=proposition_length
            )

    def truncations(self) -> list[tuple[str, int, int, str]]:
        """Returns (what was cut, how many were cut, of how many, the config key of the length)."""
        rows = super().truncations()
        if self._propositions is not None:
            count, total = int(self._cut_propositions.sum()), len(self.data.records)
            rows.append(("descriptions' propositions", count, total, "proposition_length"))
        return rows

    def collate(self, samples: Sequence[PictureSample]) -> CandidateBatch:
        """Stacks samples, each filled up to K candidates."""
        records = _records_of(samples)
        missing = [self.candidates - len(sample.pictures) for sample in samples]
        short = self._propositions
        return CandidateBatch(
            images=np.stack(
                [np.stack([*s.pictures, *[s.pictures[0]] * n]) for s, n in zip(samples, missing, strict=True)]
            ),
            texts=self._texts(records),
            target=self._targets[records],
            valid=self._valid[records],
            ordered=self._ordered[records],
            records=records,
            propositions=None if short is None else Tokens(short.ids[records], short.mask[records]),
        )


def _records_of(samples: Sequence[PictureSample]) -> np.ndarray:
    """Returns the record rows of a batch, int32 [B]."""
    return np.concatenate([sample.records for sample in samples]).astype(np.int32)


def _one_each(data: SplitData[Any]) -> list[np.ndarray]:
    """Returns the record rows of samples of one record each."""
    return list(np.arange(len(data.records))[:, None])


def _set_keys(data: CandidateData) -> list[tuple[int, Any]]:
    """Returns a key of each record's set: the source, and the set's name or all its pictures."""
    rows = zip(source_rows(data), data.records, strict=True)
    return [(int(source), record.set or record.images) for source, record in rows]


def _pictures_of_sets(data: CandidateData) -> list[tuple[str, ...]]:
    """Returns the pictures of each record's set: all that its records name, which may be about some of them only."""
    keys, names = _set_keys(data), {}
    for key, record in zip(keys, data.records, strict=True):
        names.setdefault(key, {}).update(dict.fromkeys(record.images))
    shown = {key: tuple(of_set) for key, of_set in names.items()}
    return [shown[key] for key in keys]


def _places(data: CandidateData, shown: Sequence[tuple[str, ...]], candidates: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns each record's target among the pictures shown, int32 [N], and which of them are its own, bool [N, K]."""
    targets, valid = np.zeros(len(shown), np.int32), np.zeros((len(shown), candidates), bool)
    for row, (record, names) in enumerate(zip(data.records, shown, strict=True)):
        place = {name: index for index, name in enumerate(names)}
        targets[row] = place[record.images[record.target or 0]]
        valid[row, [place[name] for name in record.images]] = True
    return targets, valid


def _by_set(data: CandidateData, descriptions: int) -> list[np.ndarray]:
    """Returns the record rows of samples of `descriptions` records of one set, whose first ones fill up the last."""
    by_set: dict[Any, list[int]] = {}
    for row, key in enumerate(_set_keys(data)):
        by_set.setdefault(key, []).append(row)
    return [
        np.asarray((rows[begin : begin + descriptions] + rows * descriptions)[:descriptions])
        for rows in by_set.values()
        for begin in range(0, len(rows), descriptions)
    ]


def _check_targets(data: CandidateData) -> None:
    secret = [record.id for record in data.records if record.target is None]
    if secret:
        raise UserError(
            f"{len(secret)} of {len(data.records)} descriptions of split '{data.split}' have no target (the first is "
            f"{secret[0]}); train on a split that publishes them."
        )


def _check_sizes(data: CandidateData, shown: Sequence[tuple[str, ...]], candidates: int) -> None:
    sizes = {r.set or r.id.rpartition("/")[0]: len(names) for r, names in zip(data.records, shown, strict=True)}
    large = {name: size for name, size in sizes.items() if size > candidates}
    check_problems(
        [f"set {name} has {n} pictures, more than the batch's {candidates} candidates" for name, n in large.items()],
        f"Split '{data.split}'",
    )
