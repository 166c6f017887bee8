"""A judge's settings: every field is a flag, and the models that they make are asked for what is of use."""

import dataclasses

import pytest

from contextjax.types import UserError
from data_pipelines.chat.batches import BatchModel
from data_pipelines.chat.local import LocalModel
from experiments.shared.judge_settings import JudgeSettings, make_model
from tests.commands import in_process

GIVEN = {"judge": "openai", "model": "m", "address": "http://localhost:1/v1"}


def test_every_field_is_a_flag_with_its_sentence():
    done = in_process("evaluate", "--help")
    for field in dataclasses.fields(JudgeSettings):
        assert f"--{field.name}:" in done.stdout or f"--[no]{field.name}:" in done.stdout
    done = in_process("evaluate", "--judge=magic")
    assert done.returncode == 2 and "openai|transformers" in done.stderr


def test_an_answer_is_as_long_as_what_is_asked_for():
    length = lambda model: model.body["max_completion_tokens"]
    settings = JudgeSettings(**GIVEN)
    assert length(make_model(settings, candidates=0, gives_odds=True)) == 20
    assert length(make_model(settings, candidates=20, gives_odds=False)) == 116
    longer = dataclasses.replace(settings, answer_tokens=4000)
    assert length(make_model(longer, candidates=20, gives_odds=False)) == 4000


def test_log_probabilities_are_asked_for_where_they_are_of_use():
    asks = lambda settings, odds: "logprobs" in make_model(settings, candidates=0, gives_odds=odds).body
    settings = JudgeSettings(**GIVEN)
    assert asks(settings, True) and not asks(settings, False)
    assert not asks(dataclasses.replace(settings, logprobs=False), True)
    local = make_model(dataclasses.replace(settings, judge="transformers"), candidates=0, gives_odds=True)
    assert isinstance(local, LocalModel) and local.settings == {"answer_tokens": 20, "side": 768, "odds": 20}


def test_a_batch_is_asked_by_files_with_the_same_keys(tmp_path):
    settings = JudgeSettings(**GIVEN, batch=str(tmp_path))
    model = make_model(settings, candidates=0, gives_odds=True)
    at_once = make_model(JudgeSettings(**GIVEN), candidates=0, gives_odds=True)
    assert isinstance(model, BatchModel) and model.settings == at_once.settings


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model": None}, "--judge=openai needs the name of a model"),
        ({"judge": "transformers", "batch": "x"}, "--batch is for --judge=openai"),
        ({"records": 2, "seeds": ("1", "1")}, "--seeds is '1,1'; expected different whole numbers"),
        ({"records": 2, "seeds": ("-1",)}, "--seeds is '-1'"),
        ({"seeds": ("1", "2")}, "give --records=N, too"),
        ({"verify": True, "orders": 2}, "--orders are of several candidates"),
        ({"rerank": 1}, "--rerank is 1, and one candidate needs no judge"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        JudgeSettings(**{**GIVEN, **changes})
