"""Records to batches of composed retrieval: the ops between the tables and the loader."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from contextjax.tokenizers import TextTokenizer
from contextjax.types import LOST, ComposedBatch, Phrases, Tokens, UserError
from data_pipelines.concepts import Spans, lost_phrases, token_spans
from data_pipelines.mixtures import parts_of, shares_of
from data_pipelines.tables import ComposedData, rows_by_reference


@dataclasses.dataclass(frozen=True)
class ComposedSample:
    """One reference and up to M modifications, by rows of the tables."""

    records: np.ndarray  # int32 [m], m <= M
    reference: np.ndarray  # uint8 [H, W, 3]
    targets: list[np.ndarray]  # m pictures


class ComposedSamples:
    """The training samples of a split: every reference with its modifications, in chunks of at most M.

    Of a mixture, those of one source after those of the other: `shares` says how many, and how often they are seen.

    Texts are tokenised once, here; pictures are decoded when a batch asks for them.
    """

    def __init__(
        self,
        data: ComposedData,
        tokenizer: TextTokenizer,
        *,
        modifications: int,
        text_length: int | None = None,
        phrases: Mapping[str, Spans] | None = None,
        phrase_budget: int = 0,
        phrase_group: int = 0,
        phrase_length: int = 8,
        caption_length: int = 0,
    ):
        """Args as in the config's `data` section; `phrases` and `caption_length` only where a loss needs them.

        `phrase_budget` is that of each group of `phrase_group` references in a batch (0: of all of them).
        """
        self.data, self.modifications = data, modifications
        self._chunks = list(_chunks(data, modifications))
        self.shares = shares_of(data, [rows[0] for rows in self._chunks])
        row = data.pictures.row
        self._references = np.asarray([row[record.reference] for record in data.records], np.int32)
        self._targets = np.asarray([row[record.target or record.reference] for record in data.records], np.int32)
        texts = [record.text for record in data.records]
        encoded = tokenizer(texts, length=text_length)
        self._texts, self.truncated = encoded.tokens, int(encoded.truncated.sum())
        self._captions = None
        if caption_length:
            if not data.has_captions:
                raise UserError(
                    f"Split '{data.split}' has pictures without captions, but the captions loss has a weight; "
                    "set --config.loss.weights.captions=0 and --config.loss.lead_steps=0, or add image_captions/."
                )
            captions = tokenizer(data.captions, length=caption_length)
            self._captions, self.truncated_captions = captions.tokens, int(captions.truncated.sum())
        self._phrases: list[Spans] | None = None
        if phrases is not None:
            self._budget, self._group = phrase_budget, phrase_group
            self._phrases = [phrases[text] for text in texts]
            self._offsets, self._cut = encoded.offsets, encoded.truncated
            self._phrase_length = phrase_length

    def __len__(self) -> int:
        return len(self._chunks)

    def truncations(self) -> list[tuple[str, int, int, str]]:
        """(what, how many were cut, of how many, the config key of the length)."""
        found = [("modification texts", self.truncated, len(self.data.records), "text_length")]
        if self._captions is not None:
            found.append(("captions", self.truncated_captions, len(self.data.captions), "caption_length"))
        return found

    def __getitem__(self, index: int) -> ComposedSample:
        records, pictures = self._chunks[index], self.data.pictures
        targets = [pictures[int(row)] for row in self._targets[records]]
        return ComposedSample(records, pictures[int(self._references[records[0]])], targets)

    def collate(self, samples: Sequence[ComposedSample]) -> ComposedBatch:
        """Stacks samples; one with fewer than M modifications repeats its first, marked invalid."""
        count = self.modifications
        fill = lambda items: [*items, *[items[0]] * (count - len(items))]
        records = np.stack([fill(sample.records) for sample in samples]).astype(np.int32)
        valid = np.asarray([[i < len(sample.records) for i in range(count)] for sample in samples])
        references, targets = self._references[records[:, 0]], self._targets[records]
        captions = None
        if self._captions is not None:
            rows = np.concatenate([references[:, None], targets], axis=1)
            captions = Tokens(self._captions.ids[rows], self._captions.mask[rows])
        return ComposedBatch(
            references=np.stack([sample.reference for sample in samples]),
            targets=_grouped([fill(sample.targets) for sample in samples]),
            texts=Tokens(self._texts.ids[records], self._texts.mask[records]),
            valid=valid,
            reference_ids=references,
            target_ids=targets,
            records=records,
            phrases=self._pack(records, valid, self._phrases) if self._phrases is not None else None,
            captions=captions,
        )

    def _pack(self, records: np.ndarray, valid: np.ndarray, phrases: Sequence[Spans]) -> Phrases:
        """The batch's phrases, those of each group in a fixed budget."""
        groups = len(records) // self._group if self._group else 1
        shape, length = (groups, self._budget), self._phrase_length
        tokens = Tokens(np.zeros((*shape, length), np.int32), np.zeros((*shape, length), bool))
        packed = Phrases(
            tokens, np.zeros(shape, np.int32), np.zeros((*shape, 2), np.int32), np.zeros(shape, bool),
            np.zeros((len(records), len(LOST)), np.int32),
        )  # fmt: skip
        for group, rows in enumerate(np.split(np.arange(len(records)), groups)):
            flat = records[rows].ravel()
            found = [phrases[row] if ok else () for row, ok in zip(flat, valid[rows].ravel(), strict=True)]
            lost = self._pack_group(flat, found, packed, group)
            packed.lost[rows] = lost.reshape(len(rows), self.modifications, len(LOST)).sum(1, dtype=np.int32)
        return packed

    def _pack_group(self, flat: np.ndarray, found: Sequence[Spans], packed: Phrases, group: int) -> np.ndarray:
        """Writes the phrases found in some texts into `packed`: every text's first, every text's second, and so on.

        Returns int32 [texts, 3], how many of each text are lost.
        """
        spans = [token_spans(part, self._offsets[row]) for part, row in zip(found, flat, strict=True)]
        ranked = sorted((rank, text) for text, found in enumerate(spans) for rank in range(len(found)))
        kept, dropped = ranked[: self._budget], ranked[self._budget :]
        ids, mask = (x[group] for x in packed.tokens)
        for slot, (rank, row) in enumerate(kept):
            start, end = spans[row][rank]
            source = self._texts.ids[flat[row]]
            inner = source[start:end][: self._phrase_length - 2]
            # BOS opens and EOS closes the text; the phrase alone is framed by the same two.
            ids[slot, 0], ids[slot, 1 : len(inner) + 1] = source[0], inner
            ids[slot, len(inner) + 1] = source[self._texts.mask[flat[row]].sum() - 1]
            mask[slot, : len(inner) + 2] = True
            packed.text[group, slot], packed.span[group, slot] = row, (start, end)
        packed.valid[group, : len(kept)] = True
        lost = np.zeros((len(flat), len(LOST)), np.int32)
        for _, row in dropped:
            lost[row, 0] += 1
        for row, (part, source) in enumerate(zip(found, flat, strict=True)):
            if len(spans[row]) < len(part):
                lost[row, 1:] = lost_phrases(part, self._offsets[source], cut=bool(self._cut[source]))
        return lost


def _chunks(data: ComposedData, modifications: int) -> Iterator[np.ndarray]:
    """Record rows of each sample."""
    first = 0
    for part in parts_of(data):
        for rows in rows_by_reference(part):
            for begin in range(0, len(rows), modifications):
                yield first + rows[begin : begin + modifications]
        first += len(part.records)


def _grouped(groups: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Pictures of groups of one length as [R, M, H, W, 3], copied once."""
    flat = np.stack([picture for group in groups for picture in group])
    return flat.reshape(len(groups), -1, *flat.shape[1:])
