"""LanguageTool's interface: findings remove, each text is asked about once, a server that fails is waited for."""

import contextlib
import http.server
import json
import threading
import urllib.parse

import pytest

from contextjax.types import UserError
from data_pipelines.chat.answers import AnswerCache
from data_pipelines.synthesis import grammar
from data_pipelines.synthesis.grammar import LanguageTool
from data_pipelines.synthesis.pipeline import run_pipeline
from tests.commands import replace_clock
from tests.data_pipelines.synthesis.conftest import saying


@contextlib.contextmanager
def language_tool(faults=()):
    """A server that finds something in every text with "dogs"; its address, and the texts it was asked about."""
    asked, left = [], list(faults)

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

        def do_POST(self):
            form = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            asked.append((self.path, form["text"][0], form["language"][0]))
            found = [{"message": "Did you mean 'dog'?", "offset": 0}] * form["text"][0].count("dogs")
            status, body = left.pop(0) if left else (200, json.dumps({"matches": found}))
            self.send_response(status)
            if body is None:
                self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write((body or "[").encode())

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def test_texts_with_findings_are_removed_and_each_is_asked_about_once(make_pipeline, pairs):
    with language_tool() as (address, asked):
        pipeline = make_pipeline(
            saying("Add a dogs & dogs.", "Add 1 dog + \N{SNOWMAN}."), grammar=address, language="en-GB"
        )
        drafts = list(run_pipeline(pairs[2:], pipeline))
        assert list(run_pipeline(pairs[2:], pipeline)) == drafts
    bad = drafts[0].sentences[0]
    assert (bad.removed_by, bad.why) == ("grammar", "Did you mean 'dog'? (2 findings)")
    assert drafts[0].kept[0].passed[-2:] == ("grammar", "ambiguous")
    assert asked == [("/v2/check", text, "en-GB") for text in ("Add a dogs & dogs.", "Add 1 dog + \N{SNOWMAN}.")]


@pytest.mark.parametrize("fault", [(500, ""), (429, ""), (200, "<html>"), (200, "[]"), (200, '{"matches": 3}')])
def test_a_server_that_fails_is_asked_again(fault, tmp_path, monkeypatch):
    replace_clock(monkeypatch, grammar, sleep=lambda seconds: None)
    with language_tool([fault, fault]) as (address, asked):
        check = LanguageTool(address, AnswerCache(tmp_path / "answers.sqlite"))
        assert check("a dog") == "" and len(asked) == 3


def test_one_that_refuses_or_is_not_there_is_reported(tmp_path, monkeypatch):
    replace_clock(monkeypatch, grammar, sleep=lambda seconds: None)
    answers = AnswerCache(tmp_path / "answers.sqlite")
    with language_tool([(400, "unknown language")]) as (address, asked):
        with pytest.raises(UserError, match="status 400; check --grammar and --language"):
            LanguageTool(address, answers, language="xx")("a dog")
        assert len(asked) == 1
    with pytest.raises(UserError, match="failed 8 times"):
        LanguageTool("http://127.0.0.1:9", answers)("a dog")
    assert len(answers) == 0


@pytest.mark.parametrize(
    "address", ["file:///etc/passwd", "http://host:port", "http://", "http://a b", "http://[", "http://me:secret@host"]
)
def test_what_is_no_address_is_refused_at_once(address, tmp_path):
    with pytest.raises(UserError, match="expected the address") as caught:
        LanguageTool(address, AnswerCache(tmp_path / "answers.sqlite"))
    assert "secret" not in str(caught.value)


def test_an_answer_that_is_cut_is_asked_for_again(tmp_path, monkeypatch):
    replace_clock(monkeypatch, grammar, sleep=lambda seconds: None)
    with language_tool([(200, None)]) as (address, asked):
        assert LanguageTool(address, AnswerCache(tmp_path / "answers.sqlite"))("a dog") == "" and len(asked) == 2
