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
    tower = "text_model.final_layer_norm.bias" if name == "clip" else "text_proj.bias"

    def spoil(tensors):
        tensors[tower][1] = value
        return tensors

    change(folder, spoil)
    with pytest.raises(UserError, match=f"{tower}.* 1 values that are not"):
        read(read_pretrained(folder).params)


def test_half_precision_files_are_read_as_float32(models, name, folder):
    change(folder, lambda t: {key: x.astype(np.float16) for key, x in t.items()})
    written = flatten(random_params(models[name]))
    for path, value in flatten(read(read_pretrained(folder).params)).items():
        expected = written[path].astype(np.float16).astype(np.float32)
        assert value.dtype == np.float32 and np.array_equal(value, expected), path
