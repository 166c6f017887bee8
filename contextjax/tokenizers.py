"""Text to token ids, with the character offsets that noun phrases are found by."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contextjax.files import write_whole
from contextjax.json_files import parse_json, read_json
from contextjax.types import Tokens, UserError

# Where a sentence ends, or another clause begins; "it" and the like would lose what they speak of.
_BREAKS = re.compile(
    r"(?<=[.!?;])\s+|,\s+(?:and|but|while)\s+(?!(?:it|they|its|their)\b)"
    r"|,\s+(?=(?:the|a|an|there|only|exactly|just|both|nothing|something|one|no|neither|all|everything)\b)",
    re.IGNORECASE,
)
_SHORTEST = 4  # words of a proposition

BOS, EOS, PAD = "<|startoftext|>", "<|endoftext|>", "<|pad|>"
BLIP_ADDED = ("[DEC]", "[ENC]")  # BLIP's table has rows for them (30522, 30523), its vocabulary file no lines


@dataclasses.dataclass(frozen=True)
class Encoded:
    """ids and mask [N, T]; offsets int32 [N, T, 2], the characters of each token; truncated bool [N]."""

    tokens: Tokens
    offsets: np.ndarray
    truncated: np.ndarray


class TextTokenizer:
    """A `tokenizers` tokenizer with a first and a last token around every text and a fixed length.

    It is what `train_tokenizer` made, or CLIP's byte-level BPE or BERT's WordPiece (which BLIP has) as `read` from a
    checkpoint's folder. Ids and masks of the latter two are those of Hugging Face's CLIPTokenizer and BertTokenizer,
    but for one thing: a text that spells out a special token ("<|endoftext|>", "[SEP]") is plain text, as theirs is
    with split_special_tokens=True.
    """

    def __init__(self, tokenizer: Any, *, length: int, specials: tuple[str, str, str] = (BOS, EOS, PAD)):
        """`specials` are the first, the last and the padding token.

        Raises:
          UserError: the vocabulary lacks one of them, or the token that stands for unknown words.
        """
        self.length, self.specials = length, specials
        unknown = getattr(tokenizer.model, "unk_token", None)  # one word without it would fail its whole batch
        self._first, self._last, self._pad, *_ = _ids(tokenizer, [*specials, *([unknown] if unknown else [])])
        self._json = tokenizer.to_str(pretty=True)  # before a truncation or padding of its own is taken off
        self._tokenizer = tokenizer
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True  # a text that spells one out is text

    @property
    def vocabulary(self) -> int:
        """One more than the largest id: the rows that a model's table needs."""
        return max(self._tokenizer.get_vocab().values()) + 1

    def __call__(self, texts: Sequence[str], *, length: int | None = None) -> Encoded:
        """Encodes to `length` (default: the tokenizer's own) ids a text: first token, text, last token, padding.

        A longer text loses its last tokens and is marked in `truncated`.
        """
        length = length or self.length
        shape = (len(texts), length)
        ids, mask = np.full(shape, self._pad, np.int32), np.zeros(shape, bool)
        offsets, truncated = np.zeros((*shape, 2), np.int32), np.zeros(len(texts), bool)
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        for row, (text, encoding) in enumerate(zip(texts, encodings, strict=True)):
            inner = encoding.ids[: length - 2]
            truncated[row] = len(encoding.ids) > len(inner)
            end = len(inner) + 1
            ids[row, 0], ids[row, 1:end], ids[row, end] = self._first, inner, self._last
            mask[row, : end + 1] = True
            if inner:
                offsets[row, 1:end] = _whole_characters(text, encoding.offsets)[: len(inner)]
        return Encoded(Tokens(ids, mask), offsets, truncated)

    def save(self, path: Path) -> None:
        """Writes the tokenizer as one JSON file, tokenizer.json as Hugging Face's libraries read it."""
        write_whole(path, self._json)

    @classmethod
    def read(cls, source: Path, *, length: int, first: str | None = None) -> TextTokenizer:
        """Reads what `save` wrote, or the tokenizer of a checkpoint's folder.

        Args:
          source: a tokenizer.json, or a folder with one, or with CLIP's vocab.json and merges.txt, or with BERT's
            vocab.txt. Special tokens and lower-casing follow tokenizer_config.json and special_tokens_map.json
            beside it, where there are such.
          length: ids a text, the first and the last token included.
          first: the token at position 0, instead of the tokenizer's own. BLIP's original training has "[ENC]" there
            for matching (Hugging Face has not); BLIP's two tokens are added to a vocabulary without them.

        Raises:
          UserError: there is no tokenizer, it can't be read, or it lacks a special token.
        """
        settings = _read_settings(source if source.is_dir() else source.parent)
        tokenizer = _read_tokenizer(source, settings)
        if first in BLIP_ADDED:
            tokenizer.add_special_tokens(list(BLIP_ADDED))
        own, last, pad = _specials(tokenizer, settings)
        return cls(tokenizer, length=length, specials=(first or own, last, pad))


def split_propositions(text: str, limit: int) -> list[str]:
    """The short sentences that a text consists of, cut at full stops, semicolons and between clauses.

    What comes after the first `limit` - 1 stays together; a clause stays with the one before where it begins with a
    pronoun, and with the one after where it is very short ("in this picture"). Li et al. 2023 (NDCR) decompose
    descriptions by a learned model.
    """
    text = text.strip()
    found, begin = [], 0
    for match in _BREAKS.finditer(text):
        if len(found) + 1 < limit and len(text[begin : match.start()].split()) >= _SHORTEST:
            found.append(text[begin : match.start()])
            begin = match.end()
    return [*found, text[begin:]]


def tokenize_propositions(
    tokenizer: TextTokenizer, texts: Sequence[str], *, limit: int, length: int
) -> tuple[Tokens, np.ndarray]:
    """split_propositions as tokens [N, J, length], without a real one where a text has fewer than the J <= limit of the
    one that has most; and [N] whether any of a text's was cut."""
    pieces = [split_propositions(text, limit) for text in texts]
    encoded = tokenizer([piece for found in pieces for piece in found], length=length)
    text = np.repeat(np.arange(len(texts)), [len(found) for found in pieces])
    slot = np.concatenate([np.arange(len(found)) for found in pieces])
    ids = np.zeros((len(texts), max(map(len, pieces)), length), np.int32)
    mask = np.zeros(ids.shape, bool)
    ids[text, slot], mask[text, slot] = encoded.tokens
    return Tokens(ids, mask), np.bincount(text, encoded.truncated, len(texts)) > 0


def train_tokenizer(texts: Iterable[str], *, vocabulary: int, length: int) -> TextTokenizer:
    """Trains a lower-casing byte-level BPE on `texts`; the same texts give the same tokenizer."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = _clip_normalizer()
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


def _clip_normalizer() -> Any:
    from tokenizers import Regex, normalizers

    return normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])


def _ids(tokenizer: Any, names: Sequence[str]) -> list[int]:
    """The ids of special tokens, all of which have to be there."""
    ids = [tokenizer.token_to_id(name) for name in names]
    missing = [name for name, id in zip(names, ids, strict=True) if id is None]
    if missing:
        raise UserError(
            f"The tokenizer has no token {', '.join(missing)}; use one that train_tokenizer made, "
            "or the whole tokenizer of a CLIP, BERT or BLIP checkpoint."
        )
    return ids


def _whole_characters(text: str, offsets: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Offsets whose ends take in the characters behind them that no token has.

    A normalizer that composes e + U+0301 or drops the accent leaves the token at the e; a phrase ends behind both.
    """
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


# ------------------------------------------------------------------- tokenizers of checkpoints


def _read_settings(folder: Path) -> dict[str, Any]:
    """What tokenizer_config.json and special_tokens_map.json say, with the precedence that Hugging Face gives them."""
    found = []
    for path in (folder / "tokenizer_config.json", folder / "special_tokens_map.json"):
        remedy = "copy it from the checkpoint again"
        found.append(read_json(path, layout="a checkpoint", remedy=remedy) if path.is_file() else {})
    config, special_tokens = found
    return config if "added_tokens_decoder" in config else config | special_tokens


def _read_tokenizer(source: Path, settings: dict[str, Any]) -> Any:
    """The `tokenizers` tokenizer of a file or of a folder's first file of those that can hold one."""
    from tokenizers import Tokenizer, models

    files = (source / name for name in ("tokenizer.json", "vocab.json", "vocab.txt")) if source.is_dir() else [source]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise UserError(
            f"There is no tokenizer at {source}; expected tokenizer.json, vocab.json with merges.txt, or vocab.txt "
            "from the checkpoint."
        )
    try:
        if file.name == "vocab.json":
            tokenizer = _make_clip(file, settings)
        elif file.name == "vocab.txt":
            tokenizer = _make_bert(file, settings)
        else:
            tokenizer = Tokenizer.from_str(file.read_text(encoding="utf-8"))
            _set_case(tokenizer, settings)
    except UserError:
        raise
    except Exception as error:  # the Rust library raises nothing narrower
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{file} can't be read as a tokenizer ({reason}); expected a CLIP or BERT checkpoint's: copy it again."
        ) from error
    if not isinstance(tokenizer.model, (models.BPE, models.WordPiece)):
        kind = type(tokenizer.model).__name__
        raise UserError(f"{file} holds a tokenizer of kind {kind}; expected CLIP's BPE or BERT's WordPiece.")
    return tokenizer


def _specials(tokenizer: Any, settings: dict[str, Any]) -> tuple[str, str, str]:
    """The first, last and padding token: the checkpoint's choice, else what its kind has."""
    from tokenizers import models

    if isinstance(tokenizer.model, models.WordPiece):
        defaults = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    else:
        trained_here = tokenizer.token_to_id(PAD) is not None
        defaults = {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD if trained_here else EOS}
    first, last, pad = (_named(settings, key, default) for key, default in defaults.items())
    return first, last, pad


def _named(settings: dict[str, Any], key: str, default: str) -> str:
    """A special token by its key: files hold the text, or an object around it."""
    token = settings.get(key) or default
    return token["content"] if isinstance(token, dict) else token


def _make_clip(file: Path, settings: dict[str, Any]) -> Any:
    """What Hugging Face's CLIPTokenizer makes of vocab.json and merges.txt."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors

    vocabulary = parse_json(file.read_bytes())
    lines = file.with_name("merges.txt").read_text(encoding="utf-8").split("\n")
    pairs = (line.partition(" ") for line in lines if line and not line.startswith("#version"))
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=[(left, right) for left, _, right in pairs],
            continuing_subword_prefix="",
            end_of_word_suffix="</w>",
            unk_token=_named(settings, "unk_token", EOS),
        )
    )
    tokenizer.normalizer = _clip_normalizer()
    words = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    specials = _specials(tokenizer, settings)
    first, last, _ = zip(specials, _ids(tokenizer, specials), strict=True)
    tokenizer.post_processor = processors.RobertaProcessing(last, first, trim_offsets=False, add_prefix_space=False)
    tokenizer.add_special_tokens(list(specials))
    return tokenizer


def _make_bert(file: Path, settings: dict[str, Any]) -> Any:
    """What Hugging Face's BertTokenizer makes of vocab.txt."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    lines = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")  # splitlines knows more kinds of line end
    unknown, mask = _named(settings, "unk_token", "[UNK]"), _named(settings, "mask_token", "[MASK]")
    tokenizer = Tokenizer(models.WordPiece({token: id for id, token in enumerate(lines)}, unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer()
    _set_case(tokenizer, settings)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    specials = _specials(tokenizer, settings)
    first, last, _ = zip(specials, _ids(tokenizer, specials), strict=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first[0]}:0 $A:0 {last[0]}:0",
        pair=f"{first[0]}:0 $A:0 {last[0]}:0 $B:1 {last[0]}:1",
        special_tokens=[first, last],
    )
    present = [name for name in (*specials, unknown, mask) if tokenizer.token_to_id(name) is not None]
    tokenizer.add_special_tokens(present)
    return tokenizer


def _set_case(tokenizer: Any, settings: dict[str, Any]) -> None:
    """Lets tokenizer_config.json decide on case, accents and Chinese characters, as Hugging Face does for BERT."""
    from tokenizers import normalizers

    if isinstance(tokenizer.normalizer, normalizers.BertNormalizer):
        keys = {
            "do_lower_case": "lowercase",
            "strip_accents": "strip_accents",
            "tokenize_chinese_chars": "handle_chinese_chars",
        }
        for key in keys.keys() & settings.keys():
            setattr(tokenizer.normalizer, keys[key], settings[key])
