"""Encodes texts as token ids, with character offsets that locate noun phrases."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contextjax.files import is_utf8, write_whole
from contextjax.tokenizer_files import (
    BOS,
    DEFAULT_SPECIALS,
    EOS,
    PAD,
    Specials,
    check_tokens,
    read_tokenizer,
    specials_of,
)
from contextjax.types import SLOT, Tokens, UserError

BLIP_ADDED = ("[DEC]", "[ENC]")  # BLIP's table has rows for them (30522, 30523), but its vocabulary file has no lines

# Ends of a sentence or a clause. A clause with "it" or the like stays with the one before, which names the thing.
_BREAKS = re.compile(
    r"(?<=[.!?;])\s+|,\s+(?:and|but|while)\s+(?!(?:it|they|its|their)\b)"
    r"|,\s+(?=(?:the|a|an|there|only|exactly|just|both|nothing|something|one|no|neither|all|everything)\b)",
    re.IGNORECASE,
)
_MIN_WORDS = 4  # a shorter proposition is joined with the next one


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Encoded texts.

    `tokens` holds ids and mask [N, T]; `offsets`, int32 [N, T, 2], the first and the last + 1 character of each token
    in its text (zeros for special tokens and padding); `truncated`, bool [N], marks texts that were cut to fit into T.
    """

    tokens: Tokens
    offsets: np.ndarray
    truncated: np.ndarray


class TextTokenizer:
    """A `tokenizers` tokenizer with a first and a last token around every text and a fixed length.

    The tokenizer is one that `train_tokenizer` made, or CLIP's byte-level BPE, BERT's WordPiece (which BLIP uses),
    SigLIP's SentencePiece or SigLIP 2's (Gemma's), as `read` reads them. Ids and masks of these equal those of Hugging
    Face's CLIPTokenizer, BertTokenizer, SiglipTokenizer and Siglip2Tokenizer with split_special_tokens=True: a text
    that spells out a special token ("<|endoftext|>", "[SEP]") is plain text. SigLIP's two have no first token.
    """

    def __init__(self, tokenizer: Any, *, length: int, specials: Specials = DEFAULT_SPECIALS["trained"]):
        """Wraps a `tokenizers.Tokenizer`, which must not be used elsewhere afterwards.

        Args:
          tokenizer: the tokenizer; its own truncation and padding are switched off, but kept by `save`.
          length: tokens of a text, the first and the last one included.
          specials: the first, the last and the padding token; without a first one, None, texts begin with their own.

        Raises:
          UserError: the vocabulary lacks one of them, or the token that stands for unknown words.
        """
        self.length, self.specials = length, specials
        unknown = getattr(tokenizer.model, "unk_token", None)  # without it, one unknown word would fail a whole batch
        vocabulary = tokenizer.get_vocab()
        check_tokens(vocabulary, [*filter(None, specials), *([unknown] if unknown else [])])
        self._first = [vocabulary[specials[0]]] if specials[0] else []
        self._last, self._pad = (vocabulary[name] for name in specials[1:])
        self._json = tokenizer.to_str(pretty=True)  # with its own truncation and padding, which are switched off below
        self._tokenizer = tokenizer
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True  # special tokens spelled out in a text are plain text

    @property
    def last(self) -> int:
        """The id of the token at the end of every text."""
        return self._last

    @property
    def pad(self) -> int:
        """The id of padding."""
        return self._pad

    @property
    def begin(self) -> int:
        """The position of a text's own first token: 1 behind a special one, 0 without."""
        return len(self._first)

    @property
    def vocabulary(self) -> int:
        """Number of rows that a model's embedding table needs: the largest id + 1."""
        return max(self._tokenizer.get_vocab().values()) + 1

    def __call__(self, texts: Sequence[str], *, length: int | None = None) -> Encoded:
        """Encodes each of N texts as first token (where there is one), text, last token, padding.

        Args:
          texts: the texts; one with too many tokens loses its last ones and is marked in `truncated`.
          length: T, the number of ids of each text; default: the tokenizer's own.

        Returns:
          Ids, masks and offsets of shape [N, T].
        """
        if isinstance(texts, str | bytes):  # of which each letter would be a text
            raise UserError(f"The texts are {str(texts)[:60]!r}, a {type(texts).__name__}; expected a list of them.")
        for text in texts:
            check_text(text)
        length = length or self.length
        shape = (len(texts), length)
        ids, mask = np.full(shape, self._pad, np.int32), np.zeros(shape, bool)
        offsets, truncated = np.zeros((*shape, 2), np.int32), np.zeros(len(texts), bool)
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        for row, (text, encoding) in enumerate(zip(texts, encodings, strict=True)):
            inner = encoding.ids[: length - 1 - self.begin]
            truncated[row] = len(encoding.ids) > len(inner)
            end = self.begin + len(inner)
            ids[row, : end + 1] = [*self._first, *inner, self._last]
            mask[row, : end + 1] = True
            if inner:
                offsets[row, self.begin : end] = _whole_characters(text, encoding.offsets)[: len(inner)]
        return Encoded(Tokens(ids, mask), offsets, truncated)

    def save(self, path: Path) -> None:
        """Writes the tokenizer as one JSON file: tokenizer.json as Hugging Face's libraries read it."""
        write_whole(path, self._json)

    @classmethod
    def read(cls, source: Path, *, length: int, first: str | None = None) -> TextTokenizer:
        """Reads a file that `save` wrote, or the tokenizer in a checkpoint's folder.

        Args:
          source: a tokenizer.json, which is read as it stands; or a folder with one, with CLIP's vocab.json and
            merges.txt, or with BERT's vocab.txt. In a folder, special tokens and lower-casing follow its
            tokenizer_config.json and special_tokens_map.json, where there are any; texts for SigLIP are lower-cased,
            and lose their punctuation for its first version, as they were in training.
          length: tokens of a text, the first and the last one included.
          first: the token at position 0, instead of the tokenizer's own. BLIP's original training has "[ENC]" there
            for matching (Hugging Face's port does not); BLIP's two tokens are added to a vocabulary without them.

        Raises:
          UserError: there is no tokenizer, it can't be read, or it lacks a special token.
        """
        tokenizer, (own, last, pad) = read_tokenizer(source)
        if first in BLIP_ADDED:
            tokenizer.add_special_tokens(list(BLIP_ADDED))
        return cls(tokenizer, length=length, specials=(first or own, last, pad))


def check_text(text: Any) -> None:
    """Raises a UserError where a text is no str, or holds bytes that are no UTF-8, which Python keeps as surrogates."""
    if not isinstance(text, str):
        raise UserError(f"A text is {text!r}, a {type(text).__name__}; expected a str.")
    if not is_utf8(text):
        raise UserError(f"The text {ascii(text)[:200]} holds bytes that are not UTF-8; give it in UTF-8.")


def check_question(text: Any) -> None:
    """Raises a UserError as `check_text` does, and where a text is blank, which no user means."""
    check_text(text)
    if not text.strip():
        raise UserError("The text is empty; say what the picture that you look for is like.")


def tokenize_queries(
    tokenizer: TextTokenizer, texts: Sequence[str], template: str = "{}", *, length: int | None = None
) -> Encoded:
    """Encodes texts as the template has them, "{}" being the text; offsets are those of characters in the text.

    The tokens of a "*" in the template, but not in a text, get the id SLOT.
    """
    if template == "{}" or isinstance(texts, str | bytes):  # which the tokenizer refuses
        return tokenizer(texts, length=length)
    before, _, after = template.partition("{}")
    encoded = tokenizer([f"{before}{text}{after}" for text in texts], length=length)
    ids, lengths = encoded.tokens.ids, np.asarray([len(text) for text in texts], np.int32).reshape(-1, 1)
    if "*" in before:
        mark_slots(encoded, [[before.index("*")]] * len(texts))
    elif "*" in after:
        mark_slots(encoded, [[len(before) + len(text) + after.index("*")] for text in texts])
    offsets = np.clip(encoded.offsets - len(before), 0, lengths[:, :, None])
    return Encoded(Tokens(ids, encoded.tokens.mask), offsets, encoded.truncated)


def mark_slots(encoded: Encoded, places: Sequence[Sequence[int]]) -> None:
    """Gives the id SLOT to the tokens of each text that cover one of its `places`, numbers of characters."""
    ids, starts, ends = encoded.tokens.ids, encoded.offsets[..., 0], encoded.offsets[..., 1]
    for row, own in enumerate(places):
        for place in own:
            ids[row, (starts[row] <= place) & (place < ends[row])] = SLOT


def split_propositions(text: str, limit: int) -> list[str]:
    """Splits a text into at most `limit` short sentences, at full stops, semicolons and between clauses.

    The rest after the first `limit` - 1 stays together. A clause stays with the one before it where it begins with a
    pronoun, and with the one after it where it is very short ("in this picture"). Li et al. 2023 (NDCR) decompose
    descriptions by a learned model instead.
    """
    text = text.strip()
    pieces, begin = [], 0
    for match in _BREAKS.finditer(text):
        if len(pieces) + 1 < limit and len(text[begin : match.start()].split()) >= _MIN_WORDS:
            pieces.append(text[begin : match.start()])
            begin = match.end()
    return [*pieces, text[begin:]]


def tokenize_propositions(
    tokenizer: TextTokenizer, texts: Sequence[str], *, limit: int, length: int
) -> tuple[Tokens, np.ndarray]:
    """Encodes the propositions of each of N texts.

    Returns:
      Tokens [N, J, length], where J <= limit is the largest number of propositions of a text (rows beyond a text's own
      have an empty mask); and bool [N], True where a proposition was cut to `length`.
    """
    pieces = [split_propositions(text, limit) for text in texts]
    counts = [len(propositions) for propositions in pieces]
    encoded = tokenizer([proposition for propositions in pieces for proposition in propositions], length=length)
    text = np.repeat(np.arange(len(texts)), counts)
    slot = np.concatenate([np.arange(count) for count in counts])
    ids = np.zeros((len(texts), max(counts), length), np.int32)
    mask = np.zeros(ids.shape, bool)
    ids[text, slot], mask[text, slot] = encoded.tokens
    return Tokens(ids, mask), np.bincount(text, encoded.truncated, len(texts)) > 0


def train_tokenizer(texts: Iterable[str], *, vocabulary: int, length: int, first: bool = True) -> TextTokenizer:
    """Trains a lower-casing byte-level BPE on `texts`; the same texts give the same tokenizer.

    Args:
      texts: the texts to train on.
      vocabulary: the largest number of ids; at least 259 (256 bytes and three special tokens).
      length: tokens of a text, the first and the last one included.
      first: whether there is a first token; SigLIP has none.
    """
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
        special_tokens=[BOS, EOS, PAD] if first else [EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return TextTokenizer(tokenizer, length=length, specials=specials_of(tokenizer))


def _whole_characters(text: str, offsets: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Moves the ends of offsets over characters behind them that no token covers, and the starts behind white space.

    A normalizer that composes e + U+0301, or drops the accent, leaves the token at the e; a phrase ends behind both.
    SentencePiece's token of a word begins with the space before it.
    """
    offsets = [(start + len(text[start:end]) - len(text[start:end].lstrip()), end) for start, end in offsets]
    if text.isascii():
        return offsets
    covered = np.zeros(len(text), bool)
    for start, end in offsets:
        covered[start:end] = True
    reach = list(range(len(text) + 1))
    for place in reversed(range(len(text))):
        if not covered[place] and not text[place].isspace():
            reach[place] = reach[place + 1]
    return [(start, reach[end]) for start, end in offsets]
