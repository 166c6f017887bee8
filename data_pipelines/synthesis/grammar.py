"""Findings of a LanguageTool server in a text (its HTTP interface, /v2/check), each text asked about once."""

from __future__ import annotations

import hashlib
import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from contextjax.json_files import parse_json
from contextjax.types import UserError
from data_pipelines.synthesis.answers import GRAMMAR, Answers
from data_pipelines.synthesis.drafts import Reply
from data_pipelines.synthesis.retries import Retry, with_retries

MAX_BYTES = 1_000_000  # of a server's answer
TIMEOUT = 30.0  # seconds


class LanguageTool:
    """Text -> what is wrong with it, or ""."""

    def __init__(self, address: str, answers: Answers, *, language: str = "en-US"):
        """`address`: of the server, as http://localhost:8081.

        Raises:
          UserError: it is no address of the web.
        """
        check_address(address)
        self._address, self._answers, self._language = address.rstrip("/"), answers, language

    def __call__(self, text: str) -> str:
        """The first finding in words, and how many there are; "" where there is none."""
        content = json.dumps(["languagetool", self._language, text])
        key = hashlib.blake2b(content.encode(), digest_size=16).hexdigest()
        found = self._answers.get(key)
        if found is None:
            with self._answers.asking(key):
                found = self._answers.get(key) or self._ask(key, text)
        return found.text

    def _ask(self, key: str, text: str) -> Reply:
        matches = with_retries(lambda: self._check(text), what=f"LanguageTool at {self._address}")
        why = f"{matches[0]} ({len(matches)} finding{'s' * (len(matches) > 1)})" if matches else ""
        reply = Reply(key, "LanguageTool", f"grammar:{self._language}", why)
        self._answers.put(reply, run=GRAMMAR)
        return reply

    def _check(self, text: str) -> list[str]:
        data = urllib.parse.urlencode({"text": text, "language": self._language}).encode()
        try:
            with urllib.request.urlopen(f"{self._address}/v2/check", data, timeout=TIMEOUT) as response:
                found: Any = parse_json(response.read(MAX_BYTES))
            return [str(match.get("message", "a finding"))[:120] for match in found["matches"]]
        except urllib.error.HTTPError as error:
            if error.code in (408, 429) or error.code >= 500:
                raise Retry(f"status {error.code}") from error
            raise UserError(
                f"LanguageTool at {self._address} answers with status {error.code}; check --grammar and --language."
            ) from error
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, AttributeError) as error:
            raise Retry(str(error)) from error


def check_address(address: str) -> None:
    """Raises UserError where a text is no address of a server, or has a password in it, which pages would show."""
    expected = "expected the address of a LanguageTool server, as http://HOST:8081"
    if "@" in address:
        raise UserError(f"--grammar has a name or password in it; {expected}, of one that asks for none.")
    try:
        found = urllib.parse.urlsplit(address)
        sound = found.scheme in ("http", "https") and bool(found.hostname) and found.port != 0
    except ValueError:  # a port that is no number
        sound = False
    if not sound or not address.isascii() or not address.isprintable() or " " in address:
        raise UserError(f"--grammar is '{address}'; {expected}.")
