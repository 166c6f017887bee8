"""The ContextBLIP that stage 1 and stage 2b are compared with: sizes, random parameters, PyTorch's names."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from contextjax.models.blip import BLIPConfig
from contextjax.models.context_blip import ContextBLIP, ContextBLIPConfig
from contextjax.models.multimodal import BertConfig
from contextjax.pretrained import abstract_params
from contextjax.pretrained.blip import bert_layer
from contextjax.pretrained.names import SAME, ForeignTensors, NameTable, linear
from contextjax.variants import VARIANTS

_B: Any = VARIANTS["BLIP-B"]
_TINY_VISION = dataclasses.replace(
    _B.vision, image_size=32, patch_size=8, width=48, layers=4, heads=4, mlp=96, taps=(1, 2, 3, 4)
)
_TINY = ContextBLIPConfig(
    BLIPConfig(_TINY_VISION, BertConfig(64, 16, 48, 2, 4, 96), 16), decoder_layers=2, decoder_heads=4, fused_token=63
)
MODELS = {"BLIP-B": ContextBLIPConfig(_B), "tiny": _TINY}
LENGTHS = {"BLIP-B": 30, "tiny": 10}  # tokens of a text


def draw_params(model: ContextBLIP, *, without: str = "", seed: int = 0) -> dict[str, Any]:
    """Returns random parameters, zeros nowhere, without the submodule of that name."""
    rng = np.random.default_rng(seed)

    def draw(path: Any, x: Any) -> np.ndarray:
        noise = 0.02 * rng.standard_normal(x.shape, np.float32)
        return noise + np.float32(path[-1].key == "scale")

    shapes = {name: tree for name, tree in nn.unbox(abstract_params(model)).items() if name != without}
    return jax.tree_util.tree_map_with_path(draw, shapes)


def torch_names(config: ContextBLIPConfig) -> NameTable:
    """Returns the names of our parameters in stage1_torch's module; BLIP's parameters are not among them."""
    rows = linear("adapter/up", "adapter_up", bias=False) | linear("decoder/pixels", "head")
    for i in range(len(config.blip.vision.taps)):
        rows |= linear(f"adapter/down_{i}", f"adapter_down.{i}", bias=False)
    rows["decoder/mask_embedding"] = ForeignTensors(("mask_embedding",), SAME)
    rows["decoder/position_embedding"] = ForeignTensors(("positions.weight",), SAME)
    rows |= linear("decoder/text_adapter/down", "text_down", bias=False)
    rows |= linear("decoder/text_adapter/up", "text_up", bias=False)
    return rows | bert_layer("decoder/layer_{}", "decoder.{}")
