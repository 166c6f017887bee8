"""BLIP-2's config.json: what published files leave out, and Q-Formers that do not fit."""

import json

import pytest
from safetensors.numpy import load_file

from contextjax.pretrained import read_pretrained, write_pretrained
from contextjax.pretrained.blip2 import hf_config
from contextjax.types import UserError
from contextjax.variants import VARIANTS
from tests.pretrained.conftest import BLIP2_CONFIG, change, random_params


@pytest.fixture
def blip2(models, tmp_path):
    return write_pretrained(tmp_path / "blip2", BLIP2_CONFIG, random_params(models["blip2"]))


def test_a_published_config_has_the_sizes_of_vit_g():
    """Published files give what differs from the defaults of transformers alone."""
    config = hf_config(
        {"vision_config": {"image_size": 364}, "qformer_config": {"use_qformer_text_input": True, "vocab_size": 30523}},
        {"fit": "squash"},
    )
    assert config == VARIANTS["BLIP2-G"]


@pytest.mark.long
def test_weights_of_the_language_model_are_left_out(blip2):
    import numpy as np

    change(blip2, lambda t: t | {"language_model.lm_head.weight": np.ones((2, 2), np.float32)})
    assert read_pretrained(blip2).left_out == ["language_model.lm_head.weight"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("section", "changes", "sentence"),
    [
        ("qformer_config", {"use_qformer_text_input": False}, "this Q-Former reads no text"),
        ("qformer_config", {"use_qformer_text_input": None}, "this Q-Former reads no text"),
        ("qformer_config", {"encoder_hidden_size": 24}, "of another image tower"),
        ("qformer_config", {"cross_attention_frequency": 3}, "unknown"),
        ("qformer_config", {"hidden_size": 48}, "of another shape"),
        ("qformer_config", {"num_hidden_layers": 2}, "unknown"),
        ("qformer_config", {"cross_attention_frequency": 0}, "sizes that make no model"),
        ("vision_config", {"qkv_bias": False}, "whose attention has biases"),
        ("", {"num_query_tokens": 4}, r"query_tokens \[1, 3, 24\], expected \[1, 4, 24\]"),
        ("", {"num_query_tokens": 0}, "expected a number from 1"),
    ],
)  # fmt: skip
def test_a_wrong_q_former_is_one_sentence(blip2, edit_json, section, changes, sentence):
    def edit(config):
        return {**config, section: {**config[section], **changes}} if section else {**config, **changes}

    edit_json(blip2 / "config.json", edit)
    with pytest.raises(UserError, match=sentence):
        read_pretrained(blip2)


def test_a_q_former_without_text_is_known_by_its_config_alone(blip2):
    """Weights for captions have neither word embeddings nor projections, and no such key in config.json."""
    config = json.loads((blip2 / "config.json").read_text())
    del config["qformer_config"]["use_qformer_text_input"]
    (blip2 / "config.json").write_text(json.dumps(config))
    change(blip2, lambda t: {k: v for k, v in t.items() if not k.startswith(("embeddings", "text_proj", "itm"))})
    assert "embeddings.word_embeddings.weight" not in load_file(blip2 / "model.safetensors")
    with pytest.raises(UserError, match="give those for retrieval"):
        read_pretrained(blip2)
