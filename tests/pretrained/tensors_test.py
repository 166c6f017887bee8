"""Safetensors files: sharded, damaged, in half precision, not finite."""

import json
import struct

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from contextjax.pretrained import read_pretrained
from contextjax.pretrained.names import flatten
from contextjax.types import UserError
from tests.pretrained.conftest import change, equal, random_params, read


@pytest.mark.long
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
def test_a_damaged_file_is_refused(folder, damage, sentence):
    file = folder / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UserError, match=sentence):
        read_pretrained(folder)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(name, folder, value):
    towers = {
        "clip": "text_model.final_layer_norm.bias",
        "siglip": "text_model.final_layer_norm.bias",
        "blip2": "text_projection.bias",
    }
    tower = towers.get(name, "text_proj.bias")

    def spoil(tensors):
        tensors[tower][1] = value
        return tensors

    change(folder, spoil)
    with pytest.raises(UserError, match=f"{tower}.* 1 values that are not"):
        read(read_pretrained(folder).params)


@pytest.mark.long
def test_half_precision_files_are_read_as_float32(models, name, folder):
    change(folder, lambda t: {key: x.astype(np.float16) for key, x in t.items()})
    written = flatten(random_params(models[name]))
    for path, value in flatten(read(read_pretrained(folder).params)).items():
        expected = written[path].astype(np.float16).astype(np.float32)
        assert value.dtype == np.float32 and np.array_equal(value, expected), path


def _rewrite_header(file, change):
    """Rewrites the header of a safetensors file; the bytes of the tensors stay."""
    data = file.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])


@pytest.mark.long
@pytest.mark.parametrize("dtype", ["I32", "U32", "F8_E4M3", "F8_E5M2", "BOOL", "I64"])
def test_weights_of_a_type_that_holds_none(folder, dtype):
    """Bits of floats that are declared integer would be read as huge weights."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    chosen = next(key for key, value in sorted(tensors.items()) if value.ndim == 2 and value.size % 8 == 0)
    width = {"I64": 8, "F8_E4M3": 1, "F8_E5M2": 1, "BOOL": 1}.get(dtype, 4)
    save_file(tensors | {chosen: np.zeros(tensors[chosen].shape, f"i{width}")}, file)

    def declare(header):
        header[chosen]["dtype"] = dtype

    _rewrite_header(file, declare)
    with pytest.raises(UserError, match=rf"1 of a type other than BF16, F16, F32, F64 \({chosen} {dtype}\)"):
        read_pretrained(folder)


@pytest.mark.long
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module.model.", "model."])
def test_the_prefix_of_a_wrapper_is_no_part_of_a_name(models, name, folder, prefix):
    change(folder, lambda tensors: {prefix + key: value for key, value in tensors.items()})
    equal(read(read_pretrained(folder).params), random_params(models[name]))


@pytest.mark.long
def test_of_several_weights_those_that_can_be_read_are_taken(models, name, folder):
    """timm's model.safetensors may be beside OpenCLIP's; and the other way round."""
    (folder / "model.safetensors").rename(folder / "open_clip_model.safetensors")
    save_file({"blocks.0.attn.qkv.weight": np.zeros((2, 2), np.float32)}, folder / "model.safetensors")
    equal(read(read_pretrained(folder).params), random_params(models[name]))
    (folder / "open_clip_model.safetensors").write_bytes(b"short")
    with pytest.raises(UserError, match=r"does not fit the model.*not a whole safetensors file"):
        read_pretrained(folder)
