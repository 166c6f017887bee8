"""BLIP in the layout of the original release."""

import dataclasses

import numpy as np
from safetensors.numpy import save_file

from contextjax.models.blip import BLIP
from contextjax.pretrained import read_pretrained
from contextjax.pretrained.blip import original_table
from contextjax.pretrained.names import flatten, write
from tests.pretrained.conftest import BLIP_CONFIG, equal, random_params, read


def test_the_original_blip_release_is_read_from_its_shapes(tmp_path):
    """The released ViT has 64 features a head, the released BERT 12 heads."""
    vision = dataclasses.replace(BLIP_CONFIG.vision, width=64, heads=1, epsilon=1e-6)
    config = dataclasses.replace(BLIP_CONFIG, vision=vision, text=dataclasses.replace(BLIP_CONFIG.text, heads=12))
    params = random_params(BLIP(config))
    unneeded = {"text_decoder.x": np.ones(2, np.float32), "vision_proj_m.weight": np.ones(2, np.float32),
                "image_queue": np.ones(3, np.float32), "temp": np.ones((), np.float32)}  # fmt: skip
    save_file(write(original_table(config), flatten(params)) | unneeded, tmp_path / "blip.safetensors")
    checkpoint = read_pretrained(tmp_path / "blip.safetensors")
    assert checkpoint.model.config == config and set(checkpoint.left_out) == set(unneeded)
    equal(read(checkpoint.params), params)
