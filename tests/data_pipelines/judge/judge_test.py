"""A judge sees what the candidates show and not where they stand; what it does not answer never counts as right."""

import dataclasses
import json

import numpy as np
import pytest

from contextjax.evaluation import evaluate_candidates
from contextjax.types import CandidateRecord, UserError
from data_pipelines.chat.answers import AnswerCache, Asker
from data_pipelines.chat.questions import NoAnswer, ShownPicture
from data_pipelines.judge.judge import Judge, Vote, combined, read_prompts
from tests.data_pipelines.synthesis.conftest import Says

NAMES = "abcdefghij"


class Pictures(list):
    """A table whose pictures are named letters, as a question shows them."""

    def __init__(self):
        super().__init__(ShownPicture(name, name, name.encode()) for name in NAMES)
        self.ids, self.row = list(NAMES), {name: row for row, name in enumerate(NAMES)}


def finds(question):
    """Names the picture whose letter ends the text; orders by the distance of the alphabet from it."""
    names = [picture.id for picture in question.pictures if picture.id in NAMES]
    wanted = question.text.strip()[-1]
    if question.prompt.name == "choose":
        return json.dumps({"picture": names.index(wanted) + 1})
    if question.prompt.name == "verify":
        return "yes" if names[0] == wanted else "No."
    order = sorted(range(len(names)), key=lambda i: (abs(ord(names[i]) - ord(wanted)), names[i]))
    return json.dumps({"order": [i + 1 for i in order]})


@pytest.fixture
def judge(tmp_path):
    """judge(answer, ...): a judge whose model answers as a function says, and the model."""

    def make(answer=finds, **options):
        model = Says(answer)
        return Judge(Asker(model, AnswerCache(tmp_path / "answers.sqlite"), "run"), read_prompts(), **options), model

    return make


def record(number, images, target):
    return CandidateRecord(str(number), tuple(images), f"the one of {number} that is {target}", images.index(target))


@pytest.mark.parametrize("orders", [0, 1, 3])
def test_other_orders_of_the_candidates_permute_the_scores(judge, orders):
    judge, _ = judge(orders=orders)
    rng = np.random.default_rng(0)
    shown = [ShownPicture(name, name, b"") for name in NAMES]
    text = "it is like e"
    reference = ShownPicture("0", "0", b"")
    of = (
        lambda pictures: combined(judge.choose(pictures, text)),
        lambda pictures: combined(judge.rank(reference, pictures, text)),
    )
    for score in of:
        plain = score(shown)
        for _ in range(3):
            order = rng.permutation(len(shown))
            np.testing.assert_allclose(score([shown[i] for i in order]), plain[order], atol=1e-12)
            assert score([shown[i] for i in order]).argmax() == list(order).index(4)


def test_it_scores_candidate_sets_as_any_system_does(judge):
    records = [record(0, "abc", "c"), record(1, "dcba", "d"), record(2, "ab", "b"), record(3, "abc", "a")]
    judge, model = judge(orders=2, threads=2)
    found = evaluate_candidates(judge, records, Pictures())
    assert found.metrics()["accuracy"] == 100 and len(model.asked) == 2 * 4
    shown = {tuple(p.id for p in question.pictures) for question in model.asked if "of 1 that" in question.text}
    assert len(shown) <= 2 and all(sorted(names) == list("abcd") for names in shown)


def test_answers_that_do_not_count_are_wrong_even_for_the_first_candidate(judge):
    records = [record(0, "abc", "a"), record(1, "abc", "a")]
    judge, model = judge(lambda question: finds(question) if "of 0 that" in question.text else "I can't tell.")
    found = evaluate_candidates(judge, records, Pictures())
    assert found.ranks.tolist() == [0, 3] and np.isnan(found.scores[1]).all()
    assert [question.attempt for question in model.asked if "of 1 that" in question.text] == [0, 1]
    (vote,) = judge.choose(Pictures()[:3], records[1].text)
    assert vote.best == -1 and not vote.problems[0].final


def test_an_order_that_does_not_count_adds_nothing():
    good = Vote(np.asarray([0.0, 1.0]), (1, 0))
    bad = Vote(np.full(2, np.nan), (0, 1), (NoAnswer("is noise"),))
    assert combined([good, bad]).tolist() == [0, 0.5] and np.isnan(combined([bad, bad])).all()
    assert dataclasses.replace(good, scores=np.ones(2)).best == 1  # the one shown first


def test_candidates_are_verified_one_by_one(judge):
    judge, model = judge(verifies=True)
    (vote,) = judge.rank(ShownPicture("0", "0", b""), Pictures()[:4], "as c")
    assert vote.scores.tolist() == [0, 0, 1, 0] and vote.questions == 4 == len(model.asked)
    assert all(len(question.pictures) == 2 for question in model.asked)


def test_one_candidate_that_is_not_verified_scores_nothing(judge):
    judge, _ = judge(lambda question: "dunno" if question.pictures[1].id == "b" else "yes", verifies=True)
    (vote,) = judge.rank(ShownPicture("0", "0", b""), Pictures()[:3], "x")
    assert vote.scores.tolist() == [1, 0, 1] and len(vote.problems) == 1


def test_frames_of_a_video_are_said_to_be_in_order_only_where_they_are(judge):
    for orders, words in ((0, "one video, in order."), (1, "one video, in random order.")):
        made, model = judge(orders=orders)
        made.choose(Pictures()[:3], "the a", is_ordered=True)
        assert words in model.asked[-1].instructions
        made.choose(Pictures()[:3], "now the a")
        assert "video" not in model.asked[-1].instructions


@pytest.mark.parametrize("text", ["$count $sequence ${pictures} $text", "$pictures $count $sequence $pictures $text"])
def test_a_prompt_has_one_place_for_its_pictures(text, tmp_path):
    (tmp_path / "choose.v1.txt").write_text(text)
    with pytest.raises(UserError, match=r"has \$pictures \d times; expected it once"):
        read_prompts(tmp_path, "choose")
