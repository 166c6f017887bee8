"""Findings of a LanguageTool server in a text (its HTTP interface, /v2/check), each text asked about once."""

from __future__ import annotations

import hashlib
import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from contextjax.json_files import parse_json
from contextjax.types import UserError
from data_pipelines.chat.answers import GRAMMAR, AnswerCache
from data_pipelines.chat.questions import Reply

MAX_BYTES = 1_000_000  # of a server's answer
TIMEOUT = 30.0  # seconds
TRIES = 8  # of a text where the server fails; the waits between them double from a second to a minute


class _Busy(Exception):
    """The server may answer a little later."""


class LanguageTool:
    """Returns the first finding in a text and the number of findings, or "" where there is none."""

    def __init__(self, address: str, cache: AnswerCache, *, language: str = "en-US"):
        """Takes the server's address, as http://localhost:8081. Raises UserError: it is no such address."""
        check_address(address)
        self._address, self._cache, self._language = address.rstrip("/"), cache, language

    def __call__(self, text: str) -> str:
        """Checks a text. Raises UserError: the server is unavailable, or refuses the request."""
        content = json.dumps(["languagetool", self._language, text])
        key = hashlib.blake2b(content.encode(), digest_size=16).hexdigest()
        return self._cache.get_or_ask(key, lambda: self._ask(key, text), run=GRAMMAR).text

    def _ask(self, key: str, text: str) -> Reply:
        for number in range(TRIES):
            try:
                matches = self._check(text)
                break
            except _Busy as error:
                if number + 1 == TRIES:
                    raise UserError(
                        f"LanguageTool at {self._address} failed {TRIES} times ({error}); the same command continues "
                        "where it stopped, since answers are kept."
                    ) from error
                time.sleep(min(60, 2**number))
        else:
            raise AssertionError("unreachable")
        why = f"{matches[0]} ({len(matches)} finding{'s' * (len(matches) > 1)})" if matches else ""
        return Reply(key, "LanguageTool", f"grammar:{self._language}", why)

    def _check(self, text: str) -> list[str]:
        data = urllib.parse.urlencode({"text": text, "language": self._language}).encode()
        try:
            with urllib.request.urlopen(f"{self._address}/v2/check", data, timeout=TIMEOUT) as response:
                body: Any = parse_json(response.read(MAX_BYTES))
            return [str(match.get("message", "a finding"))[:120] for match in body["matches"]]
        except urllib.error.HTTPError as error:
            if error.code in (408, 429) or error.code >= 500:
                raise _Busy(f"status {error.code}") from error
            raise UserError(
                f"LanguageTool at {self._address} answers with status {error.code}; check --grammar and --language."
            ) from error
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, AttributeError) as error:
            raise _Busy(str(error)) from error


def check_address(address: str) -> None:
    """Checks the address of a server.

    Raises:
      UserError: it is no address, or has a password in it, which pages would show.
    """
    expected = "expected the address of a LanguageTool server, as http://HOST:8081"
    if "@" in address:
        raise UserError(f"--grammar has a name or password in it; {expected}, of one that asks for none.")
    if not is_address(address):
        raise UserError(f"--grammar is '{address}'; {expected}.")


def is_address(text: str) -> bool:
    """Returns whether a text is the address of a server, as http://HOST:8000/v1."""
    try:
        parsed = urllib.parse.urlsplit(text)
        named = parsed.scheme in ("http", "https") and bool(parsed.hostname) and parsed.port != 0
    except ValueError:  # a port that is no number
        return False
    return named and text.isascii() and text.isprintable() and " " not in text
