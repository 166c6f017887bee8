"""Fields of config.json that make no model, or another one than the tensors."""

import shutil

import pytest

from contextjax.pretrained import read_pretrained
from contextjax.types import UserError


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("num_hidden_layers", 4, "missing"),
        ("hidden_size", 32, "of another shape|of another image tower|image tower 32 wide"),
        ("hidden_act", "swish", "hidden_act is 'swish'"),
        ("num_attention_heads", 5, "sizes that make no model"),
        ("intermediate_size", "big", "expected a value like"),
        ("num_hidden_layers", -1, "sizes that make no model"),
        ("num_hidden_layers", 10**9, "has layers=1000000000; expected a number from 1 to 512"),
    ],
)
def test_a_config_that_disagrees_with_the_tensors(folder, edit_json, key, value, sentence):
    edit_json(folder / "config.json", lambda c: {**c, "vision_config": {**c["vision_config"], key: value}})
    with pytest.raises(UserError, match=sentence):
        read_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"projection_dim": "wide", "image_text_hidden_size": "wide"}, "projection"),
        ({"projection_dim": None, "image_text_hidden_size": None}, "projection"),
        ({"text_config": [1], "qformer_config": [1]}, r"config\.json lacks or misstates"),
        ({"model_type": ["clip"]}, r"is of the family \['clip'\]"),
    ],
)
def test_a_config_of_other_types_or_of_no_size_is_refused(folder, edit_json, change, sentence):
    edit_json(folder / "config.json", lambda c: {**c, **change})
    if "projection_dim" in change:  # SigLIP's is the text tower's
        text = lambda c: {**c.get("text_config", {}), "projection_size": change["projection_dim"]}
        edit_json(folder / "config.json", lambda c: {**c, "text_config": text(c)})
    with pytest.raises(UserError, match=sentence):
        read_pretrained(folder)


@pytest.mark.long
@pytest.mark.parametrize("key", ["image_size", "patch_size"])
def test_a_side_may_be_two_equal_numbers(folder, models, name, edit_json, key):
    def set_to(value):
        edit_json(folder / "config.json", lambda c: {**c, "vision_config": {**c["vision_config"], key: value}})

    side = getattr(models[name].config.vision, key)
    set_to([side, side])
    assert read_pretrained(folder).model == models[name]
    set_to([side, side + 8])
    with pytest.raises(UserError, match=rf"{key} is \[{side}, {side + 8}\]; expected a number, or two equal ones"):
        read_pretrained(folder)


@pytest.mark.parametrize("eos", [None, 2, [3, 31], 10**6])
def test_no_id_of_the_end_is_needed(folders, edit_json, eos, tmp_path):
    folder = shutil.copytree(folders["clip"], tmp_path / "clip")
    edit_json(folder / "config.json", lambda c: {**c, "text_config": {**c["text_config"], "eos_token_id": eos}})
    assert read_pretrained(folder).model.config.text.eos_token == (eos if isinstance(eos, int) else None)
