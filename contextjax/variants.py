"""The size table: named towers, and a model from the config's `model` section."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from contextjax.models import context_blip, context_cir
from contextjax.models.blip import BLIPConfig
from contextjax.models.clip import CLIPConfig
from contextjax.models.context_blip import ContextBLIP, ContextBLIPConfig
from contextjax.models.context_cir import ContextCIR, ContextCIRConfig
from contextjax.models.layers import ATTENTIONS, REMATS
from contextjax.models.multimodal import BertConfig
from contextjax.models.text import TextConfig
from contextjax.models.vision import VisionConfig
from contextjax.types import UserError

_TEXT_B = TextConfig(vocabulary=49408, positions=77, width=512, layers=12, heads=8, mlp=2048)
_TEXT_L = dataclasses.replace(_TEXT_B, width=768, heads=12, mlp=3072)
_TEXT_H = TextConfig(49408, 77, width=1024, layers=24, heads=16, mlp=4096, activation="gelu")
_BLIP_VISION = VisionConfig(
    224, 16, 768, 12, 12, 3072, activation="gelu", epsilon=1e-6, pre_norm=False, patch_bias=True, fit="squash",
    taps=(3, 6, 9, 12),
)  # fmt: skip
# Small enough for two CPU cores, trained from scratch.
_VISION_S = VisionConfig(
    64, 16, 128, 3, 4, 512, stem=(4, 32), pooling="grid", position_std=0.7, mean=(1.0, 1.0, 1.0), std=(0.3, 0.3, 0.3)
)

VARIANTS: Mapping[str, CLIPConfig | BLIPConfig] = {
    "B32": CLIPConfig(VisionConfig(224, 32, 768, 12, 12, 3072), _TEXT_B, 512),
    "B16": CLIPConfig(VisionConfig(224, 16, 768, 12, 12, 3072), _TEXT_B, 512),
    "L14": CLIPConfig(VisionConfig(224, 14, 1024, 24, 16, 4096), _TEXT_L, 768),
    "L14-336": CLIPConfig(VisionConfig(336, 14, 1024, 24, 16, 4096), _TEXT_L, 768),
    "H14": CLIPConfig(VisionConfig(224, 14, 1280, 32, 16, 5120, activation="gelu"), _TEXT_H, 1024),
    "S16": CLIPConfig(_VISION_S, TextConfig(vocabulary=1024, positions=36, width=128, layers=2, heads=4, mlp=512), 128),
    "BLIP-B": BLIPConfig(_BLIP_VISION, BertConfig(30524, 512, 768, 12, 12, 3072), 256),
    "BLIP-S16": BLIPConfig(
        dataclasses.replace(_VISION_S, taps=(1, 2, 3)),
        BertConfig(vocabulary=1024, positions=64, width=128, layers=2, heads=4, mlp=512),
        128,
    ),
}


@dataclasses.dataclass(frozen=True)
class _Kind:
    """A system: its module, its config's class, what its towers are and what some fields may be."""

    module: Any
    config: Any
    towers: str  # the field of the config that holds the towers' config
    tower_config: Any
    text_config: Any
    choices: Mapping[str, tuple[str, ...]]


SYSTEMS: Mapping[str, _Kind] = {
    "context_cir": _Kind(
        ContextCIR, ContextCIRConfig, "clip", CLIPConfig, TextConfig,
        {"query": context_cir.QUERIES, "fusion_head": context_cir.HEADS},
    ),
    "context_blip": _Kind(
        ContextBLIP, ContextBLIPConfig, "blip", BLIPConfig, BertConfig,
        {
            "adapter": context_blip.ADAPTERS,
            "masking": context_blip.MASKINGS,
            "selection": context_blip.SELECTIONS,
        },
    ),
}  # fmt: skip


def resolve(config: Any) -> dict[str, Any]:
    """All sizes of a config's `model` section, so that config.json holds the whole model, not a name of it.

    Args:
      config: `variant` (a name of VARIANTS; "" where all sizes are given), `vision`, `text` and `projection` (what to
        replace in it), and the fields of the system's config.

    Raises:
      UserError: an unknown variant, one of the other system, or an unknown field of a tower.
    """
    if not config.variant:  # a section that is resolved already
        return {**config, "vision": dict(config.vision), "text": dict(config.text)}
    kind = _kind(config)
    fitting = {name: towers for name, towers in VARIANTS.items() if isinstance(towers, kind.tower_config)}
    variant = _choose("model.variant", config.variant, fitting)
    towers = describe(variant)
    for name in ("vision", "text"):
        for key in config[name]:
            _choose(f"a field of model.{name}", key, towers[name])
        towers[name] |= dict(config[name])
    return {**config, **towers, "projection": config.projection or variant.projection}


def describe(config: Any) -> dict[str, Any]:
    """All sizes of towers, as a config's `model` section has them; of a system's config, a whole section."""
    for name, kind in SYSTEMS.items():
        if isinstance(config, kind.config):
            own = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name != kind.towers}
            towers = describe(getattr(config, kind.towers))
            return {"system": name, "variant": "", "dtype": "float32", **towers, **own}
    towers = {name: dataclasses.asdict(getattr(config, name)) for name in ("vision", "text")}
    return {**towers, "projection": config.projection}


def make_model(config: Any, *, vocabulary: int | None = None) -> ContextCIR | ContextBLIP:
    """The module of a config's `model` section, resolved or not.

    Args:
      config: see `resolve`; `system` names the module, `dtype` is that of the computation, parameters are float32.
      vocabulary: number of token ids, where the tokenizer was trained with the model.

    Raises:
      UserError: an unknown system, variant, choice or dtype, or a width that the heads do not divide.
    """
    kind, sizes = _kind(config), resolve(config)
    for field, known in kind.choices.items():
        _choose(f"model.{field}", config[field], dict.fromkeys(known))
    dtype = _choose("model.dtype", config.dtype, {"float32": jnp.float32, "bfloat16": jnp.bfloat16})
    vision = VisionConfig(**_tower("vision", sizes["vision"]))
    text = kind.text_config(**(_tower("text", sizes["text"]) | ({"vocabulary": vocabulary} if vocabulary else {})))
    # A run from before a field was there has its default.
    own = {f.name: config.get(f.name, f.default) for f in dataclasses.fields(kind.config) if f.name != kind.towers}
    heads = {name: value for name, value in own.items() if name.endswith("_heads") and name != "pooling_heads"}
    if own.get("pooling_heads") and own["selection"] not in ("itc", "both"):
        raise UserError(
            f"model.pooling_heads is {own['pooling_heads']}, but model.selection is '{own['selection']}', which has no "
            "base score; set it to 0, or the selection to 'itc' or 'both'."
        )
    if own.get("pooling_heads") and sizes["projection"] % own["pooling_heads"]:
        raise UserError(
            f"model.projection is {sizes['projection']}, which model.pooling_heads, {own['pooling_heads']}, does not "
            "divide; choose a multiple."
        )
    for name, width, count in (
        ("vision", vision.width, vision.heads),
        ("text", text.width, text.heads),
        *(("vision", vision.width, count) for count in heads.values()),
    ):
        if width % count:
            raise UserError(f"model.{name}.width is {width}, which {count} heads do not divide; choose a multiple.")
    if beyond := [tap for tap in vision.taps if tap > vision.layers]:
        raise UserError(f"model.vision.taps names block {beyond[0]}, but there are {vision.layers}; choose among them.")
    return kind.module(kind.config(kind.tower_config(vision, text, sizes["projection"]), **own), dtype)


def _kind(config: Any) -> _Kind:
    # Runs that began before there were two systems do not name theirs.
    return _choose("model.system", config.get("system", "context_cir"), SYSTEMS)


def _tower(name: str, section: Mapping[str, Any]) -> dict[str, Any]:
    """A tower's fields, checked."""
    fields = {key: tuple(value) if isinstance(value, list | tuple) else value for key, value in section.items()}
    if isinstance(fields.get("remat"), bool):  # of a run from before there were several
        fields["remat"] = "full" if fields["remat"] else "none"
    for key, known in (("remat", tuple(REMATS)), ("attention", ATTENTIONS)):
        _choose(f"model.{name}.{key}", str(fields.get(key, known[0])), dict.fromkeys(known))
    return fields


def _choose(key: str, name: str, table: Mapping[str, Any]) -> Any:
    if name not in table:
        raise UserError(f"{key} is '{name}'; known are {', '.join(table)}.")
    return table[name]
