"""Checkpoints are read into modules and parameters, at any resolution and place; other folders are refused."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from contextjax.pretrained import abstract_params, read_pretrained
from contextjax.pretrained.positions import resize_positions
from contextjax.sharding import make_mesh, place_params
from contextjax.types import UserError
from tests.pretrained.conftest import equal, random_params, read


def test_what_is_written_is_read_bitwise(models, name, folder):
    checkpoint = read_pretrained(folder)
    assert checkpoint.model == models[name] and checkpoint.left_out == []
    equal(read(checkpoint.params), random_params(models[name]))


@pytest.mark.long
@pytest.mark.parametrize("kind", ["align", None, 3])
def test_another_family_is_refused(folder, edit_json, kind):
    edit_json(folder / "config.json", lambda c: {**c, "model_type": kind})
    with pytest.raises(UserError, match="expected one of clip, siglip, blip, blip-2, bert"):
        read_pretrained(folder)


def test_missing_files_are_reported(folder, tmp_path):
    with pytest.raises(UserError, match="nothing at"):
        read_pretrained(tmp_path / "nowhere" / "deep")
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"config\.json is missing"):
        read_pretrained(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="allow_pickle"):
        read_pretrained(folder)


@pytest.mark.long
def test_parameters_go_straight_to_their_place_on_the_mesh(models, name, folder):
    """Every device holds its part only, and the parts are the whole."""
    checkpoint = read_pretrained(folder)
    params = place_params(checkpoint.params, checkpoint.abstract, make_mesh("fsdp:4,tensor:2"))
    equal(jax.device_get(params), random_params(models[name]))
    kernel = params["vision"]["layer_0"]["mlp"]["up"]["kernel"]
    assert {shard.data.shape for shard in kernel.addressable_shards} == {(4, kernel.shape[1] // 2)}
    whole = sum(x.nbytes for x in jax.tree.leaves(params))
    held = sum(
        s.data.nbytes for x in jax.tree.leaves(params) for s in x.addressable_shards if s.device == jax.devices()[0]
    )
    assert held < 0.5 * whole


@pytest.mark.long
def test_another_resolution(models, name, folder):
    checkpoint = read_pretrained(folder, image_size=32)
    shapes = jax.tree.map(lambda x: x.shape, nn.unbox(abstract_params(checkpoint.model)))
    params = read(checkpoint.params)
    assert jax.tree.map(np.shape, params) == shapes
    table = random_params(models[name])["vision"]["position_embedding"]
    first = models[name].config.vision.class_tokens
    np.testing.assert_array_equal(params["vision"]["position_embedding"], resize_positions(table, 16, first=first))
    with pytest.raises(UserError, match="multiple of 8"):
        read_pretrained(folder, image_size=30)
