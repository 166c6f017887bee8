"""A Combiner under its published names is read with the CLIP beside it."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import contextjax
from contextjax.models.clip import CLIP
from contextjax.pretrained import read_pretrained, write_pretrained
from contextjax.pretrained.clip4cir import FILE
from contextjax.tokenizers import train_tokenizer
from contextjax.types import UserError
from tests.commands import in_process
from tests.pretrained.conftest import random_params, read

D = 8
SHAPES = {
    "text_projection_layer": (4 * D, D), "image_projection_layer": (4 * D, D), "combiner_layer": (8 * D, 8 * D),
    "output_layer": (D, 8 * D), "dynamic_scalar.0": (8 * D, 8 * D), "dynamic_scalar.3": (1, 8 * D),
}  # fmt: skip


@pytest.fixture
def folder(tiny, tmp_path):
    tokenizer = train_tokenizer(["a dog", "two cats"], vocabulary=270, length=10)
    text = dataclasses.replace(tiny.clip.text, vocabulary=tokenizer.vocabulary, eos_token=1)
    config = dataclasses.replace(tiny.clip, text=text)
    save = lambda folder: tokenizer.save(folder / "tokenizer.json")
    place = write_pretrained(tmp_path / "clip", config, random_params(CLIP(config)), finish=save)
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32) / np.sqrt(shape[-1])
    tensors = {f"{name}.weight": draw(*shape) for name, shape in SHAPES.items()}
    save_file(tensors | {f"{name}.bias": draw(shape[0]) for name, shape in SHAPES.items()}, place / FILE)
    return place


def test_it_is_read_whole_and_loads_as_a_system(folder, tiny):
    published = read_pretrained(folder)
    assert published.left_out == [] and published.model.config.query == "combiner"
    assert published.model.config.clip.vision.fit == "targetpad"
    params, tensors = read(published.params)["combiner"], load_file(folder / FILE)
    np.testing.assert_array_equal(params["share_layer"]["kernel"], tensors["dynamic_scalar.0.weight"].T)
    np.testing.assert_array_equal(params["vector_layer"]["bias"], tensors["combiner_layer.bias"])
    system = contextjax.load(folder)
    pictures = list(np.asarray(tiny.pictures(2)))
    queries = system.encode_query(pictures, ["a dog", "two cats"])
    image, text = system.image_features(pictures), system.text_features(["a dog", "two cats"])
    by_hand = published.model.apply(
        {"params": system.params}, jnp.asarray(image), jnp.asarray(text), method="compose_features"
    )
    np.testing.assert_allclose(queries, by_hand / np.linalg.norm(by_hand, axis=-1, keepdims=True), atol=1e-5)


def test_another_width_and_a_combiner_without_its_clip_are_one_sentence(folder, tmp_path):
    tensors = load_file(folder / FILE)
    (tmp_path / "alone").mkdir()
    save_file(tensors, tmp_path / "alone" / "model.safetensors")
    with pytest.raises(UserError, match=r"is CLIP4Cir's Combiner alone; put it as combiner.pt beside"):
        read_pretrained(tmp_path / "alone")
    tensors["output_layer.weight"] = tensors["output_layer.weight"][:, :-1].copy()
    save_file(tensors, folder / FILE)
    with pytest.raises(UserError, match=r"combiner\.output_layer\.weight"):
        read_pretrained(folder)


def test_the_command_writes_a_system(folder, tmp_path):
    done = in_process("convert", f"--source={folder}", f"--target={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    system = contextjax.load(tmp_path / "out")
    assert system.query == "combiner" and system.spec.family == "context_cir" and system.fit == "targetpad"
