"""Records to batches of composed retrieval, between the prepared tables and the loader."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from contextjax.tokenizers import Encoded, TextTokenizer, mark_slots, tokenize_queries
from contextjax.types import LOST, ComposedBatch, ComposedRecord, Phrases, TextBatch, Tokens, UserError
from data_pipelines.augment import AUGMENTATION, Augment
from data_pipelines.concepts import Spans, lost_phrases, token_spans
from data_pipelines.mixtures import shares_of, source_data
from data_pipelines.tables import ComposedData, SplitData, rows_by_reference


class TextSamples:
    """Records in groups that share their pictures: one group a sample. Texts are tokenised once, here.

    Of a mixture, the samples of one source come after those of the other; `shares` has how many there are, and how
    often they are seen.
    """

    def __init__(
        self,
        data: SplitData[Any],
        groups: Sequence[np.ndarray],
        tokenizer: TextTokenizer,
        *,
        what: str,
        text_length: int | None,
        template: str = "{}",
    ):
        """Tokenises the texts.

        Args:
          data: a split, or a mixture of several.
          groups: the rows of each sample in the record table.
          tokenizer: of the text encoder.
          what: the name of the texts, for the messages.
          text_length: tokens a text, the first and the last included; None: the tokenizer's own.
          template: see SystemSpec.
        """
        self.data, self._groups, self._what = data, groups, what
        self.shares = shares_of(data, [rows[0] for rows in groups])
        self._encoded = tokenize_queries(
            tokenizer, [record.text for record in data.records], template, length=text_length
        )

    def __len__(self) -> int:
        return len(self._groups)

    def truncations(self) -> list[tuple[str, int, int, str]]:
        """Returns (what was cut, how many were cut, of how many, the config key of the length)."""
        return [(self._what, int(self._encoded.truncated.sum()), len(self.data.records), "text_length")]

    def _texts(self, records: np.ndarray) -> Tokens:
        return Tokens(self._encoded.tokens.ids[records], self._encoded.tokens.mask[records])


@dataclasses.dataclass(frozen=True)
class ComposedSample:
    """One reference and up to M modifications."""

    records: np.ndarray  # int32 [m], m <= M: rows of the record table
    reference: np.ndarray  # uint8 [H, W, 3]
    targets: list[np.ndarray]  # m pictures


class ComposedSamples(TextSamples):
    """The training samples of a split: every reference with its modifications, in chunks of at most M.

    Pictures are decoded when a batch asks for them, and may be augmented. Pictures with the same caption share an id in
    the batches, so that a loss that masks false negatives masks copies of a picture and all that the same words
    describe.
    """

    def __init__(
        self,
        data: ComposedData,
        tokenizer: TextTokenizer,
        *,
        modifications: int,
        text_length: int | None = None,
        template: str = "{}",
        phrases: Mapping[str, Spans] | None = None,
        phrase_budget: int = 0,
        phrase_group: int = 0,
        phrase_length: int = 8,
        caption_length: int = 0,
        caption_phrases: Mapping[str, Spans] | None = None,
        augment: Augment | None = None,
        seed: int = 0,
    ):
        """Tokenises the texts; phrases and `caption_length` are given only where a loss needs them.

        Args:
          data: a split, or a mixture of several.
          tokenizer: of the text encoder.
          modifications: M of the batches.
          text_length: tokens a text, the first and the last included; None: the tokenizer's own.
          template: see SystemSpec.
          phrases: the noun phrases of each text.
          phrase_budget: phrases of each group in a batch.
          phrase_group: references in a group; 0: all of a batch.
          phrase_length: tokens a phrase.
          caption_length: tokens a caption; 0: no captions.
          caption_phrases: the noun phrases of each caption, where captions are masked.
          augment: of the pictures, in `draw`.
          seed: of the augmentation.

        Raises:
          UserError: captions are needed, and some pictures have none.
        """
        super().__init__(
            data, list(_chunks(data, modifications)), tokenizer, what="modification texts", text_length=text_length,
            template=template,
        )  # fmt: skip
        self.modifications, self._augment, self._seed, self._begin = modifications, augment, seed, tokenizer.begin
        row = data.pictures.row
        self._references = np.asarray([row[record.reference] for record in data.records], np.int32)
        self._targets = np.asarray([row[record.target or record.reference] for record in data.records], np.int32)
        self._ids = _caption_ids(data.captions, len(data.pictures))
        self._captions = self._masked = None
        if caption_length:
            if not data.has_captions:
                raise UserError(
                    f"Split '{data.split}' has pictures without captions, but the captions loss has a weight; "
                    "set --config.loss.weights.captions=0 and --config.loss.lead_steps=0, or add image_captions/."
                )
            self._captions = tokenizer(data.captions, length=caption_length)
            if caption_phrases is not None:
                self._masked = mask_phrases(tokenizer, data.captions, caption_phrases, length=caption_length)
        self._phrases = None if phrases is None else [phrases[record.text] for record in data.records]
        self._budget, self._group, self._phrase_length = phrase_budget, phrase_group, phrase_length

    def truncations(self) -> list[tuple[str, int, int, str]]:
        """Returns (what was cut, how many were cut, of how many, the config key of the length)."""
        rows = super().truncations()
        if self._captions is not None:
            rows.append(("captions", int(self._captions.truncated.sum()), len(self.data.captions), "caption_length"))
        return rows

    def rows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Returns of each record the rows of reference and target in the picture table, and their ids in batches."""
        return self._references, self._targets, self._ids[self._references], self._ids[self._targets]

    def __getitem__(self, index: int) -> ComposedSample:
        records, pictures = self._groups[index], self.data.pictures
        targets = [pictures[int(row)] for row in self._targets[records]]
        return ComposedSample(records, pictures[int(self._references[records[0]])], targets)

    def draw(self, index: int, position: int) -> ComposedSample:
        """Returns the sample at a position of the loader's stream, with the augmentation that (seed, position) draw."""
        sample = self[index]
        if self._augment is None:
            return sample
        rng = np.random.default_rng([self._seed, position, AUGMENTATION])
        reference, *targets = self._augment([sample.reference, *sample.targets], rng)
        return ComposedSample(sample.records, reference, targets)

    def collate(self, samples: Sequence[ComposedSample]) -> ComposedBatch:
        """Stacks samples; one with fewer than M modifications repeats its first, marked invalid."""
        count = self.modifications
        fill = lambda items: [*items, *[items[0]] * (count - len(items))]
        records = np.stack([fill(sample.records) for sample in samples]).astype(np.int32)
        valid = np.asarray([[i < len(sample.records) for i in range(count)] for sample in samples])
        references, targets = self._references[records[:, 0]], self._targets[records]
        rows = np.concatenate([references[:, None], targets], axis=1)
        of_pictures = lambda x: None if x is None else Tokens(x.tokens.ids[rows], x.tokens.mask[rows])
        return ComposedBatch(
            references=np.stack([sample.reference for sample in samples]),
            targets=_grouped([fill(sample.targets) for sample in samples]),
            texts=self._texts(records),
            valid=valid,
            reference_ids=self._ids[references],
            target_ids=self._ids[targets],
            records=records,
            phrases=self._pack(records, valid, self._phrases) if self._phrases is not None else None,
            captions=of_pictures(self._captions),
            masked=of_pictures(self._masked),
        )

    def _pack(self, records: np.ndarray, valid: np.ndarray, phrases: Sequence[Spans]) -> Phrases:
        """Returns the batch's phrases, those of each group in a fixed budget."""
        groups = len(records) // self._group if self._group else 1
        shape, length = (groups, self._budget), self._phrase_length
        tokens = Tokens(np.zeros((*shape, length), np.int32), np.zeros((*shape, length), bool))
        packed = Phrases(
            tokens, np.zeros(shape, np.int32), np.zeros((*shape, 2), np.int32), np.zeros(shape, bool),
            np.zeros((len(records), len(LOST)), np.int32),
        )  # fmt: skip
        for group, rows in enumerate(np.split(np.arange(len(records)), groups)):
            flat = records[rows].ravel()
            of_texts = [phrases[row] if ok else () for row, ok in zip(flat, valid[rows].ravel(), strict=True)]
            lost = self._pack_group(flat, of_texts, packed, group)
            packed.lost[rows] = lost.reshape(len(rows), self.modifications, len(LOST)).sum(1, dtype=np.int32)
        return packed

    def _pack_group(self, flat: np.ndarray, phrases: Sequence[Spans], packed: Phrases, group: int) -> np.ndarray:
        """Writes the phrases of some texts into `packed`: every text's first, every text's second, and so on.

        Args:
          flat: int [texts], rows of the record table.
          phrases: the phrases of each text.
          packed: the batch's phrases.
          group: row of `packed` to write.

        Returns:
          int32 [texts, 3], how many phrases of each text are lost, by the reasons in LOST.
        """
        tokens, offsets = self._encoded.tokens, self._encoded.offsets
        spans = [token_spans(of_text, offsets[row]) for of_text, row in zip(phrases, flat, strict=True)]
        ranked = sorted((rank, text) for text, of_text in enumerate(spans) for rank in range(len(of_text)))
        kept, dropped = ranked[: self._budget], ranked[self._budget :]
        ids, mask = (x[group] for x in packed.tokens)
        for slot, (rank, row) in enumerate(kept):
            start, end = spans[row][rank]
            text = tokens.ids[flat[row]]
            inner = text[start:end][: self._phrase_length - 1 - self._begin]
            # BOS, where there is one, opens and EOS closes the text; the phrase alone is framed by the same two.
            whole = [*text[: self._begin], *inner, text[tokens.mask[flat[row]].sum() - 1]]
            ids[slot, : len(whole)], mask[slot, : len(whole)] = whole, True
            packed.text[group, slot], packed.span[group, slot] = row, (start, end)
        packed.valid[group, : len(kept)] = True
        lost = np.zeros((len(flat), len(LOST)), np.int32)
        for _, row in dropped:
            lost[row, 0] += 1
        for row, (of_text, record) in enumerate(zip(phrases, flat, strict=True)):
            if len(spans[row]) < len(of_text):
                lost[row, 1:] = lost_phrases(of_text, offsets[record], cut=bool(self._encoded.truncated[record]))
        return lost


class PhraseSamples:
    """The texts of a split's records, and the same with SLOT in place of their noun phrases; without pictures."""

    def __init__(
        self, data: SplitData[Any], tokenizer: TextTokenizer, *, phrases: Mapping[str, Spans], text_length: int
    ):
        """Tokenises the `captions_of` the split; `phrases` are those of each."""
        texts = captions_of(data)
        self._whole = tokenizer(texts, length=text_length)
        self._masked = mask_phrases(tokenizer, texts, phrases, length=text_length)

    def __len__(self) -> int:
        return len(self._whole.truncated)

    def __getitem__(self, index: int) -> int:
        return index

    def collate(self, samples: Sequence[int]) -> TextBatch:
        """Returns the texts of a batch."""
        rows = np.asarray(samples, np.int32)
        of = lambda encoded: Tokens(encoded.tokens.ids[rows], encoded.tokens.mask[rows])
        return TextBatch(of(self._whole), of(self._masked), rows)

    def truncations(self) -> list[tuple[str, int, int, str]]:
        """Returns (what was cut, how many were cut, of how many, the config key of the length)."""
        return [("texts", int(self._whole.truncated.sum()), len(self), "text_length")]


def captions_of(data: SplitData[Any]) -> list[str]:
    """Returns the caption of each record: its own text, or of a composed query, where there is one, its target's."""
    if not data.captions or not isinstance(data.records[0], ComposedRecord):
        return [record.text for record in data.records]
    rows = [data.pictures.row[record.target or record.reference] for record in data.records]
    return [data.captions[row] or record.text for row, record in zip(rows, data.records, strict=True)]


def mask_phrases(
    tokenizer: TextTokenizer, texts: Sequence[str], phrases: Mapping[str, Spans], *, length: int
) -> Encoded:
    """Encodes texts with SLOT in place of each noun phrase, or of the whole text where it has none."""
    masked, places = [], []
    for text in texts:
        pieces, own, begin = "", [], 0
        for start, end in sorted(phrases[text]) or [(0, len(text))]:
            if start < begin:  # inside the phrase before it
                continue
            pieces += text[begin:start]
            own.append(len(pieces))
            pieces, begin = f"{pieces}*", end
        masked.append(pieces + text[begin:])
        places.append(own)
    encoded = tokenizer(masked, length=length)
    mark_slots(encoded, places)
    return encoded


def _caption_ids(captions: Sequence[str], count: int) -> np.ndarray:
    """Returns int32 [count], for each picture the row of the first one with its caption; its own where it has none."""
    first: dict[str, int] = {}
    captions = captions or [""] * count
    return np.asarray([first.setdefault(text, row) if text else row for row, text in enumerate(captions)], np.int32)


def _chunks(data: ComposedData, modifications: int) -> Iterator[np.ndarray]:
    """Yields the record rows of each sample."""
    first = 0
    for source in source_data(data):
        for rows in rows_by_reference(source):
            for begin in range(0, len(rows), modifications):
                yield first + rows[begin : begin + modifications]
        first += len(source.records)


def _grouped(groups: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Stacks the pictures of groups of one length to [R, M, H, W, 3], copied once."""
    flat = np.stack([picture for group in groups for picture in group])
    return flat.reshape(len(groups), -1, *flat.shape[1:])
