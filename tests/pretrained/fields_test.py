"""Fields of config.json that make no model, or another one than the tensors."""

import pytest

from contextjax.pretrained import read_pretrained
from contextjax.types import UserError


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("num_hidden_layers", 4, "missing"),
        ("hidden_size", 32, "of another shape"),
        ("hidden_act", "swish", "hidden_act is 'swish'"),
        ("num_attention_heads", 5, "sizes that make no model"),
        ("intermediate_size", "big", "expected a value like"),
        ("num_hidden_layers", -1, "sizes that make no model"),
    ],
)
def test_a_config_that_disagrees_with_the_tensors(folder, edit_json, key, value, sentence):
    edit_json(folder / "config.json", lambda c: {**c, "vision_config": {**c["vision_config"], key: value}})
    with pytest.raises(UserError, match=sentence):
        read_pretrained(folder)
