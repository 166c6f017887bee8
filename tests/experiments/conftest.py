"""Tiny exports and galleries that the tests of several commands share."""

import dataclasses
import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def exports(made_once) -> Path:
    """A folder with exports of one tiny ConText-CIR: `programs` and `parameters`. Read only."""

    def make(folder: Path) -> None:
        from contextjax.export.write import write_export
        from tests.export.conftest import make_system
        from tests.shape_checks import no_shape_checks

        system, config = make_system("context_cir")
        with no_shape_checks():
            write_export(system, folder / "programs", formats=("stablehlo",), config=config)
        write_export(system, folder / "parameters", formats=("safetensors",), config=config)

    return made_once("exports", make)


@pytest.fixture(scope="session")
def clip(tiny, made_once) -> Path:
    """The folder of a tiny CLIP, whose texts have a tokenizer. Read only."""

    def make(folder: Path) -> None:
        from contextjax.models.clip import CLIP
        from contextjax.pretrained import write_pretrained
        from contextjax.tokenizers import train_tokenizer
        from tests.pretrained.conftest import random_params

        text = dataclasses.replace(tiny.clip.text, vocabulary=280, positions=10, eos_token=1)
        config = dataclasses.replace(tiny.clip, text=text)
        write_pretrained(folder, config, random_params(CLIP(config)))
        train_tokenizer(["a dog"], vocabulary=280, length=10).save(folder / "tokenizer.json")

    return made_once("tiny_clip", make)


@pytest.fixture
def folder(pictograms, tmp_path) -> Path:
    """A folder of twelve pictures."""
    place = tmp_path / "gallery"
    place.mkdir()
    for path in sorted((pictograms / "img_raw" / "dev").iterdir())[:12]:
        shutil.copy(path, place)
    return place
