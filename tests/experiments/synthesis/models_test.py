"""Models by the names of their backends: what each is given, and settings that are missing or wrong."""

import functools

import pytest

from contextjax.types import UserError
from data_pipelines.chat.endpoint import ChatModel
from data_pipelines.chat.local import LocalModel
from experiments.synthesis.config import SynthesisConfig
from experiments.synthesis.models import batch_models, model_makers


def settings(tmp_path, **changes):
    return SynthesisConfig(**{"target": str(tmp_path / "set"), "data": str(tmp_path), "backend": "openai", **changes})


def test_a_writer_is_a_model_of_its_own(tmp_path):
    config = settings(tmp_path, backend="transformers", model="sees", writer="writes", answer_tokens=9)
    first, second = (make() for make in model_makers(config, folder=tmp_path))
    assert isinstance(first, LocalModel) and (first.name, second.name) == ("sees", "writes")
    assert first.settings == {"answer_tokens": 9, "side": 768}
    rules, none = model_makers(settings(tmp_path, backend="rules"), folder=tmp_path)
    assert isinstance(rules, functools.partial) and none is None
    chat, none = model_makers(settings(tmp_path, model="m", address="http://localhost:1/v1"), folder=tmp_path)
    assert chat.func.func is ChatModel if isinstance(chat.func, functools.partial) else chat.func is ChatModel


def test_batch_files_of_a_writer_lie_below(tmp_path):
    config = settings(tmp_path, model="m", writer="w", batch=str(tmp_path / "batch"))
    assert [model.name for model in batch_models(config)] == ["m", "w"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "--backend=openai needs the name of a model"),
        ({"model": "m", "address": "localhost"}, "--address is 'localhost'; expected the address"),
        ({"model": "m", "address": "http://me:secret@host/v1"}, "goes not in --address but in the environment"),
        ({"model": "m", "request": "{"}, "--request is no JSON"),
        ({"model": "m", "request": "[1]"}, "--request is to be a JSON object"),
        ({"model": "m", "request": '{"messages": []}'}, "model, messages, .* are not given there"),
    ],
)
def test_settings_that_are_wrong_are_one_sentence(tmp_path, changes, sentence):
    with pytest.raises(UserError, match=sentence):
        model_makers(settings(tmp_path, **changes), folder=tmp_path)
