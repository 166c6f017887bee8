"""`load` says what a folder lacks, and what is asked for that it does not have."""

import shutil

import numpy as np
import pytest

import contextjax
from contextjax.pretrained import write_own
from contextjax.tokenizers import train_tokenizer
from contextjax.types import UserError
from contextjax.variants import spec_of


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    """A converted system; read only."""
    model, place = tiny.model(), tmp_path_factory.mktemp("loading") / "system"
    write_own(place, spec_of(model, text_length=8, fingerprint="abc-7"), tiny.params(model))
    train_tokenizer(["a dog"], vocabulary=300, length=8).save(place / "tokenizer.json")
    return place


def test_an_own_folder_has_its_parameters_whatever_the_mesh(folder, tiny):
    plain, sharded = contextjax.load(folder), contextjax.load(str(folder), mesh="fsdp:4,tensor:2")
    assert plain.fingerprint == "abc-7" and plain.tokenizer.length == 8
    pictures = [np.full((16, 16, 3), value, np.uint8) for value in (0, 200)]
    np.testing.assert_allclose(sharded.encode_gallery(pictures), plain.encode_gallery(pictures), atol=1e-5)


def test_what_is_no_model_is_refused(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    for place, options, sentence in (
        (tmp_path / "none", {}, "nothing at"),
        (tmp_path / "empty", {}, "holds no system.json; expected the --workdir"),
        (tmp_path / "run", {}, "holds no system.json"),
        (folder, {"checkpoint": "best"}, r"checkpoint \('best'\) is asked for, but .* is an export"),
    ):
        with pytest.raises(UserError, match=sentence):
            contextjax.load(place, **options)


def test_parameters_of_another_model_are_refused(folder, tiny, tmp_path):
    place = shutil.copytree(folder, tmp_path / "system")
    spec_of(tiny.model(fusion_layers=2), text_length=8).write(place)
    with pytest.raises(UserError, match="fusion"):
        contextjax.load(place)
