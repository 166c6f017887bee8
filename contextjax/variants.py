"""The size table: named models, and a model from the config's `model` section."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from contextjax.models.clip import CLIPConfig
from contextjax.models.context_cir import HEADS, QUERIES, ContextCIR, ContextCIRConfig
from contextjax.models.text import TextConfig
from contextjax.models.vision import VisionConfig
from contextjax.types import UserError

_TEXT_B = TextConfig(vocabulary=49408, positions=77, width=512, layers=12, heads=8, mlp=2048)
_TEXT_L = dataclasses.replace(_TEXT_B, width=768, heads=12, mlp=3072)
_TEXT_H = TextConfig(49408, 77, width=1024, layers=24, heads=16, mlp=4096, activation="gelu")

VARIANTS: Mapping[str, CLIPConfig] = {
    "B32": CLIPConfig(VisionConfig(224, 32, 768, 12, 12, 3072), _TEXT_B, 512),
    "B16": CLIPConfig(VisionConfig(224, 16, 768, 12, 12, 3072), _TEXT_B, 512),
    "L14": CLIPConfig(VisionConfig(224, 14, 1024, 24, 16, 4096), _TEXT_L, 768),
    "L14-336": CLIPConfig(VisionConfig(336, 14, 1024, 24, 16, 4096), _TEXT_L, 768),
    "H14": CLIPConfig(VisionConfig(224, 14, 1280, 32, 16, 5120, activation="gelu"), _TEXT_H, 1024),
    # Small enough for two CPU cores, trained from scratch.
    "S16": CLIPConfig(
        VisionConfig(
            64,
            16,
            128,
            3,
            4,
            512,
            stem=(4, 32),
            pooling="grid",
            position_std=0.7,
            mean=(1.0, 1.0, 1.0),
            std=(0.3, 0.3, 0.3),
        ),
        TextConfig(vocabulary=1024, positions=36, width=128, layers=2, heads=4, mlp=512),
        128,
    ),
}


def resolve(config: Any) -> dict[str, Any]:
    """All sizes of a config's `model` section, so that config.json holds the whole model, not a name of it.

    Args:
      config: `variant` (a name of VARIANTS; "" where all sizes are given), `vision`, `text` and `projection` (what to
        replace in it), and the fields of ContextCIRConfig.

    Raises:
      UserError: an unknown variant, or an unknown field of a tower.
    """
    if not config.variant:  # a section that is resolved already
        return {**config, "vision": dict(config.vision), "text": dict(config.text)}
    clip = _choose("model.variant", config.variant, VARIANTS)
    towers = describe(clip)
    for name in ("vision", "text"):
        for key in config[name]:
            _choose(f"a field of model.{name}", key, towers[name])
        towers[name] |= dict(config[name])
    return {**config, **towers, "projection": config.projection or clip.projection}


def describe(config: CLIPConfig | ContextCIRConfig) -> dict[str, Any]:
    """All sizes, as a config's `model` section has them; of a ContextCIRConfig, a whole section."""
    if isinstance(config, ContextCIRConfig):
        own = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name != "clip"}
        return {"variant": "", "dtype": "float32", **describe(config.clip), **own}
    clip = config
    towers = {name: dataclasses.asdict(getattr(clip, name)) for name in ("vision", "text")}
    return {**towers, "projection": clip.projection}


def make_context_cir(config: Any, *, vocabulary: int | None = None) -> ContextCIR:
    """The module of a config's `model` section, resolved or not.

    Args:
      config: see `resolve`; `dtype` is that of the computation, parameters are float32.
      vocabulary: number of token ids, where the tokenizer was trained with the model.

    Raises:
      UserError: an unknown variant, query or dtype, or a width that the heads do not divide.
    """
    sizes = resolve(config)
    _choose("model.query", config.query, dict.fromkeys(QUERIES))
    _choose("model.fusion_head", config.fusion_head, dict.fromkeys(HEADS))
    dtype = _choose("model.dtype", config.dtype, {"float32": jnp.float32, "bfloat16": jnp.bfloat16})
    vision: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list | tuple) else value for key, value in sizes["vision"].items()
    }
    text = sizes["text"] | ({"vocabulary": vocabulary} if vocabulary else {})
    clip = CLIPConfig(VisionConfig(**vision), TextConfig(**text), sizes["projection"])
    for name, width, heads in (
        ("vision", clip.vision.width, clip.vision.heads),
        ("vision", clip.vision.width, config.fusion_heads),
        ("text", clip.text.width, clip.text.heads),
    ):
        if width % heads:
            raise UserError(f"model.{name}.width is {width}, which {heads} heads do not divide; choose a multiple.")
    fields = {f.name for f in dataclasses.fields(ContextCIRConfig)} - {"clip"}
    return ContextCIR(ContextCIRConfig(clip=clip, **{name: config[name] for name in fields}), dtype)


def _choose(key: str, name: str, table: Mapping[str, Any]) -> Any:
    if name not in table:
        raise UserError(f"{key} is '{name}'; known are {', '.join(table)}.")
    return table[name]
