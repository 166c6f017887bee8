"""Reads the tokenizers of checkpoints and of our own runs: which files there are, of which kind, what is special."""

from __future__ import annotations

import os
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

from contextjax.json_files import read_json
from contextjax.types import UserError

BOS, EOS, PAD = "<|startoftext|>", "<|endoftext|>", "<|pad|>"

Specials = tuple[str | None, str, str]  # the first (None: there is none), the last and the padding token
DEFAULT_SPECIALS: dict[str, Specials] = {
    "trained": (BOS, EOS, PAD),
    "clip": (BOS, EOS, EOS),
    "bert": ("[CLS]", "[SEP]", "[PAD]"),
    "sentencepiece": (None, "</s>", "</s>"),  # SigLIP's
    "gemma": (None, "<eos>", "<pad>"),  # SigLIP 2's
}
# The same three by their names in transformers' tokenizers.
ATTRIBUTES = {"clip": ("bos_token", "eos_token", "pad_token"), "bert": ("cls_token", "sep_token", "pad_token")}

PUNCTUATION = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"""  # which the texts of SigLIP's first version lose
VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt")  # the first one that a folder holds is read
SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
REFUSED = (
    "vocab", "merges", "vocab_file", "merges_file", "tokenizer_file", "tokenizer_object", "gguf_file", "init_inputs",
)  # fmt: skip
MAX_FILE_BYTES = 64_000_000  # CLIP's tokenizer.json has 2 MB, the largest multilingual ones about 30 MB


def has_tokenizer(folder: Path) -> bool:
    """Returns whether a folder holds a tokenizer that can be tried."""
    return any((folder / name).is_file() for name in VOCABULARIES)


def read_tokenizer(source: Path) -> tuple[Any, Specials]:
    """Returns the `tokenizers.Tokenizer` of a tokenizer.json or of a checkpoint's folder, and its special tokens.

    Raises:
      UserError: there is no tokenizer, it can't be read, or it lacks a special token.
    """
    return _read_folder(source) if source.is_dir() else _read_file(source)


def _read_file(file: Path) -> tuple[Any, Specials]:
    """Reads a tokenizer.json as it stands; the special tokens are those of its kind."""
    tokenizer = _open(file)
    return tokenizer, specials_of(tokenizer)


def _read_folder(folder: Path) -> tuple[Any, Specials]:
    """Reads CLIP's or BERT's tokenizer with transformers, which knows how their files and settings work together.

    That of a SigLIP is in its tokenizer.json whole, but for what its class does to a text first.

    The folder is not trusted. Files are checked for their size first, and this library says which class reads them: a
    class or code that the folder names is not used, nothing is unpickled and nothing is downloaded.
    """
    _check_files(folder)
    file = next((folder / name for name in VOCABULARIES if (folder / name).is_file()), folder)
    stored = None if file.name in VOCABULARIES[1:] else _open(file)
    kind = _kind(stored) if stored else ("clip" if file.name == "vocab.json" else "bert")
    if stored and kind == "trained":  # such a file is complete in itself
        return stored, specials_of(stored)
    if stored and kind in ("sentencepiece", "gemma"):
        return _canonical(stored, kind), _named_specials(folder, kind)
    # Without PyTorch, the import prints advice about its models, which are not used here.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    try:
        theirs = AutoTokenizer.from_pretrained(
            folder, tokenizer_type=kind, local_files_only=True, trust_remote_code=False
        )
        tokenizer = Tokenizer.from_str(theirs.backend_tokenizer.to_str())  # theirs has Python methods patched onto it
        first, last, pad, unknown = (str(getattr(theirs, name)) for name in (*ATTRIBUTES[kind], "unk_token"))
    except Exception as error:  # the Rust library raises nothing narrower
        raise _unreadable(file, error) from error
    # transformers adds missing special tokens behind the vocabulary, where a model's table has no rows.
    check_tokens(stored.get_vocab() if stored else tokenizer.get_vocab(False), [first, last, pad, unknown])
    return tokenizer, (first, last, pad)


def _check_files(folder: Path) -> None:
    """Raises a UserError where a file of a tokenizer is too large, or its settings are not what a checkpoint has."""
    for path in (folder / name for name in (*VOCABULARIES, "merges.txt", *SETTINGS)):
        if not path.is_file():
            continue
        if (size := path.stat().st_size) > MAX_FILE_BYTES:
            raise UserError(f"{path} has {size:,} bytes; a tokenizer's file has at most {MAX_FILE_BYTES:,}: remove it.")
        if path.name in SETTINGS:
            settings = read_json(path, layout="a checkpoint", remedy="copy it from the checkpoint again")
            if named := [key for key in REFUSED if key in settings]:
                raise UserError(f"{path} holds the setting {named[0]}, which could name any file; remove it there.")


def _canonical(tokenizer: Any, kind: str) -> Any:
    """Puts what SigLIP's training did to a text before the tokenizer's own normalizer; done twice, it is the same."""
    from tokenizers import Regex, normalizers

    before = [normalizers.Lowercase()]
    if kind == "sentencepiece":
        spaces = normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()
        before += [normalizers.Replace(Regex(PUNCTUATION), ""), *spaces]
    own = [] if tokenizer.normalizer is None else [tokenizer.normalizer]
    tokenizer.normalizer = normalizers.Sequence([*before, *own])
    return tokenizer


def _named_specials(folder: Path, kind: str) -> Specials:
    """Returns the special tokens of a SigLIP's tokenizer, by the names in its folder's settings."""
    first, *default = DEFAULT_SPECIALS[kind]
    named: dict[str, Any] = {}
    for name in reversed(SETTINGS[:2]):
        if (folder / name).is_file():
            named |= read_json(folder / name, layout="a checkpoint")
    last, pad = (
        value.get("content", own) if isinstance(value, dict) else value if isinstance(value, str) else own
        for value, own in zip((named.get("eos_token"), named.get("pad_token")), default, strict=True)
    )
    return first, last, pad


def _open(file: Path) -> Any:
    """Reads a tokenizer.json of BPE, WordPiece or SentencePiece's Unigram as a `tokenizers.Tokenizer`."""
    from tokenizers import Tokenizer, models

    if not file.is_file() and (model := (file if file.is_dir() else file.parent) / "spiece.model").is_file():
        raise UserError(
            f"{model} is SentencePiece's own file, which is not read; expected tokenizer.json beside it, as "
            "T5TokenizerFast.from_pretrained(FOLDER).save_pretrained(FOLDER) of transformers writes it."
        )
    if not file.is_file():
        raise UserError(
            f"There is no tokenizer at {file}; expected tokenizer.json, vocab.json with merges.txt, or vocab.txt "
            "from the checkpoint."
        )
    try:
        tokenizer = Tokenizer.from_str(file.read_text(encoding="utf-8"))
    except Exception as error:  # the Rust library raises nothing narrower
        raise _unreadable(file, error) from error
    if not isinstance(tokenizer.model, (models.BPE, models.WordPiece, models.Unigram)):
        kind = type(tokenizer.model).__name__
        raise UserError(
            f"{file} holds a tokenizer of kind {kind}; expected a BPE (CLIP, SigLIP 2), BERT's WordPiece or SigLIP's "
            "Unigram."
        )
    return tokenizer


def _unreadable(file: Path, error: Exception) -> UserError:
    reason = str(error).partition("\n")[0]
    return UserError(
        f"{file} can't be read as a tokenizer ({reason}); expected a CLIP, SigLIP or BERT checkpoint's tokenizer.json, "
        "vocab.json with merges.txt, or vocab.txt: copy it again."
    )


def _kind(tokenizer: Any) -> str:
    """Returns a key of DEFAULT_SPECIALS.

    "bert" is WordPiece, "sentencepiece" Unigram, "clip" a BPE that marks the ends of words, "gemma" one that falls back
    to bytes, and "trained" any other BPE.
    """
    from tokenizers import models

    if isinstance(tokenizer.model, models.WordPiece):
        return "bert"
    if isinstance(tokenizer.model, models.Unigram):
        return "sentencepiece"
    if tokenizer.model.byte_fallback:
        return "gemma"
    return "clip" if tokenizer.model.end_of_word_suffix else "trained"


def specials_of(tokenizer: Any) -> Specials:
    """Returns the special tokens of a tokenizer's kind; one that was trained for a SigLIP has no first."""
    kind = _kind(tokenizer)
    first, last, pad = DEFAULT_SPECIALS[kind]
    lacks = kind == "trained" and tokenizer.token_to_id(BOS) is None and tokenizer.token_to_id(EOS) is not None
    return None if lacks else first, last, pad


def check_tokens(vocabulary: Container[str], names: Sequence[str]) -> None:
    """Raises a UserError that names the special tokens that a vocabulary lacks."""
    missing = [name for name in names if name not in vocabulary]
    if missing:
        raise UserError(
            f"The tokenizer has no token {', '.join(missing)}; use one that train_tokenizer made, "
            "or the whole tokenizer of a CLIP, SigLIP, BERT or BLIP checkpoint."
        )
