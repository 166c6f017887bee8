"""Answers become scores; what is no answer to the question is never one."""

import json
import math

import numpy as np
import pytest

from data_pipelines.chat.questions import NoAnswer, Reply
from data_pipelines.judge.verdicts import number_probabilities, read_choice, read_order, read_verification


def reply(text, odds=None):
    return Reply("k", "m", "p", text, odds=json.dumps(odds) if odds else "")


def logs(**probabilities):
    """Log-probabilities by token; "_1" stands for "1", since a name is no number."""
    return {name.removeprefix("_"): math.log(p) for name, p in probabilities.items()}


@pytest.mark.parametrize("text", ['{"picture": 2}', '{"picture": "2"}', "2", 'It is ```json\n{"picture": 2}\n```'])
def test_a_named_picture_scores_one(text):
    assert read_choice(reply(text), 3).tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    "text", ['{"picture": 4}', '{"picture": 0}', '{"picture": true}', '{"picture": 1.0}', '{"image": 1}', "first", "11"]
)
def test_another_picture_than_those_shown_is_no_answer(text):
    with pytest.raises(NoAnswer):
        read_choice(reply(text), 3)


def test_an_order_scores_its_places_evenly():
    assert read_order(reply('{"order": [2, 3, 1]}'), 3) == pytest.approx([1 / 3, 1, 2 / 3])


@pytest.mark.parametrize("order", [[1, 2], [1, 2, 3, 4], [1, 2, 2], [0, 1, 2], [], ["a", 1, 2], [True, 2, 3]])
def test_an_order_of_other_pictures_is_no_answer(order):
    with pytest.raises(NoAnswer, match=r"not each of 3 once"):
        read_order(reply(json.dumps({"order": order})), 3)


BEFORE = [['{"', {}], ["picture", {}], ['":', {}], [" ", {}]]


def test_log_probabilities_of_the_numbers_are_the_scores():
    odds = [*BEFORE, ["2", logs(_2=0.6, _1=0.3, x=0.05, _9=0.05)], ["}", {}]]
    assert read_choice(reply('{"picture": 2}', odds), 3) == pytest.approx([1 / 3, 2 / 3, 0])
    assert read_choice(reply("2", [["2", logs(_2=0.6, _3=0.2)]]), 3) == pytest.approx([0, 0.75, 0.25])


def test_numbers_in_what_came_before_are_not_the_answer():
    odds = [["Not picture ", {}], ["1", logs(_1=0.9, _2=0.1)], [", so ", {}], *BEFORE, ["2", logs(_2=0.6, _3=0.4)]]
    assert read_choice(reply('{"picture": 2}', odds), 3) == pytest.approx([0, 0.6, 0.4])
    assert read_choice(reply('{"picture": 3}', odds[:3]), 3).tolist() == [0, 0, 1]


def test_a_number_of_two_tokens_shares_what_its_first_has():
    odds = [*BEFORE, ["1", logs(_1=0.8, _2=0.2)], ["0", {"0": math.log(0.75), "}": math.log(0.25)}], ["}", {}]]
    found = number_probabilities([(token, others) for token, others in odds], 10)
    assert found[[0, 1, 9]] == pytest.approx([0.2, 0.2, 0.6]) and found.sum() == pytest.approx(1)


def test_a_number_of_one_token_is_itself():
    odds = [*BEFORE, [" 10", {" 10": math.log(0.5), " 1": math.log(0.25)}], ["}", {"}": 0.0, "0": -9.0}]]
    found = number_probabilities([(token, others) for token, others in odds], 10)
    assert found[[0, 9]] == pytest.approx([1 / 3, 2 / 3], abs=1e-3)


@pytest.mark.parametrize("odds", [[], BEFORE, [*BEFORE, ["2", {}]], [*BEFORE, ["2", {"x": -1.0}]]])
def test_without_log_probabilities_of_numbers_there_are_none(odds):
    assert number_probabilities([(token, others) for token, others in odds], 3) is None


def test_a_verification_is_the_share_of_yes():
    assert [read_verification(reply(text)) for text in ("Yes.", "no", "**NO**")] == [1, 0, 0]
    graded = read_verification(
        reply("Yes", [["Yes", {"Yes": math.log(0.5), " no": math.log(0.1), "yes": math.log(0.1)}]])
    )
    assert graded == pytest.approx(6 / 7)
    for text in ("maybe", "yes and no", ""):
        with pytest.raises(NoAnswer):
            read_verification(reply(text))


def test_scores_of_random_odds_are_those_of_a_softmax():
    rng = np.random.default_rng(0)
    for count in (2, 5, 9):
        scores = rng.normal(size=count)
        log = scores - np.log(np.exp(scores).sum())
        named = int(scores.argmax()) + 1
        odds = [*BEFORE, [str(named), {str(number + 1): float(p) for number, p in enumerate(log)}], ["}", {}]]
        np.testing.assert_allclose(
            read_choice(reply(json.dumps({"picture": named}), odds), count), np.exp(log), atol=1e-12
        )
