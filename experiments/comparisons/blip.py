"""The ContextBLIP of the comparisons of stage 1 and stage 2b: sizes, random parameters and batches, PyTorch's names."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from configs import context_blip as recipe
from contextjax.models.blip import BLIPConfig
from contextjax.models.context_blip import ContextBLIP, ContextBLIPConfig
from contextjax.models.multimodal import BertConfig
from contextjax.objectives.context_blip import Draws
from contextjax.pretrained import abstract_params
from contextjax.pretrained.blip import bert_layer
from contextjax.pretrained.names import SAME, ForeignTensors, NameTable, linear
from contextjax.types import CaptionBatch, Tokens
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
TRAINED = "trained.safetensors"  # the file of the parameters that stage 1 trains, under PyTorch's names


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


def stage1_config(size: str) -> ContextBLIPConfig:
    """Returns the model's config as stage 1 trains it."""
    return dataclasses.replace(MODELS[size], selection="none", context_layers=0)


def make_stage1_batch(size: str, batch: int, *, seed: int = 0) -> tuple[CaptionBatch, Draws]:
    """Returns random pictures, texts of half the length or more, and the draws of a step."""
    config, length, rng = stage1_config(size), LENGTHS[size], np.random.default_rng(seed)
    vision, own = config.blip.vision, np.arange(batch, dtype=np.int32)
    ids = rng.integers(1, config.blip.text.vocabulary - 3, (batch, length)).astype(np.int32)
    mask = np.arange(length) < rng.integers(length // 2, length + 1, (batch, 1))
    images = rng.integers(0, 256, (batch, vision.image_size, vision.image_size, 3), np.uint8)
    draws = Draws(
        negative_image=(own + rng.integers(1, batch, batch).astype(np.int32)) % batch,
        negative_text=(own + rng.integers(1, batch, batch).astype(np.int32)) % batch,
        position=np.full(batch, rng.integers(1, length // 2), np.int32),  # one for all, as published
        noise=rng.random((batch, (vision.image_size // vision.patch_size) ** 2), np.float32),
    )
    return CaptionBatch(images, Tokens(np.where(mask, ids, 0), mask), own, own), draws


def stage1_optimizer(*, is_frozen: bool = True) -> Any:
    """Returns the recipe's `optimizer` section without schedule and clipping, which the paper's step does not time.

    The learning rate is that of a step of its warm-up, so that the loss after an update can be compared as well.
    """
    section = recipe.get_config("1").optimizer
    section.update(learning_rate=1e-5, warmup_steps=0, decay_factor=1.0, clip_norm=1e9)
    section.freeze = section.freeze if is_frozen else ()
    return section
