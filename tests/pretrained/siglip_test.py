"""SigLIP's folders: the padding is the tokenizer's, pictures are theirs, and what is no such SigLIP is refused."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import contextjax
from contextjax.models.clip import CLIP
from contextjax.pretrained import abstract_params, read_pretrained, write_pretrained
from contextjax.pretrained.siglip import hf_config, hf_config_json
from contextjax.tokenizers import TextTokenizer
from contextjax.types import UserError
from contextjax.variants import VARIANTS
from tests.commands import in_process
from tests.pretrained.conftest import SIGLIP_CONFIG, change, random_params
from tests.tokenizer_files_test import write_gemma, write_sentencepiece

PARAMETERS = {  # as MTEB's list of models counts the published files; with Gemma's vocabulary, by addition
    "SigLIP-B16": 203_155_970, "SigLIP-L16": 652_150_786, "SigLIP-So400m14": 877_360_306,
    "SigLIP2-B16": 203_155_970 + 768 * (256_000 - 32_000),
}  # fmt: skip


@pytest.fixture
def siglip(folders, tmp_path):
    import shutil

    return shutil.copytree(folders["siglip"], tmp_path / "siglip")


@pytest.mark.long
@pytest.mark.parametrize("name", PARAMETERS)
def test_a_published_size_has_the_published_number_of_parameters(name):
    shapes = abstract_params(CLIP(VARIANTS[name]))
    assert sum(x.size for x in jax.tree.leaves(shapes)) == PARAMETERS[name]


def test_config_json_with_nothing_but_what_is_published_is_b16():
    """Published files leave out what is a default of transformers'."""
    pixels = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "fit": "squash"}
    published = {"model_type": "siglip", "text_config": {"model_type": "siglip_text_model"}, "vision_config": {}}
    assert hf_config(published, pixels) == VARIANTS["SigLIP-B16"]
    assert hf_config(hf_config_json(SIGLIP_CONFIG), pixels).text == SIGLIP_CONFIG.text


@pytest.mark.long
@pytest.mark.parametrize("write", [write_sentencepiece, write_gemma])
def test_padding_is_the_tokenizers_and_a_text_embeds_alike_at_every_length(write, siglip, edit_json):
    write(siglip)
    vocabulary = TextTokenizer.read(siglip, length=8).vocabulary
    rows = np.random.default_rng(0).normal(size=(vocabulary, 8)).astype(np.float32)
    change(siglip, lambda tensors: {**tensors, "text_model.embeddings.token_embedding.weight": rows})
    edit_json(siglip / "config.json", lambda c: (c["text_config"].pop("pad_token_id") and c) or c)
    edit_json(siglip / "config.json", lambda c: {**c, "text_config": {**c["text_config"], "vocab_size": vocabulary}})
    system = contextjax.load(siglip)
    assert system.spec.title == "SigLIP" and system.fit == "squash" and system.spec.text_length == 12
    assert system.model.config.text.pad_token == system.tokenizer.pad == TextTokenizer.read(siglip, length=8).pad
    short = contextjax.load(siglip, text_length=9)
    texts = ["a DOG", "two cats"]
    np.testing.assert_allclose(short.encode_text(texts), system.encode_text(texts), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(system.encode_text(texts), axis=-1), 1, atol=1e-5)
    picture = np.random.default_rng(1).integers(0, 256, (20, 30, 3), np.uint8)
    summed = system.encode_query([picture], ["a dog"])[0]
    expected = system.encode_gallery([picture])[0] + system.encode_text(["a dog"])[0]
    np.testing.assert_allclose(summed, expected / np.linalg.norm(expected), atol=1e-5)


@pytest.mark.long
def test_what_convert_writes_is_the_same_and_has_the_tokenizers_ids(siglip, tmp_path, capsys):
    write_gemma(siglip)
    vocabulary = TextTokenizer.read(siglip, length=8).vocabulary
    config = dataclasses.replace(SIGLIP_CONFIG, text=dataclasses.replace(SIGLIP_CONFIG.text, vocabulary=vocabulary))
    write_pretrained(tmp_path / "in", config, random_params(CLIP(config)))
    done = in_process("convert", f"--source={tmp_path / 'in'}", f"--target={tmp_path / 'out'}", f"--tokenizer={siglip}")
    assert done.returncode == 0, done.stderr
    text = json.loads((tmp_path / "out" / "config.json").read_text())["text_config"]
    assert text["pad_token_id"] == 0 and text["eos_token_id"] == 1
    before, after = (read_pretrained(tmp_path / name) for name in ("in", "out"))
    assert after.model.config.vision == before.model.config.vision and after.model.config.text.pad_token == 0
    processor = json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())
    assert processor["image_processor_type"] == "SiglipImageProcessor" and processor["image_mean"] == [0.5] * 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "siglip2"}, "NaFlex form.*expected one of a fixed resolution"),
        ({"vision_config": {"num_patches": 256}}, "NaFlex form"),
        ({"vision_config": {"vision_use_head": False}}, "no pooling head"),
        ({"vision_config": {"hidden_size": 20}}, "20 wide; SigLIP embeds pictures as they are pooled"),
        ({"vision_config": {"image_size": [16, 24]}}, "two equal ones"),
        ({"vision_config": {"num_hidden_layers": 2}}, "does not fit the model its config describes.*unknown"),
        ({"text_config": {"projection_size": 24}}, "projection is 24, but the image tower 16 wide"),
        ({"text_config": {"vocab_size": "many"}}, "vocab_size is 'many'"),
    ],
)
def test_another_config_is_refused_in_a_sentence(changes, said, siglip, edit_json):
    merged = lambda c: {key: {**value, **changes.get(key, {})} if isinstance(value, dict) else changes.get(key, value)
                        for key, value in c.items()}  # fmt: skip
    edit_json(siglip / "config.json", merged)
    with pytest.raises(UserError, match=said):
        read_pretrained(siglip)


def test_a_head_that_is_missing_is_named(siglip):
    change(siglip, lambda tensors: {name: x for name, x in tensors.items() if "vision_model.head" not in name})
    with pytest.raises(UserError, match=r"missing \(vision_model\.head\.attention\.in_proj_bias"):
        read_pretrained(siglip)


def test_a_tokenizer_of_another_model_is_refused(siglip):
    write_gemma(siglip, pad_token="<0xFF>")
    with pytest.raises(UserError, match="tokenizer is of another model: its padding has the id"):
        read_pretrained(siglip)


def test_a_naflex_processor_is_refused(siglip, edit_json):
    edit_json(siglip / "preprocessor_config.json", lambda c: {**c, "image_processor_type": "Siglip2ImageProcessor"})
    with pytest.raises(UserError, match="of a Siglip2ImageProcessor; expected CLIP's, BLIP's or SigLIP's"):
        read_pretrained(siglip)


def test_towers_that_hugging_face_has_no_siglip_for_are_not_written(tmp_path):
    odd = dataclasses.replace(SIGLIP_CONFIG, vision=dataclasses.replace(SIGLIP_CONFIG.vision, stem=(4, 8)))
    with pytest.raises(UserError, match=r"SigLIP has no stem=\(4, 8\)"):
        write_pretrained(tmp_path / "odd", odd, {})
