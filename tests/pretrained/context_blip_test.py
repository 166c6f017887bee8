"""The published names of ContextBLIP, in each of its stages."""

import dataclasses

import numpy as np
import pytest
from safetensors.numpy import save_file

from contextjax.models.context_blip import ContextBLIP, ContextBLIPConfig
from contextjax.pretrained import read_pretrained
from contextjax.pretrained.context_blip import published_table
from contextjax.pretrained.names import flatten, write
from tests.pretrained.conftest import BLIP_CONFIG, equal, random_params, read


@pytest.mark.parametrize("stage", ["", "blip.", "blip.blip."])
def test_published_names_of_every_stage_are_read_bitwise(tmp_path, stage):
    vision = dataclasses.replace(BLIP_CONFIG.vision, width=64, heads=1, layers=12, epsilon=1e-6, taps=(3, 6, 9, 12))
    text = dataclasses.replace(BLIP_CONFIG.text, heads=12)
    parts = {"masking": "none", "context_layers": 2} if stage else {"selection": "none", "context_layers": 0}
    config = ContextBLIPConfig(
        dataclasses.replace(BLIP_CONFIG, vision=vision, text=text), decoder_layers=4, decoder_heads=8,
        fused_token=text.vocabulary - 1, **parts,
    )  # fmt: skip
    params = random_params(ContextBLIP(config))
    tensors = {stage + name: x for name, x in write(published_table(config), flatten(params)).items()}
    save_file(tensors | {"temp": np.ones((), np.float32)}, tmp_path / "model.safetensors")
    checkpoint = read_pretrained(tmp_path)
    assert checkpoint.model.config == config and checkpoint.family.startswith("ContextBLIP")
    equal(read(checkpoint.params), params)
