"""The published names of ConText-CIR."""

import shutil

from safetensors.numpy import save_file

from contextjax.models.context_cir import ContextCIR, ContextCIRConfig
from contextjax.pretrained import read_pretrained
from contextjax.pretrained.context_cir import published_table as cir_table
from contextjax.pretrained.names import flatten, write
from tests.pretrained.conftest import equal, random_params, read


def test_published_names_are_read_bitwise(models, folders, tmp_path):
    """CLIP's text projection and temperature, which the published files lack, are zeros."""
    config = ContextCIRConfig(models["clip"].config, fusion_layers=2)
    params = random_params(ContextCIR(config))
    params["clip"]["logit_scale"] *= 0
    params["clip"]["text_projection"]["kernel"] *= 0
    save_file(write(cir_table(config), flatten(params)), tmp_path / "model.safetensors")
    for name in ("config.json", "preprocessor_config.json"):
        shutil.copy(folders["clip"] / name, tmp_path)
    checkpoint = read_pretrained(tmp_path)
    assert checkpoint.model == ContextCIR(config) and checkpoint.left_out == []
    equal(read(checkpoint.params), params)
