"""Cleaning of texts as in the published recipes, and the rule by which a sentence counts as negated."""

from __future__ import annotations

import re

MAX_WORDS = 30  # of both published recipes

_DESCRIPTION = str.maketrans("-/", "  ", ",.'!?\"()*#:;~")
_CAPTION = str.maketrans(dict.fromkeys('.!"()*#:;~', " "))

# Contractions lose their apostrophe in cleaning, so both spellings count.
_NEGATION = re.compile(
    r"\b(?:no(?!\.?\s*\d)|not(?!\s+only\b)|never|none|nobody|nothing|nowhere|neither|nor|without|cannot|\w+n['’]t"
    r"|(?:is|are|was|were|do|does|did|has|have|had|ca|could|wo|would|should|must)nt)\b",
    re.IGNORECASE,
)


def clean_description(text: str, *, max_words: int | None = MAX_WORDS) -> str:
    """Cleans an ImageCoDe description as in the published recipe.

    `, . ' ! ? " ( ) * # : ; ~` are deleted (words they stand between without a space become one), `-` and `/` become
    spaces, runs of white space one space, and all words but the first `max_words` are dropped. Case is kept.

    Args:
      text: the description.
      max_words: words that are kept; None keeps all.
    """
    return _first_words(text.translate(_DESCRIPTION), max_words)


def clean_caption(text: str, *, max_words: int | None = MAX_WORDS) -> str:
    """Cleans a COCO or Visual Genome caption as in the published recipe.

    Lower-cased; `. ! " ( ) * # : ; ~` become spaces, runs of white space one space, and all words but the first
    `max_words` are dropped. Commas, apostrophes, question marks, hyphens and slashes stay.

    Args:
      text: the caption.
      max_words: words that are kept; None keeps all.
    """
    return _first_words(text.lower().translate(_CAPTION), max_words)


def _first_words(text: str, count: int | None) -> str:
    return " ".join(text.split()[:count])


def has_words(text: str) -> bool:
    """Returns whether a text has a letter or digit: punctuation and invisible characters describe nothing."""
    return any(character.isalnum() for character in text)


def is_negated(text: str) -> bool:
    """Returns whether a short sentence, cleaned or not, is negated.

    The rule: it has one of the words no, not, never, none, nobody, nothing, nowhere, neither, nor, without, cannot, or
    a verb contracted with not (isn't, isnt). "No. 5", "no 5" and "not only" don't count. Two such words count as one;
    words that only imply absence (missing, hidden, fails to) are not looked for.
    """
    return _NEGATION.search(text) is not None
