"""A question is named by everything that may change its answer; prompts are versioned files."""

import dataclasses

import pytest

from contextjax.types import UserError
from data_pipelines.chat.questions import Prompt, Question, ShownPicture
from data_pipelines.synthesis.stages import read_prompts
from tests.data_pipelines.synthesis.conftest import Says


def test_prompts_are_versioned_files(tmp_path):
    shipped = read_prompts()
    assert {prompt.version for prompt in shipped.values()} == {"v1"}
    for name, prompt in shipped.items():
        (tmp_path / f"{name}.v1.txt").write_text(prompt.text)
    (tmp_path / "difference.v10.txt").write_text("new $reference $target $count $characters")
    (tmp_path / "difference.v9.txt").write_text("old $reference $target $count $characters")
    prompt = read_prompts(tmp_path)["difference"]
    assert prompt.version == "v10" and prompt.text.startswith("new") and prompt.id != shipped["difference"].id
    (tmp_path / "difference.v11.txt").write_text("$reference $target $count")
    with pytest.raises(UserError, match=r"expected \$reference, \$target, \$count, \$characters"):
        read_prompts(tmp_path)


def test_a_question_is_another_where_anything_differs():
    prompt = read_prompts()["describe_target"]
    model = Says(lambda question: "")
    base = Question(prompt, (("reference", "a"),))
    others = [Question(prompt, (("reference", "b"),)), Question(prompt, (("reference", "a"),), attempt=1)]
    assert len({question.key(model) for question in (base, *others)}) == 3
    model.settings = {"temperature": 1}
    assert base.key(model) not in {question.key(Says(lambda question: "")) for question in (base, *others)}


def test_pictures_stand_where_the_prompt_has_a_place_for_them():
    shown = tuple(ShownPicture(name, name, b"") for name in "ab")
    prompt = Prompt("choose", "v1", "Pick one of $count.\n$pictures\nThe text: $text\n")
    question = Question(
        prompt, (("count", "2"), ("text", "$pictures")), shown, labels=("1:", "2:"), retry_note="Again."
    )
    assert question.instructions == "Pick one of 2."
    assert question.parts == ["1:", shown[0], "2:", shown[1], "The text: $pictures"]
    assert question.text == "Pick one of 2.\n1:\n2:\nThe text: $pictures"
    again = dataclasses.replace(question, attempt=1)
    assert again.parts[-1].endswith("Again.") and again.instructions == question.instructions
    swapped = dataclasses.replace(question, pictures=shown[::-1])
    other = dataclasses.replace(question, labels=("A:", "B:"))
    model = Says(lambda question: "")
    assert len({each.key(model) for each in (question, again, swapped, other)}) == 4


def test_answers_that_were_kept_before_pictures_had_places_are_found():
    class Model:
        name, settings = "m", {"side": 8}

    first = Question(Prompt("a", "v1", "hello $x"), (("x", "y"),), (ShownPicture("p", "d", b""),))
    assert first.key(Model) == "ab10e887932437b4be3c7a7e8a2ef500" and first.instructions == ""
    assert dataclasses.replace(first, attempt=1).key(Model) == "5ced196b157c51cd1f7df04245f8a356"
    assert first.parts == [first.pictures[0], "hello y"]
