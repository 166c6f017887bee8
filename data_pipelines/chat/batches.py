"""Questions as batch files of OpenAI's layout, and their answers: cheaper where nobody waits.

A run takes each pair as far as there are answers, and writes the questions that it would have asked next:
  FOLDER/requests-0001.jsonl    {"custom_id", "method", "url", "body"}: hand it to the endpoint as a batch
  FOLDER/answers/*.jsonl        put what comes back here (outputs and errors), under any name, and run again
"""

from __future__ import annotations

import collections
import json
import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from contextjax.files import write_whole
from contextjax.json_files import check_file
from contextjax.types import UserError
from data_pipelines.chat.endpoint import BODY, SIDE, chat_request, is_refusal, read_body, read_completion
from data_pipelines.chat.questions import Question, Reply, Waiting

MAX_REQUESTS, MAX_BYTES = 50_000, 190_000_000  # the hosted endpoint's limits for a file
MAX_FILE = 4_000_000_000
_ASKED = re.compile(r'\{"custom_id": "([0-9a-f]{32})"')  # as `answer` writes it


class BatchModel:
    """A model that is asked by files. Its answers are kept under the keys of ChatModel: either can continue a run."""

    def __init__(self, name: str, folder: Path, *, body: Mapping[str, Any] | None = None, side: int = SIDE):
        """Reads the questions and answers of earlier runs.

        Raises:
          UserError: a file can't be read.
        """
        self.name, self.folder, self.side = name, folder, side
        self.body = dict(BODY if body is None else body)
        self.settings: Mapping[str, Any] = {"body": self.body, "side": side}
        self.malformed = 0  # lines of answers
        self._answered: dict[str, Any] = {}  # key -> body
        self._failed: dict[str, set[str]] = {}  # key -> the failures of its requests
        self._lock = threading.Lock()
        self._new: dict[str, int] = {}  # key -> bytes of its line
        self._writer: Any = None
        for line in _lines(sorted((folder / "answers").glob("*.jsonl"))):
            self._take(line)
        asked = map(_ASKED.match, _lines(sorted(folder.glob("requests-*.jsonl"))))  # their pictures are not parsed
        self._asked = collections.Counter(match[1] for match in asked if match)

    @property
    def waiting(self) -> int:
        """The number of questions of earlier files that have no answer."""
        return sum(map(self._is_asked, self._asked.keys() - self._answered.keys()))

    def _is_asked(self, key: str) -> bool:
        """Returns whether a question is under way: it was asked more often than it failed."""
        return self._asked[key] > len(self._failed.get(key, ()))

    def answer(self, question: Question) -> Reply:
        """Returns the answer of a file, or notes the question and raises Waiting."""
        key = question.key(self)
        if key in self._answered:
            return read_completion(self._answered[key], key, self.name, question.prompt.id)
        with self._lock:
            if not self._is_asked(key) and key not in self._new:
                line = {"custom_id": key, "method": "POST", "url": "/v1/chat/completions"}
                line["body"] = chat_request(self, question)  # type: ignore[assignment]
                self._new[key] = self._note(json.dumps(line) + "\n")
        raise Waiting

    def write(self) -> list[Path]:
        """Writes the new questions; returns the files."""
        if not self._writer:
            return []
        self._writer.close()
        self._writer = None
        numbers = (path.stem.removeprefix("requests-") for path in self.folder.glob("requests-*.jsonl"))
        number = max((int(number) for number in numbers if number.isdecimal()), default=0)
        files, lines, size = [], [], 0
        try:
            with self._draft.open(encoding="utf-8") as noted:
                for line in noted:
                    if lines and (len(lines) == MAX_REQUESTS or size + len(line) > MAX_BYTES):
                        files.append(self._write_file(number + len(files) + 1, lines))
                        lines, size = [], 0
                    lines.append(line)
                    size += len(line)
            files.append(self._write_file(number + len(files) + 1, lines))
            self._draft.unlink()
        except OSError as error:
            raise self._unwritable(error) from error
        return files

    @property
    def _draft(self) -> Path:
        return self.folder / ".requests.partial"

    def _note(self, line: str) -> int:
        """Appends a question to a draft file, since pictures are too large to be held; returns its number of bytes."""
        try:
            if not self._writer:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._writer = self._draft.open("w", encoding="utf-8")
            return self._writer.write(line)
        except OSError as error:
            raise self._unwritable(error) from error

    def _write_file(self, number: int, lines: list[str]) -> Path:
        path = self.folder / f"requests-{number:04}.jsonl"
        write_whole(path, "".join(lines))
        return path

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(f"{self.folder} can't be written ({error}); make room for it and run again.")

    def _take(self, line: str) -> None:
        """Takes a line of an answers' file: a completion, a refusal, or a failure, which is asked again."""
        try:
            row = read_body(line)
        except ValueError:
            row = None
        key = str(row.get("custom_id")) if isinstance(row, dict) else ""
        if not isinstance(row, dict) or not re.fullmatch("[0-9a-f]{32}", key):
            self.malformed += 1
            return
        response = row.get("response")
        response = response if isinstance(response, dict) else {}
        status, body = response.get("status_code"), response.get("body")
        if status == 200:
            self._answered[key] = body
        elif is_refusal(status, why := " ".join(f"{status}: {body}".split())[:300]):
            self._answered.setdefault(key, {"refusal": why})
        else:
            self._failed.setdefault(key, set()).add(str(row.get("id")))


def _lines(files: list[Path]) -> Iterator[str]:
    for path in files:
        try:
            check_file(path, limit=MAX_FILE)
            with path.open(encoding="utf-8", errors="replace") as file:
                yield from filter(str.strip, file)
        except OSError as error:
            raise UserError(f"{path} can't be read ({error}); check the folder of --batch.") from error
