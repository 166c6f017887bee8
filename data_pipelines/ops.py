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
        phrase_length: int = 8,
        caption_length: int = 0,
    ):
        """Args as in the config's `data` section; `phrases` and `caption_length` only where a loss needs them.

        `phrase_budget` is the global batch's; where processes share it, a multiple of its references.
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
            self._budget = phrase_budget
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
        batch = self._stack(samples)
        return batch if self._phrases is None else batch._replace(phrases=self._pack(batch.records, batch.valid))

    def collate_part(
        self, samples: Sequence[ComposedSample], rows: np.ndarray, numbers: Sequence[int]
    ) -> ComposedBatch:
        """The part `rows` of the global batch of the samples `numbers`, whose phrases are packed in every process: so
        they are the same ones whatever the number of processes. Each process has an equal part of the budget."""
        batch = self._stack(samples)
        if self._phrases is None:
            return batch
        whole = self._pack(*self._filled([self._chunks[number] for number in numbers]))
        each = self._budget // len(numbers)
        slots = (rows[:, None] * each + np.arange(each)).ravel()
        tokens = Tokens(whole.tokens.ids[slots], whole.tokens.mask[slots])
        part = Phrases(tokens, whole.text[slots], whole.span[slots], whole.valid[slots], whole.lost[rows])
        return batch._replace(phrases=part)

    def _filled(self, records: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Record rows [R, M] of samples, and which of them are not there to fill up."""
        count = self.modifications
        filled = np.stack([[*rows, *[rows[0]] * (count - len(rows))] for rows in records]).astype(np.int32)
        return filled, np.asarray([[i < len(rows) for i in range(count)] for rows in records])

    def _stack(self, samples: Sequence[ComposedSample]) -> ComposedBatch:
        """The batch without its phrases."""
        records, valid = self._filled([sample.records for sample in samples])
        references, targets = self._references[records[:, 0]], self._targets[records]
        captions = None
        if self._captions is not None:
            rows = np.concatenate([references[:, None], targets], axis=1)
            captions = Tokens(self._captions.ids[rows], self._captions.mask[rows])
        fill = lambda pictures: [*pictures, *[pictures[0]] * (self.modifications - len(pictures))]
        return ComposedBatch(
            references=np.stack([sample.reference for sample in samples]),
            targets=_grouped([fill(sample.targets) for sample in samples]),
            texts=Tokens(self._texts.ids[records], self._texts.mask[records]),
            valid=valid,
            reference_ids=references,
            target_ids=targets,
            records=records,
            captions=captions,
        )

    def _pack(self, records: np.ndarray, valid: np.ndarray) -> Phrases:
        """The batch's phrases in a fixed budget: every text's first, then every text's second, and so on."""
        assert self._phrases is not None
        flat, phrases = records.ravel(), self._phrases
        found = [phrases[row] if ok else () for row, ok in zip(flat, valid.ravel(), strict=True)]
        spans = [token_spans(part, self._offsets[row]) for part, row in zip(found, flat, strict=True)]
        ranked = sorted((rank, text) for text, found in enumerate(spans) for rank in range(len(found)))
        kept, dropped = ranked[: self._budget], ranked[self._budget :]
        length = self._phrase_length
        ids, mask = np.zeros((self._budget, length), np.int32), np.zeros((self._budget, length), bool)
        text, span = np.zeros(self._budget, np.int32), np.zeros((self._budget, 2), np.int32)
        for slot, (rank, row) in enumerate(kept):
            start, end = spans[row][rank]
            source = self._texts.ids[flat[row]]
            inner = source[start:end][: length - 2]
            # BOS opens and EOS closes the text; the phrase alone is framed by the same two.
            ids[slot, 0], ids[slot, 1 : len(inner) + 1] = source[0], inner
            ids[slot, len(inner) + 1] = source[self._texts.mask[flat[row]].sum() - 1]
            mask[slot, : len(inner) + 2] = True
            text[slot], span[slot] = row, (start, end)
        lost = np.zeros((len(flat), len(LOST)), np.int32)
        for _, row in dropped:
            lost[row, 0] += 1
        for row, (part, source) in enumerate(zip(found, flat, strict=True)):
            if len(spans[row]) < len(part):
                lost[row, 1:] = lost_phrases(part, self._offsets[source], cut=bool(self._cut[source]))
        lost = lost.reshape(len(records), self.modifications, len(LOST)).sum(1, dtype=np.int32)
        return Phrases(Tokens(ids, mask), text, span, np.arange(self._budget) < len(kept), lost)


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
