"""`convert` writes whole folders, overwrites nothing, and carries preprocessing and the end of texts on."""

import dataclasses
import json
import shutil

import pytest

from contextjax.models.clip import CLIP
from contextjax.pretrained import read_pretrained, write_pretrained
from contextjax.tokenizers import train_tokenizer
from tests.commands import in_process
from tests.pretrained.conftest import random_params


@pytest.fixture(scope="module")
def source(tiny, tmp_path_factory):
    """A CLIP that squashes pictures, whose config names a wrong end of texts."""
    tokenizer = train_tokenizer(["a dog", "two cats"], vocabulary=270, length=10)
    vision = dataclasses.replace(tiny.clip.vision, fit="squash")
    text = dataclasses.replace(tiny.clip.text, vocabulary=tokenizer.vocabulary, eos_token=5)
    config = dataclasses.replace(tiny.clip, vision=vision, text=text)
    folder = tmp_path_factory.mktemp("convert") / "clip"
    save = lambda folder: tokenizer.save(folder / "tokenizer.json")
    return write_pretrained(folder, config, random_params(CLIP(config)), finish=save)


def run(source, target, *more):
    return in_process("convert", f"--source={source}", f"--target={target}", *more)


def test_preprocessing_and_the_end_of_texts_are_carried_on(source, tmp_path):
    assert run(source, tmp_path / "out").returncode == 0
    before, after = (read_pretrained(folder).model.config for folder in (source, tmp_path / "out"))
    assert after.vision == before.vision and after.vision.fit == "squash"
    tokens = json.loads((source / "tokenizer.json").read_text())["model"]["vocab"]
    assert after.text.eos_token == tokens["<|endoftext|>"] != before.text.eos_token
    assert {path.name for path in tmp_path.iterdir()} == {"out"}  # nothing half written is left


@pytest.mark.parametrize("file", ["config.json", "README.md", "tokenizer.json", "checkpoints/1/x", "system.json"])
def test_what_is_there_is_never_overwritten(file, source, tmp_path):
    (tmp_path / "run" / file).parent.mkdir(parents=True)
    (tmp_path / "run" / file).write_text("mine")
    done = run(source, tmp_path / "run")
    assert done.returncode == 2 and "exists already, and nothing is overwritten" in done.stderr
    assert [path.read_text() for path in (tmp_path / "run").rglob("*") if path.is_file()] == ["mine"]


def test_the_source_is_no_target_and_a_bad_source_leaves_nothing(source, tmp_path):
    own = shutil.copytree(source, tmp_path / "own")
    assert run(own, own).returncode == 2 and read_pretrained(own)
    (own / "model.safetensors").write_bytes(b"short")
    done = run(own, tmp_path / "new")
    assert done.returncode == 2 and "not a whole safetensors file" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"own"}
