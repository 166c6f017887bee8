"""JSON is found in a model's words, whatever stands around it."""

import pytest

from data_pipelines.chat.questions import NoAnswer, Reply
from data_pipelines.chat.reading import answered, find_json

OBJECTS = {
    "alone": '{"picture": 3}',
    "fenced": 'Here:\n```json\n{"picture": 3}\n```',
    "in prose": 'I think {that} it is {"picture": 3}, not {"picture": 4}.',
}


@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_is_found(name):
    assert find_json(dict, OBJECTS[name]) == {"picture": 3}


def test_an_array_may_be_alone_in_an_object_and_an_object_is_not_in_an_array():
    assert find_json(list, '{"order": [2, 1]}') == [2, 1] == find_json(list, "so: [2, 1]")
    for kind, name, text in ((dict, "object", "[1]"), (list, "array", '{"picture": 1}'), (dict, "object", "three")):
        with pytest.raises(NoAnswer, match=f"is no JSON {name}"):
            find_json(kind, text)


def test_what_a_reasoning_model_has_thought_is_no_answer():
    assert answered(Reply("k", "m", "p", '<think>{"picture": 1}?</think>{"picture": 2}')) == '{"picture": 2}'
    with pytest.raises(NoAnswer, match="is a refusal") as caught:
        answered(Reply("k", "m", "p", "", "no"))
    assert caught.value.final
