"""The charset of a request's texts: everything has to be in UTF-8, whether the request says so or not.

The form parsers behind the routes read what is in no known charset as Latin-1, or replace it: a text in Windows-1251
would be answered as a text of other letters. Texts are not decoded by the charset that a client names, since some of
Python's codecs take quadratic time.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

UTF8 = {"utf-8", "utf8", "us-ascii", "ascii"}  # ASCII is a part of it
FORM, PARTS, JSON = b"application/x-www-form-urlencoded", b"multipart/form-data", b"application/json"
MOST = 2000  # parts; the form's own parser takes 1,000 texts and 1,000 files
PLAIN = {"7bit", "8bit", "binary"}  # transfer encodings that change no byte


class BadCharset(ValueError):
    """A text of a request that is not in UTF-8; its message says so in a sentence."""


def check_head(headers: list[tuple[bytes, bytes]], query: bytes) -> None:
    """Checks the charsets that the content types name, and the parameters of the address.

    Raises:
      BadCharset: one is not UTF-8.
    """
    for name, value in headers:
        if name == b"content-type":
            _check_type(value)
    _check_bytes(unquote_to_bytes(query), "A parameter of the address")


def check_body(headers: list[tuple[bytes, bytes]], body: bytes) -> bytes:
    """Returns the body as its parser reads it right: in a URL-encoded form, bytes beyond ASCII are escaped.

    Raises:
      BadCharset: JSON, or the name or the text of a field, or the name of a file, is not in UTF-8.
    """
    kind, options = parse_options_header(next((value for name, value in headers if name == b"content-type"), b""))
    if kind == JSON:
        _check_bytes(body, "The JSON")
    if kind == FORM:
        _check_bytes(unquote_to_bytes(body), "A text of the form")
        for pair in re.split(rb"[&;]", body):
            if pair.startswith(b"_charset_="):
                _check_name(unquote_to_bytes(pair.partition(b"=")[2]))
        return re.sub(rb"[\x80-\xff]", lambda byte: b"%%%02X" % byte[0][0], body)  # else it is read as Latin-1
    if kind == PARTS and b"boundary" in options:
        with contextlib.suppress(FormParserError):  # the form's own parser refuses it
            for head, text in _parts(body, options[b"boundary"]):
                _check_part(head, bytes(text))
    return body


def _check_part(head: Mapping[bytes, bytes], text: bytes) -> None:
    """Checks a part of a form: its headers, and its text where it is no file."""
    _check_bytes(b"\n".join(head.values()), "The name of a field or a file")
    disposition = head.get(b"content-disposition", b"")
    for charset in re.findall(rb"""name\*\s*=\s*"?([^';"]*)'""", disposition):
        _check_name(charset)
    if _is_file(head):
        return
    _check_type(head.get(b"content-type", b""))
    encoding = head.get(b"content-transfer-encoding", b"binary").decode("latin-1").strip().lower()
    if encoding not in PLAIN:
        raise BadCharset(f"A text has the transfer encoding {encoding[:40]!r}; send it as it is, in utf-8.")
    _check_bytes(text, "A text of the form")
    if parse_options_header(disposition)[1].get(b"name") == b"_charset_":
        _check_name(text)


def _check_type(value: bytes) -> None:
    options = parse_options_header(value)[1]
    if b"charset" in options:
        _check_name(options[b"charset"])


def _check_name(charset: bytes) -> None:
    name = charset.decode("latin-1").strip().lower()
    if name not in UTF8:
        raise BadCharset(f"The texts are in the charset {name[:40]!r}; send them in utf-8.")


def _check_bytes(text: bytes, what: str) -> None:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = f"0x{text[error.start]:02X}"
        raise BadCharset(f"{what} is not in UTF-8 (byte {byte} at {error.start}); send texts in utf-8.") from None
    if b"\0" in text:
        raise BadCharset(f"{what} has a zero byte, as in UTF-16; send texts in utf-8.")


def _is_file(head: Mapping[bytes, bytes]) -> bool:
    return b"filename" in head.get(b"content-disposition", b"")


def _parts(body: bytes, boundary: bytes) -> list[tuple[dict[bytes, bytes], bytearray]]:
    """Returns the headers of each part of a form, and its text, empty for a file."""
    parts: list[tuple[dict[bytes, bytes], bytearray]] = []
    name, value = bytearray(), bytearray()

    def begin() -> None:
        if len(parts) >= MOST:
            raise FormParserError
        parts.append(({}, bytearray()))

    def add_name(data: bytes, start: int, end: int) -> None:
        name.extend(data[start:end])

    def add_value(data: bytes, start: int, end: int) -> None:
        value.extend(data[start:end])

    def end_header() -> None:
        parts[-1][0][bytes(name).lower()] = bytes(value)
        name.clear()
        value.clear()

    def add_data(data: bytes, start: int, end: int) -> None:
        if not _is_file(parts[-1][0]):
            parts[-1][1].extend(data[start:end])

    MultipartParser(boundary, {
        "on_part_begin": begin, "on_header_field": add_name, "on_header_value": add_value, "on_header_end": end_header,
        "on_part_data": add_data,
    }).write(body)  # fmt: skip
    return parts
