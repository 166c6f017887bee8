"""Asks each question once: answers are kept in SQLite under the hash of their question, before they are used.

Any number of threads and processes of one machine may share a cache. The database has a write-ahead log. A question is
asked under a file lock, which the operating system releases when a process dies.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from contextjax.types import UserError
from data_pipelines.chat.questions import Model, Question, Reply

_TABLE = """CREATE TABLE IF NOT EXISTS answers (
  key TEXT PRIMARY KEY, model TEXT NOT NULL, prompt TEXT NOT NULL, text TEXT NOT NULL, refused TEXT NOT NULL,
  tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL, run TEXT NOT NULL,
  asked_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
  served TEXT NOT NULL DEFAULT '', odds TEXT NOT NULL DEFAULT '')"""
_LATER = ("served", "odds")  # columns that files of earlier versions lack
GRAMMAR = "grammar"  # the run of a grammar checker's answers, which cost no tokens
_COLUMNS = ", ".join(field.name for field in dataclasses.fields(Reply))


class AnswerCache:
    """A file of answers. Each thread opens it for itself; a pickled cache is its path."""

    def __init__(self, path: Path):
        """Raises UserError: the file can't be written, or is not a file of answers."""
        self.path = path
        self._own = threading.local()
        with self._connected():
            pass

    def get(self, key: str) -> Reply | None:
        """Returns the answer to a question, or None."""
        with self._connected() as database:
            row = database.execute(f"SELECT {_COLUMNS} FROM answers WHERE key = ?", (key,)).fetchone()
        return Reply(*row) if row else None

    def put(self, reply: Reply, *, run: str) -> None:
        """Keeps an answer, and the run that asked for it. Once this returns, no kill loses the answer."""
        values = (*dataclasses.astuple(reply), run)
        with self._connected() as database:
            places = ", ".join("?" * len(values))
            database.execute(f"INSERT OR IGNORE INTO answers ({_COLUMNS}, run) VALUES ({places})", values)

    def get_or_ask(self, key: str, ask: Callable[[], Reply], *, run: str) -> Reply:
        """Returns the kept answer, or asks and keeps it. Only one thread of one process asks the same question."""
        if reply := self.get(key):
            return reply
        with self._locked(key):
            reply = self.get(key)  # another one may have asked meanwhile
            if reply is None:
                reply = ask()
                self.put(reply, run=run)
        return reply

    def asked_by(self, run: str | None) -> dict[str, dict[str, float]]:
        """Counts what a run (None: all runs) has asked: prompt -> asked, refused, tokens_in, tokens_out."""
        query = """SELECT prompt, COUNT(*), SUM(refused != ''), SUM(tokens_in), SUM(tokens_out) FROM answers
            WHERE run = ? OR (? IS NULL AND run != ?) GROUP BY prompt"""
        names = ("asked", "refused", "tokens_in", "tokens_out")
        with self._connected() as database:
            return {
                prompt: dict(zip(names, counts, strict=True))
                for prompt, *counts in database.execute(query, (run, run, GRAMMAR))
            }

    def mean_tokens(self, prompt: str) -> tuple[float, float] | None:
        """Returns the mean tokens of a prompt's questions and answers so far; None where none were counted."""
        with self._connected() as database:
            query = "SELECT AVG(tokens_in), AVG(tokens_out) FROM answers WHERE prompt = ? AND tokens_in > 0"
            means = database.execute(query, (prompt,)).fetchone()
        return None if means[0] is None else (means[0], means[1])

    def __len__(self) -> int:
        with self._connected() as database:
            return database.execute("SELECT COUNT(*) FROM answers").fetchone()[0]

    @contextlib.contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        """Holds the lock of a question, which a few other questions share."""
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
                _add_columns(database)
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
        return AnswerCache, (self.path,)


def _add_columns(database: sqlite3.Connection) -> None:
    """Adds the columns that a file of an earlier version lacks; another process may do so at the same time."""
    missing = set(_LATER) - {row[1] for row in database.execute("PRAGMA table_info(answers)")}
    for name in sorted(missing):
        try:
            database.execute(f"ALTER TABLE answers ADD COLUMN {name} TEXT NOT NULL DEFAULT ''")
        except sqlite3.OperationalError as error:
            if "duplicate column" not in str(error):
                raise


@dataclasses.dataclass(frozen=True)
class Asker:
    """Answers questions from the cache, or else by a model. Questions are counted under the name of the run."""

    model: Model
    cache: AnswerCache
    run: str

    def __call__(self, question: Question) -> Reply:
        """Returns the kept answer, or the model's. Raises what the model raises."""
        return self.cache.get_or_ask(question.key(self.model), lambda: self.model.answer(question), run=self.run)
