"""CLIP in Hugging Face's and in OpenCLIP's layout."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file

from contextjax.pretrained import read_pretrained, write_pretrained
from contextjax.pretrained.clip import open_clip_table
from contextjax.pretrained.names import flatten, write
from contextjax.types import UserError
from tests.pretrained.conftest import equal, random_params, read


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
    checkpoint = read_pretrained(tmp_path)
    assert checkpoint.left_out == [] and checkpoint.model.config.vision.std == (0.5, 0.25, 0.5)
    assert checkpoint.model.config.text == dataclasses.replace(text, eos_token=2)
    equal(read(checkpoint.params), params)
    described["model_cfg"]["vision_cfg"] |= {
        "image_size": [vision.image_size] * 2,
        "patch_size": [vision.patch_size] * 2,
    }
    described["preprocess_cfg"] |= {
        "resize_mode": "squash",
        "interpolation": "bicubic",
        "size": [vision.image_size] * 2,
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps(described))
    checkpoint = read_pretrained(tmp_path)
    assert checkpoint.model.config.vision == dataclasses.replace(
        vision, mean=(0.5, 0.5, 0.5), std=(0.5, 0.25, 0.5), fit="squash"
    )
    described["model_cfg"]["vision_cfg"]["timm_model_name"] = "x"
    (tmp_path / "open_clip_config.json").write_text(json.dumps(described))
    with pytest.raises(UserError, match="timm_model_name"):
        read_pretrained(tmp_path)


def test_a_second_section_replaces_the_first_as_in_old_files(models, folders, tmp_path, edit_json):
    folder = shutil.copytree(folders["clip"], tmp_path / "clip")
    edit_json(folder / "config.json",
              lambda c: {**c, "text_config_dict": c["text_config"], "text_config": {"hidden_size": 4},
                         "vision_config_dict": None})  # fmt: skip
    assert read_pretrained(folder).model == models["clip"]


def test_a_model_that_hugging_face_has_no_class_for(models, tmp_path):
    config = models["clip"].config
    odd = dataclasses.replace(config, vision=dataclasses.replace(config.vision, pooling="grid"))
    with pytest.raises(UserError, match="no pooling=grid"):
        write_pretrained(tmp_path / "odd", odd, {})
    assert not (tmp_path / "odd").exists()
