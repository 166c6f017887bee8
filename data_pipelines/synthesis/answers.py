"""Every answer, kept in SQLite under the hash of its question: a run that goes on pays for nothing twice.

Any number of threads and processes of one machine may use a file: it is written ahead (WAL), and whoever asks a
question holds a lock on it, which the system takes from a process that dies.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from contextjax.types import UserError
from data_pipelines.synthesis.drafts import Reply

_TABLE = """CREATE TABLE IF NOT EXISTS answers (
  key TEXT PRIMARY KEY, model TEXT NOT NULL, prompt TEXT NOT NULL, text TEXT NOT NULL, refused TEXT NOT NULL,
  tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL, run TEXT NOT NULL,
  asked_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP)"""
GRAMMAR = "grammar"  # the run of what a grammar checker has answered, which is no model
_COLUMNS = ", ".join(field.name for field in dataclasses.fields(Reply))


class Answers:
    """The file of answers. Opened by each thread for itself; pickled as its path."""

    def __init__(self, path: Path):
        """Raises UserError: the file can't be written, or is no such file."""
        self.path = path
        self._own = threading.local()
        with self._connected():
            pass

    def get(self, key: str) -> Reply | None:
        """The answer to a question, or None."""
        with self._connected() as database:
            row = database.execute(f"SELECT {_COLUMNS} FROM answers WHERE key = ?", (key,)).fetchone()
        return Reply(*row) if row else None

    def put(self, reply: Reply, *, run: str) -> None:
        """Keeps an answer, and the run that asked for it: when this returns, no kill loses it."""
        values = (*dataclasses.astuple(reply), run)
        with self._connected() as database:
            places = ", ".join("?" * len(values))
            database.execute(f"INSERT OR IGNORE INTO answers ({_COLUMNS}, run) VALUES ({places})", values)

    def asked_by(self, run: str | None) -> dict[str, dict[str, float]]:
        """Prompt -> how much a run (None: all of them) has asked: asked, refused, tokens_in, tokens_out."""
        query = """SELECT prompt, COUNT(*), SUM(refused != ''), SUM(tokens_in), SUM(tokens_out) FROM answers
            WHERE run = ? OR (? IS NULL AND run != ?) GROUP BY prompt"""
        names = ("asked", "refused", "tokens_in", "tokens_out")
        with self._connected() as database:
            return {
                prompt: dict(zip(names, counts, strict=True))
                for prompt, *counts in database.execute(query, (run, run, GRAMMAR))
            }

    def mean_tokens(self, prompt: str) -> tuple[float, float] | None:
        """Mean tokens of a prompt's questions and answers so far; None where none was counted."""
        with self._connected() as database:
            query = "SELECT AVG(tokens_in), AVG(tokens_out) FROM answers WHERE prompt = ? AND tokens_in > 0"
            found = database.execute(query, (prompt,)).fetchone()
        return None if found[0] is None else (found[0], found[1])

    def __len__(self) -> int:
        with self._connected() as database:
            return database.execute("SELECT COUNT(*) FROM answers").fetchone()[0]

    @contextlib.contextmanager
    def asking(self, key: str) -> Iterator[None]:
        """One thread of one process at a time asks this question (or one of the few that share its lock)."""
        folder = self.path.with_name(self.path.name + ".locks")
        try:
            folder.mkdir(exist_ok=True)
            file = (folder / key[:3]).open("a")
        except OSError as error:
            raise self._failed(error) from error
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        try:
            if not hasattr(self._own, "database"):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                database = sqlite3.connect(self.path, timeout=60, isolation_level=None)  # each statement is committed
                database.execute("PRAGMA journal_mode=WAL")
                database.execute("PRAGMA synchronous=NORMAL")
                database.execute(_TABLE)
                self._own.database = database
            yield self._own.database
        except (OSError, sqlite3.Error) as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> UserError:
        return UserError(
            f"The answers can't be kept in {self.path} ({error}); make room for it, or give a file of answers that can "
            "be written to: what was answered so far is kept."
        )

    def __reduce__(self):
        return Answers, (self.path,)
