"""Filters of a search by the attributes of pictures: price < 20 and (colour = 'red' or shop in ('a', 'b')).

A comparison with an attribute that a picture lacks is false, whatever the operator. A general "not" would be true of
such a picture, so there is none; != and "not in" negate one comparison.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from contextjax.types import UserError, listed

Value = str | int | float | bool
KINDS: dict[type, str] = {str: "text", int: "number", float: "number", bool: "truth value"}
OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
SAME = {"==": "=", "<>": "!="}
LONGEST, DEEPEST, MOST = 4000, 20, 200  # characters, nested parentheses and comparisons of a filter
TOKEN = re.compile(
    r"\s*(?:(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<text>'(?:[^'\\]|\\.|'')*'|\"(?:[^\"\\]|\\.|\"\")*\")"
    r"|(?P<quoted>`[^`]+`)|(?P<word>[^\W\d]\w*)|(?P<sign><=|>=|!=|<>|==|[=<>(),]))",
    re.DOTALL,
)
EXAMPLE = "price < 20 and colour in ('red', 'blue')"


class Comparison(NamedTuple):
    """An attribute compared with a value."""

    column: str
    sign: str  # of OPERATORS
    value: Value


class Group(NamedTuple):
    """Filters of which all ("and") or any ("or") must hold."""

    word: str  # "and" or "or"
    parts: tuple[Any, ...]


Filter = Comparison | Group


def parse(text: str, kinds: Mapping[str, str]) -> Filter:
    """Parses the text of a condition into a filter.

    Args:
      text: comparisons (=, !=, <, <=, >, >=, in, not in) of attributes with numbers, texts in quotes, true and false,
        joined by and, or, and parentheses. The name of an attribute that is no word stands in backticks.
      kinds: the kind ("text", "number" or "truth value") of each attribute.

    Raises:
      UserError: the text is no such condition, or compares an unknown attribute, or one with a value of another kind.
    """
    if len(text) > LONGEST:
        raise UserError(f"The filter has {len(text):,} characters; at most {LONGEST:,} are read.")
    return _Parser(text, kinds).whole()


def mask(condition: Filter, columns: Mapping[str, Sequence[Value | None]], count: int) -> np.ndarray:
    """Returns bool [count], True for the rows that fit a filter. `columns` have a value or None for each row."""
    if isinstance(condition, Group):
        masks = [mask(part, columns, count) for part in condition.parts]
        return (np.logical_and if condition.word == "and" else np.logical_or).reduce(masks)
    compare, value = OPERATORS[condition.sign], condition.value
    cells = columns[condition.column]
    return np.fromiter((cell is not None and compare(cell, value) for cell in cells), bool, count)


def expression(condition: Filter, field: str, quote: Callable[[str], str]) -> str:
    """Returns a filter as Milvus's condition on a JSON field; `quote` writes a text as a literal in quotes."""
    if isinstance(condition, Group):
        return f"({f' {condition.word} '.join(expression(part, field, quote) for part in condition.parts)})"
    column, value = f"{field}[{quote(condition.column)}]", condition.value
    written = quote(value) if isinstance(value, str) else str(value).lower()
    compared = f"{column} {'==' if condition.sign == '=' else condition.sign} {written}"
    return f"(exists {column} and {compared})" if condition.sign == "!=" else compared


class _Parser:
    """Reads a condition by recursive descent."""

    def __init__(self, text: str, kinds: Mapping[str, str]):
        self._text, self._kinds, self._at, self._comparisons, self._depth = text, kinds, 0, 0, 0
        self._tokens: list[tuple[str, str]] = []
        while text[self._at :].strip():
            match = TOKEN.match(text, self._at)
            if match is None:
                raise self._wrong(f"'{text[self._at :].strip()[:20]}' can't be read")
            self._tokens.append((str(match.lastgroup), match[match.lastgroup or 0]))
            self._at = match.end()
        self._at = 0

    def whole(self) -> Filter:
        read = self._group("or")
        if self._at < len(self._tokens):
            raise self._wrong(f"'{self._tokens[self._at][1]}' comes after what is whole")
        return read

    def _group(self, word: str) -> Filter:
        read = lambda: self._group("and") if word == "or" else self._single()
        parts = [read()]
        while self._taken(word):
            parts.append(read())
        return parts[0] if len(parts) == 1 else Group(word, tuple(parts))

    def _single(self) -> Filter:
        if not self._taken("("):
            return self._comparison()
        self._depth += 1
        if self._depth > DEEPEST:
            raise self._wrong(f"it has more than {DEEPEST} parentheses within each other")
        read = self._group("or")
        self._expect(")")
        self._depth -= 1
        return read

    def _comparison(self) -> Filter:
        kind, column = self._next("the name of an attribute")
        if kind not in ("word", "quoted"):
            raise self._wrong(f"{column} stands where the name of an attribute is expected")
        column = column.strip("`")
        if column not in self._kinds:
            known = f"there are {listed(list(self._kinds))}" if self._kinds else "the index has none"
            raise UserError(f"The filter names the attribute '{column}', and {known}; embed with --attributes=TABLE.")
        is_not = self._taken("not")
        if is_not or self._peek().lower() == "in":
            self._expect("in")
            self._expect("(")
            values = [self._value(column)]
            while self._taken(","):
                values.append(self._value(column))
            self._expect(")")
            parts = tuple(Comparison(column, "!=" if is_not else "=", value) for value in values)
            return parts[0] if len(parts) == 1 else Group("and" if is_not else "or", parts)
        _, sign = self._next("=, !=, <, <=, >, >= or in")
        sign = SAME.get(sign, sign)
        if sign not in OPERATORS:
            raise self._wrong(f"'{sign}' stands where =, !=, <, <=, >, >= or in is expected")
        value = self._value(column)
        if isinstance(value, bool) and sign not in ("=", "!="):
            raise self._wrong(f"{column} is a truth value, which {sign} can't compare")
        return Comparison(column, sign, value)

    def _value(self, column: str) -> Value:
        self._comparisons += 1
        if self._comparisons > MOST:
            raise self._wrong(f"it has more than {MOST} values")
        kind, token = self._next("a value")
        if kind == "number":
            value: Value = float(token) if re.search(r"[.eE]", token) else int(token)
        elif kind == "text":
            body = token[1:-1].replace(token[0] * 2, token[0])
            value = re.sub(r"\\(.)", r"\1", body, flags=re.DOTALL)
        elif token.lower() in ("true", "false"):
            value = token.lower() == "true"
        else:
            raise self._wrong(f"{token} is no value; expected a number, true, false, or a text in quotes: '{token}'")
        given, expected = KINDS[type(value)], self._kinds[column]
        if given != expected:
            raise self._wrong(f"the attribute {column} is a {expected}, but {token} is a {given}")
        return value

    def _peek(self) -> str:
        return self._tokens[self._at][1] if self._at < len(self._tokens) else ""

    def _taken(self, token: str) -> bool:
        """Skips the next token where it is this word or sign; returns whether it is."""
        kind = self._tokens[self._at][0] if self._at < len(self._tokens) else ""
        is_there = kind in ("word", "sign") and self._peek().lower() == token
        self._at += is_there
        return is_there

    def _expect(self, token: str) -> None:
        if not self._taken(token):
            raise self._wrong(f"'{token}' is expected {f'before {self._peek()}' if self._peek() else 'at its end'}")

    def _next(self, expected: str) -> tuple[str, str]:
        if self._at >= len(self._tokens):
            raise self._wrong(f"{expected} is expected at its end")
        self._at += 1
        return self._tokens[self._at - 1]

    def _wrong(self, reason: str) -> UserError:
        return UserError(f"The filter {ascii(self._text)[:200]} can't be read: {reason}; write one as {EXAMPLE}.")
