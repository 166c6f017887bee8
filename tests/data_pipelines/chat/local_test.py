"""A local model without its packages; tests/parity has what it answers with them."""

import sys

import pytest

from contextjax.types import UserError
from data_pipelines.chat.local import LocalModel
from data_pipelines.chat.questions import Question
from data_pipelines.synthesis.stages import read_prompts


def test_without_pytorch_the_way_to_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    model = LocalModel("owner/name", answer_tokens=8, side=64)
    question = Question(read_prompts()["describe_target"], (("reference", "a"),))
    with pytest.raises(UserError, match=r"needs PyTorch and transformers.*\[torch\]"):
        model.answer(question)


def test_settings_are_part_of_a_question_s_key():
    question = Question(read_prompts()["describe_target"], (("reference", "a"),))
    keys = {question.key(LocalModel(name, side=side)) for name in ("a", "b") for side in (64, 128)}
    assert len(keys) == 4
