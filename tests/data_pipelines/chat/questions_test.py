"""A question is named by everything that may change its answer; prompts are versioned files."""

import pytest

from contextjax.types import UserError
from data_pipelines.chat.questions import Question
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
