"""Checkpoints that are written are read again, bit by bit."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from contextjax.pretrained import read_pretrained, write_pretrained
from contextjax.pretrained.names import flatten
from contextjax.types import UserError
from tests.pretrained.conftest import random_params, read


def test_there_and_back_the_file_is_the_same(folder, tmp_path):
    checkpoint = read_pretrained(folder)
    write_pretrained(tmp_path / "again", checkpoint.model.config, read(checkpoint.params))
    before, after = (load_file(place / "model.safetensors") for place in (folder, tmp_path / "again"))
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[key], after[key]) and before[key].shape == after[key].shape for key in before)
    for file in ("config.json", "preprocessor_config.json"):
        assert (folder / file).read_text() == (tmp_path / "again" / file).read_text()
    with pytest.raises(UserError, match="exists already, and nothing is overwritten"):
        write_pretrained(tmp_path / "again", checkpoint.model.config, read(checkpoint.params))


@pytest.mark.long
@pytest.mark.parametrize("file", ["config.json", "README.md", "tokenizer.json", "model.safetensors", "a.txt"])
def test_nothing_in_a_folder_is_overwritten(models, name, file, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / file).write_text("mine")
    with pytest.raises(UserError, match="exists already, and nothing is overwritten"):
        write_pretrained(tmp_path / "there", models[name].config, random_params(models[name]))
    assert [(p.name, p.read_text()) for p in (tmp_path / "there").iterdir()] == [(file, "mine")]


@pytest.mark.long
def test_a_folder_is_written_whole_or_not_at_all(models, name, tmp_path):
    def fail(folder):
        assert (folder / "model.safetensors").exists()
        raise UserError("the disk is full")

    with pytest.raises(UserError, match="disk is full"):
        write_pretrained(tmp_path / "new", models[name].config, random_params(models[name]), finish=fail)
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_bfloat16_out(models, name, folder, tmp_path):
    import ml_dtypes

    checkpoint = read_pretrained(folder)
    write_pretrained(tmp_path / "half", checkpoint.model.config, read(checkpoint.params), dtype="bfloat16")
    again = read_pretrained(tmp_path / "half")
    written = flatten(random_params(models[name]))
    for path, value in flatten(read(again.params)).items():
        np.testing.assert_array_equal(value, written[path].astype(ml_dtypes.bfloat16))
