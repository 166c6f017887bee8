"""Costs are tokens times prices; a forecast counts each question once and asks nothing."""

import pytest

from data_pipelines.chat.answers import AnswerCache, Asker
from data_pipelines.chat.costs import ForecastAsker, Prices, Spending, Tally
from data_pipelines.chat.questions import Prompt, Question, Reply
from tests.data_pipelines.synthesis.conftest import Says

COUNTS = {
    "a": {"asked": 2, "refused": 1, "tokens_in": 3_000_000, "tokens_out": 10},
    "b": {"asked": 1, "refused": 0, "tokens_in": 0, "tokens_out": 500_000},
}


def test_costs_are_tokens_times_prices():
    spending = Spending(COUNTS, Prices(2.0, 8.0))
    assert spending.cost == pytest.approx(2 * 3 + 8 * 0.50001) == spending.to_json()["cost"]
    assert spending.summary() == "3 asked; 3,000,000 tokens in, 500,010 out; cost 10.00"
    assert [line.partition(":")[0] for line in spending.lines()] == ["a", "b", "Cost"]
    assert "cost" not in Spending(COUNTS, Prices()).summary()
    assert Spending({}, Prices()).lines() == ["No answer was new."]


def test_a_forecast_counts_each_question_once_with_the_tokens_of_kept_answers(tmp_path):
    cache, model = AnswerCache(tmp_path / "answers.sqlite"), Says(lambda question: pytest.fail("it was asked"))
    prompt = Prompt("difference", "v1", "$count")
    first, second = (Question(prompt, (("count", name),)) for name in ("one", "two"))
    forecast = ForecastAsker(model, cache, stand_in=lambda question, key: key, picture_tokens=9, answer_tokens=7)
    assert forecast(first).text == first.key(model) == forecast(first).text
    assert dict(forecast.counts[prompt.id]) == {"asked": 1, "kept": 0, "tokens_in": 0, "tokens_out": 7}
    kept = Reply(second.key(model), model.name, prompt.id, "kept", "", 30, 40)
    cache.put(kept, run="before")
    forecast = ForecastAsker(model, cache, stand_in=lambda question, key: key, picture_tokens=9, answer_tokens=7)
    assert forecast(second) == kept and not forecast(first).tokens_in
    assert dict(forecast.counts[prompt.id]) == {"asked": 1, "kept": 1, "tokens_in": 30, "tokens_out": 40}


def test_a_tally_counts_each_answer_once_whether_it_is_new_or_kept(tmp_path):
    cache, model = AnswerCache(tmp_path / "answers.sqlite"), Says(lambda question: "yes")
    question = Question(Prompt("a", "v1", "text"))
    for run in ("first", "second"):
        tally = Tally(Asker(model, cache, run))
        assert tally(question) == tally(question)
        count = tally.count()
        assert (count["answers"], count["tokens_in"], count["tokens_out"], count["served_as"]) == (1, 10, 5, [])
        assert count["prompts"] == [question.prompt.id]
    assert len(model.asked) == 1
