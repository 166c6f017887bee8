"""Shared by the commands that ask chat models: request bodies, addresses, the log of spending, progress."""

import json

import pytest

from contextjax.types import UserError
from data_pipelines.chat.answers import AnswerCache
from data_pipelines.chat.costs import Prices
from data_pipelines.chat.questions import Reply
from experiments.shared import chat_settings
from experiments.shared.chat_settings import ChatSettings, chat_maker, log_spending, request_body, with_progress


def test_a_request_has_the_given_fields_instead_of_ours():
    assert request_body(ChatSettings(), answer_tokens=7, logprobs=True) == {
        "temperature": 0, "max_completion_tokens": 7, "logprobs": True,
    }  # fmt: skip
    assert request_body(ChatSettings(request='{"top_p": 1}'), answer_tokens=7, logprobs=True) == {"top_p": 1}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"address": "localhost"}, "--address is 'localhost'; expected the address"),
        ({"address": "http://me:secret@host/v1"}, "goes not in --address but in the environment"),
        ({"request": "{"}, "--request is no JSON"),
        ({"request": "[1]"}, "--request is to be a JSON object"),
        ({"request": '{"messages": []}'}, "model, messages, .* are not given there"),
    ],
)
def test_settings_that_are_wrong_are_one_sentence(changes, sentence):
    settings = ChatSettings(**changes)
    with pytest.raises(UserError, match=sentence):
        chat_maker(settings, request_body(settings, answer_tokens=7))


def test_spending_is_a_line_of_its_own_after_a_cut_one(tmp_path, capsys):
    cache, log = AnswerCache(tmp_path / "answers.sqlite"), tmp_path / "spending.jsonl"
    options = {"run": "r", "prices": Prices(1.0, 0.0), "facts": {"finished": True}}
    log_spending(log, cache, **options, is_empty_logged=False)
    assert not log.exists() and not capsys.readouterr().out
    cache.put(Reply("k", "m", "p", "text", tokens_in=2_000_000), run="r")
    log.write_text('{"cut')
    log_spending(log, cache, **options, is_empty_logged=False)
    line = json.loads(log.read_text().splitlines()[1])
    assert line["cost"] == 2 == line["total"]["cost"] and line["finished"]
    assert "p: 1 asked" in capsys.readouterr().out


def test_progress_is_a_line_a_minute_where_there_is_no_terminal(monkeypatch, capsys):
    monkeypatch.setattr(chat_settings, "QUIET", -1)
    assert list(with_progress("ab", 2, "record")) == ["a", "b"]
    assert capsys.readouterr().out == "1 of 2 records\n2 of 2 records\n"
