"""The file of answers: shared by threads and processes, whole after kills, honest when the disk is full."""

import multiprocessing
import pickle
import sqlite3
import threading
import time

import pytest

from contextjax.types import UserError
from data_pipelines.chat.answers import AnswerCache, Asker
from data_pipelines.chat.questions import Prompt, Question, Reply


def reply(key, text="text"):
    return Reply(key, "m", "p.v1:0", text, "", 3, 4)


class Slow:
    """A model that writes down what it is asked, and takes its time."""

    name, settings = "slow", {}

    def __init__(self, log):
        self.log = log

    def answer(self, question):
        with self.log.open("a") as file:
            file.write(question.text + "\n")
        time.sleep(0.03)
        return Reply(question.key(self), self.name, question.prompt.id, question.text.upper())


def ask_all(path, log, names):
    asker = Asker(Slow(log), AnswerCache(path), run=f"run {threading.get_ident()}")
    for name in names:
        found = asker(Question(Prompt("difference", "v1", "$count"), (("count", name),)))
        assert found.text == name.upper()


def test_what_was_kept_is_there_and_the_first_answer_stays(tmp_path):
    answers = AnswerCache(tmp_path / "sub" / "answers.sqlite")
    answers.put(reply("a", "a 'quoted' \x00 \N{SNOWMAN}"), run="one")
    answers.put(reply("a", "another"), run="two")
    assert answers.get("a") == reply("a", "a 'quoted' \x00 \N{SNOWMAN}") and answers.get("b") is None
    assert pickle.loads(pickle.dumps(answers)).get("a") == answers.get("a")
    assert answers.asked_by("one") == {"p.v1:0": {"asked": 1, "refused": 0, "tokens_in": 3, "tokens_out": 4}}
    assert answers.asked_by("two") == {}
    answers.put(reply("c"), run="two")
    assert answers.asked_by(None) == {"p.v1:0": {"asked": 2, "refused": 0, "tokens_in": 6, "tokens_out": 8}}
    assert answers.mean_tokens("p.v1:0") == (3, 4) and answers.mean_tokens("other") is None


def test_several_processes_and_threads_ask_each_question_once(tmp_path):
    path, log = tmp_path / "answers.sqlite", tmp_path / "log"
    names = [f"question {i}" for i in range(12)]
    AnswerCache(path)
    spawn = multiprocessing.get_context("fork")
    workers = [spawn.Process(target=ask_all, args=(path, log, names[i:] + names[:i])) for i in (0, 4, 8)]
    workers += [threading.Thread(target=ask_all, args=(path, log, names[::-1])) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(getattr(worker, "exitcode", 0) == 0 for worker in workers)
    assert sorted(log.read_text().splitlines()) == sorted(names)
    assert len(AnswerCache(path)) == len(names)


def test_a_full_disk_is_reported_and_what_was_kept_stays(tmp_path):
    answers = AnswerCache(tmp_path / "answers.sqlite")
    answers.put(reply("a"), run="x")
    with answers._connected() as database:  # SQLite's own way to run out of room, with the error of a full disk
        pages = database.execute("PRAGMA page_count").fetchone()[0]
        database.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(UserError, match=r"can't be kept in .*full.*make room"):
        for number in range(1000):
            answers.put(reply(f"k{number}", "x" * 4000), run="x")
    assert AnswerCache(answers.path).get("a") == reply("a")


def test_a_file_that_is_no_cache_is_reported(tmp_path):
    (tmp_path / "answers.sqlite").write_text("no database" * 100)
    with pytest.raises(UserError, match="can't be kept"):
        AnswerCache(tmp_path / "answers.sqlite")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't be kept"):
        AnswerCache(tmp_path / "file" / "answers.sqlite")


def test_it_is_written_ahead(tmp_path):
    answers = AnswerCache(tmp_path / "answers.sqlite")
    answers.put(reply("a"), run="x")
    with sqlite3.connect(answers.path) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_file_of_an_earlier_version_gets_the_columns_that_it_lacks(tmp_path):
    path = tmp_path / "answers.sqlite"
    with sqlite3.connect(path) as database:
        database.execute(
            "CREATE TABLE answers (key TEXT PRIMARY KEY, model TEXT NOT NULL, prompt TEXT NOT NULL, "
            "text TEXT NOT NULL, refused TEXT NOT NULL, tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL, "
            "run TEXT NOT NULL, "
            "asked_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP)"
        )
        database.execute("INSERT INTO answers VALUES ('k', 'm', 'p', 'kept', '', 1, 2, 'r', 'then')")
    cache = AnswerCache(path)
    assert cache.get("k") == Reply("k", "m", "p", "kept", "", 1, 2)
    new = Reply("l", "m", "p", "new", served="m-2026", odds="[]")
    cache.put(new, run="r")
    assert AnswerCache(path).get("l") == new
