"""Text to token ids, with the character offsets that noun phrases are found by."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contextjax.types import Tokens, UserError

BOS, EOS, PAD = "<|startoftext|>", "<|endoftext|>", "<|pad|>"


@dataclasses.dataclass(frozen=True)
class Encoded:
    """ids and mask [N, T]; offsets int32 [N, T, 2], the characters of each token; truncated bool [N]."""

    tokens: Tokens
    offsets: np.ndarray
    truncated: np.ndarray


class TextTokenizer:
    """A `tokenizers` tokenizer with BOS and EOS around every text and a fixed length."""

    def __init__(self, tokenizer: Any, *, length: int):
        self.length = length
        self._tokenizer = tokenizer
        tokenizer.encode_special_tokens = True  # a text that spells one out is text
        self._ids = {name: tokenizer.token_to_id(name) for name in (BOS, EOS, PAD)}
        missing = [name for name, id in self._ids.items() if id is None]
        if missing:
            raise UserError(f"The tokenizer has no token {', '.join(missing)}; use one that train_tokenizer made.")

    @property
    def vocabulary(self) -> int:
        """Number of ids."""
        return self._tokenizer.get_vocab_size()

    def __call__(self, texts: Sequence[str], *, length: int | None = None) -> Encoded:
        """Encodes to `length` (default: the tokenizer's own) ids a text: BOS, text, EOS, padding.

        A longer text loses its last tokens and is marked in `truncated`.
        """
        length = length or self.length
        shape = (len(texts), length)
        ids, mask = np.full(shape, self._ids[PAD], np.int32), np.zeros(shape, bool)
        offsets, truncated = np.zeros((*shape, 2), np.int32), np.zeros(len(texts), bool)
        for row, encoding in enumerate(self._tokenizer.encode_batch(list(texts), add_special_tokens=False)):
            inner = encoding.ids[: length - 2]
            truncated[row] = len(encoding.ids) > len(inner)
            end = len(inner) + 1
            ids[row, 0], ids[row, 1:end], ids[row, end] = self._ids[BOS], inner, self._ids[EOS]
            mask[row, : end + 1] = True
            if inner:
                offsets[row, 1:end] = encoding.offsets[: len(inner)]
        return Encoded(Tokens(ids, mask), offsets, truncated)

    def save(self, path: Path) -> None:
        """Writes the tokenizer as one JSON file."""
        self._tokenizer.save(str(path))

    @classmethod
    def read(cls, path: Path, *, length: int) -> TextTokenizer:
        """Reads what `save` wrote."""
        from tokenizers import Tokenizer

        return cls(Tokenizer.from_file(str(path)), length=length)


def train_tokenizer(texts: Iterable[str], *, vocabulary: int, length: int) -> TextTokenizer:
    """Trains a lower-casing byte-level BPE on `texts`; the same texts give the same tokenizer."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return TextTokenizer(tokenizer, length=length)
