"""Checkpoints in and out: bitwise round trips, and one sentence for whatever is wrong with a folder."""

import dataclasses
import json
import struct

import flax.linen as nn
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from contextjax.models.blip import BLIP
from contextjax.pretrained import abstract_params, read_pretrained, write_pretrained
from contextjax.pretrained.blip import original_table
from contextjax.pretrained.clip import open_clip_table
from contextjax.pretrained.names import flatten, write
from contextjax.pretrained.positions import resize_positions
from contextjax.sharding import make_mesh, place_params
from contextjax.types import UserError
from tests.pretrained.conftest import BLIP_CONFIG, random_params


def read(unread):
    return jax.tree.map(lambda leaf: leaf.read(), unread)


def equal(tree, other):
    flat, others = flatten(tree), flatten(other)
    assert flat.keys() == others.keys()
    for path, value in flat.items():
        np.testing.assert_array_equal(value, others[path], err_msg=path)


def change(folder, function):
    """Rewrites the weights by what `function` returns of the tensors."""
    file = folder / "model.safetensors"
    save_file(function(load_file(file)), file)


def test_what_is_written_is_read_bitwise(models, name, folder):
    found = read_pretrained(folder)
    assert found.model == models[name] and found.left_out == []
    equal(read(found.params), random_params(models[name]))


def test_there_and_back_the_file_is_the_same(folder, tmp_path):
    found = read_pretrained(folder)
    write_pretrained(tmp_path / "again", found.model.config, read(found.params))
    before, after = (load_file(place / "model.safetensors") for place in (folder, tmp_path / "again"))
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[key], after[key]) and before[key].shape == after[key].shape for key in before)
    for file in ("config.json", "preprocessor_config.json"):
        assert (folder / file).read_text() == (tmp_path / "again" / file).read_text()
    with pytest.raises(UserError, match="holds a model already"):
        write_pretrained(tmp_path / "again", found.model.config, read(found.params))


def test_stacked_layers_hold_the_same_numbers(models, name, folder):
    params, stacked = read(read_pretrained(folder).params), read(read_pretrained(folder, scan=True).params)
    for layer in range(models[name].config.text.layers):
        equal(jax.tree.map(lambda x, n=layer: x[n], stacked["text"]["layers"]), params["text"][f"layer_{layer}"])
    assert (
        write(_table(name)(models[name].config), flatten(stacked)).keys()
        == load_file(folder / "model.safetensors").keys()
    )


def _table(name):
    from contextjax.pretrained.read import BLIP_HF, CLIP_HF

    return {"clip": CLIP_HF, "blip": BLIP_HF}[name].table


def test_a_sharded_checkpoint_is_read(models, name, folder):
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, own in parts.items():
        save_file({key: tensors[key] for key in own}, folder / file)
    (folder / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {key: file for file, own in parts.items() for key in own}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    equal(read(read_pretrained(folder).params), random_params(models[name]))

    index["weight_map"][names[0]] = "../../secrets.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="not beside it"):
        read_pretrained(folder)
    index["weight_map"].pop(names[0])
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="disagree about 1 tensors"):
        read_pretrained(folder)


def test_open_clip_names_are_the_same_parameters(models, tmp_path):
    model = models["clip"]
    config, params = model.config, random_params(model)
    tensors = write(open_clip_table(config), flatten(params)) | {"attn_mask": np.zeros((4, 4), np.float32)}
    save_file(tensors, tmp_path / "open_clip_model.safetensors")
    vision, text = config.vision, config.text
    described = {
        "model_cfg": {
            "embed_dim": config.projection,
            "quick_gelu": True,
            "vision_cfg": {"image_size": vision.image_size, "layers": vision.layers, "width": vision.width,
                           "patch_size": vision.patch_size, "head_width": vision.width // vision.heads,
                           "mlp_ratio": vision.mlp / vision.width},
            "text_cfg": {"context_length": text.positions, "vocab_size": text.vocabulary, "width": text.width,
                         "heads": text.heads, "layers": text.layers, "mlp_ratio": text.mlp / text.width},
        },
        "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.25, 0.5]},
    }  # fmt: skip
    (tmp_path / "open_clip_config.json").write_text(json.dumps(described))
    found = read_pretrained(tmp_path)
    assert found.left_out == [] and found.model.config.vision.std == (0.5, 0.25, 0.5)
    assert found.model.config.text == dataclasses.replace(text, eos_token=2)
    equal(read(found.params), params)
    described["model_cfg"]["vision_cfg"]["timm_model_name"] = "x"
    (tmp_path / "open_clip_config.json").write_text(json.dumps(described))
    with pytest.raises(UserError, match="timm_model_name"):
        read_pretrained(tmp_path)


def test_the_original_blip_release_is_read_from_its_shapes(tmp_path):
    """Its ViT has 64 features a head, its BERT 12 heads."""
    vision = dataclasses.replace(BLIP_CONFIG.vision, width=64, heads=1, epsilon=1e-6)
    config = dataclasses.replace(BLIP_CONFIG, vision=vision, text=dataclasses.replace(BLIP_CONFIG.text, heads=12))
    params = random_params(BLIP(config))
    unneeded = {"text_decoder.x": np.ones(2, np.float32), "vision_proj_m.weight": np.ones(2, np.float32),
                "image_queue": np.ones(3, np.float32), "temp": np.ones((), np.float32)}  # fmt: skip
    save_file(write(original_table(config), flatten(params)) | unneeded, tmp_path / "blip.safetensors")
    found = read_pretrained(tmp_path / "blip.safetensors")
    assert found.model.config == config and set(found.left_out) == set(unneeded)
    equal(read(found.params), params)


def test_buffers_are_dropped_in_silence_and_nothing_else_is(name, folder):
    prefix = "text_model" if name == "clip" else "text_encoder"
    change(folder, lambda t: t | {f"{prefix}.embeddings.position_ids": np.arange(5)[None]})
    assert read_pretrained(folder).left_out == []
    change(folder, lambda t: t | {"adapter.weight": np.ones(3, np.float32)})
    with pytest.raises(UserError, match=r"1 unknown \(adapter\.weight\)"):
        read_pretrained(folder)


def test_all_that_does_not_fit_is_named(folder):
    def spoil(tensors):
        names = sorted(tensors)
        tensors["other"] = tensors.pop(names[0])
        tensors[names[3]] = tensors[names[3]][:-1]
        return tensors

    names = sorted(load_file(folder / "model.safetensors"))
    change(folder, spoil)
    with pytest.raises(UserError) as error:
        read_pretrained(folder)
    for part in (f"1 missing ({names[0]})", "1 unknown (other)", "1 of another shape", names[3]):
        assert part in str(error.value)


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


def test_a_second_section_replaces_the_first_as_in_old_files(models, folders, tmp_path, edit_json):
    import shutil

    folder = shutil.copytree(folders["clip"], tmp_path / "clip")
    edit_json(folder / "config.json",
              lambda c: {**c, "text_config_dict": c["text_config"], "text_config": {"hidden_size": 4},
                         "vision_config_dict": None})  # fmt: skip
    assert read_pretrained(folder).model == models["clip"]


@pytest.mark.parametrize("kind", ["siglip", None, 3])
def test_another_family_is_told(folder, edit_json, kind):
    edit_json(folder / "config.json", lambda c: {**c, "model_type": kind})
    with pytest.raises(UserError, match="expected one of clip, blip, bert"):
        read_pretrained(folder)


def _truncated(data):
    return data[:-7]


def _lying(data):
    """The header says that a tensor is longer than it is."""
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    last = max((key for key in header if key != "__metadata__"), key=lambda key: header[key]["data_offsets"][1])
    header[last]["shape"] = [10**9]
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + size :]


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (_truncated, "not a whole safetensors file"),
        (_lying, "not a whole safetensors file"),
        (lambda data: struct.pack("<Q", 2**60) + data[8:], "not a whole safetensors file"),
        (lambda data: b"", "not a whole safetensors file"),
        (lambda data: b"PK\x03\x04" + data, "is a pickle"),
        (lambda data: b"\x80\x02}q\x00." + data, "is a pickle"),
    ],
)
def test_a_damaged_file_is_told_and_nothing_is_read(folder, damage, sentence):
    file = folder / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UserError, match=sentence):
        read_pretrained(folder)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(name, folder, value):
    tower = "text_model.final_layer_norm.bias" if name == "clip" else "text_proj.bias"

    def spoil(tensors):
        tensors[tower][1] = value
        return tensors

    change(folder, spoil)
    with pytest.raises(UserError, match=f"{tower}.* 1 values that are not"):
        read(read_pretrained(folder).params)


def test_missing_files_are_told(folder, tmp_path):
    with pytest.raises(UserError, match="nothing at"):
        read_pretrained(tmp_path / "nowhere" / "deep")
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"config\.json is missing"):
        read_pretrained(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="allow_pickle"):
        read_pretrained(folder)


def test_parameters_go_straight_to_their_place_on_the_mesh(models, name, folder):
    """Every device holds its part only, and the parts are the whole."""
    found = read_pretrained(folder)
    params = place_params(found.params, found.abstract, make_mesh("fsdp:4,tensor:2"))
    equal(jax.device_get(params), random_params(models[name]))
    kernel = params["vision"]["layer_0"]["mlp"]["up"]["kernel"]
    assert {shard.data.shape for shard in kernel.addressable_shards} == {(4, kernel.shape[1] // 2)}
    whole = sum(x.nbytes for x in jax.tree.leaves(params))
    held = sum(
        s.data.nbytes for x in jax.tree.leaves(params) for s in x.addressable_shards if s.device == jax.devices()[0]
    )
    assert held < 0.5 * whole


def test_half_precision_files_are_read_as_float32(models, name, folder):
    change(folder, lambda t: {key: x.astype(np.float16) for key, x in t.items()})
    for path, value in flatten(read(read_pretrained(folder).params)).items():
        expected = flatten(random_params(models[name]))[path].astype(np.float16).astype(np.float32)
        assert value.dtype == np.float32 and np.array_equal(value, expected), path


def test_bfloat16_out(models, name, folder, tmp_path):
    import ml_dtypes

    found = read_pretrained(folder)
    write_pretrained(tmp_path / "half", found.model.config, read(found.params), dtype="bfloat16")
    again = read_pretrained(tmp_path / "half")
    for path, value in flatten(read(again.params)).items():
        np.testing.assert_array_equal(value, flatten(random_params(models[name]))[path].astype(ml_dtypes.bfloat16))


def test_another_resolution(models, name, folder):
    found = read_pretrained(folder, image_size=32)
    shapes = jax.tree.map(lambda x: x.shape, nn.unbox(abstract_params(found.model)))
    params = read(found.params)
    assert jax.tree.map(np.shape, params) == shapes
    table = random_params(models[name])["vision"]["position_embedding"]
    np.testing.assert_array_equal(params["vision"]["position_embedding"], resize_positions(table, 16))
    with pytest.raises(UserError, match="multiple of 8"):
        read_pretrained(folder, image_size=30)


def test_resizing_positions_keeps_what_is_constant_and_the_class_token():
    table = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    np.testing.assert_array_equal(resize_positions(table, 9), table)
    table[1:] = table[1]
    found = resize_positions(table, 49)
    assert found.shape == (50, 4) and found.dtype == np.float32
    np.testing.assert_allclose(found[1:], np.tile(table[1], (49, 1)), rtol=1e-6)
    np.testing.assert_array_equal(found[0], table[0])


def test_a_model_that_hugging_face_has_no_class_for(models, tmp_path):
    config = models["clip"].config
    odd = dataclasses.replace(config, vision=dataclasses.replace(config.vision, pooling="grid"))
    with pytest.raises(UserError, match="no pooling=grid"):
        write_pretrained(tmp_path / "odd", odd, {})
    assert not (tmp_path / "odd").exists()
