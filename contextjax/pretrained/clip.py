"""Names and configs of CLIP, in Hugging Face's layout and in OpenCLIP's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contextjax.models.clip import CLIPConfig
from contextjax.models.text import TextConfig
from contextjax.models.vision import VisionConfig
from contextjax.pretrained.fields import Fields
from contextjax.pretrained.names import (
    PATCHES,
    SAME,
    ForeignTensors,
    NameTable,
    fused_attention,
    linear,
    norm,
    norms_and_mlp,
    separate_attention,
)
from contextjax.types import UserError

# Defaults of transformers, where a file leaves a key out.
TEXT = Fields(
    ("vocab_size", "vocabulary", 49408), ("max_position_embeddings", "positions", 77),
    width=512, heads=8, mlp=2048, activation="quick_gelu",
)  # fmt: skip
VISION = Fields(
    ("image_size", "image_size", 224), ("patch_size", "patch_size", 32), width=768, heads=12, mlp=3072,
    activation="quick_gelu",
)  # fmt: skip


def hf_config(config: Mapping[str, Any], pixels: Mapping[str, Any]) -> CLIPConfig:
    """Returns the CLIPConfig of a config.json; `pixels` are mean, std and fit from the preprocessor's file."""
    sections = {}
    for name in ("text_config", "vision_config"):
        # Old files may hold a second section, which replaces the first, as in transformers.
        sections[name] = config.get(f"{name}_dict") or config.get(name) or {}
    eos = sections["text_config"].get("eos_token_id")
    return CLIPConfig(
        VisionConfig(**VISION.read(sections["vision_config"], "vision_config"), **pixels),
        TextConfig(**TEXT.read(sections["text_config"], "text_config"), eos_token=eos if type(eos) is int else None),
        config.get("projection_dim", 512),
    )


def hf_config_json(config: CLIPConfig) -> dict[str, Any]:
    """Returns the config.json of a CLIPConfig, every key written out."""
    text, vision = config.text, config.vision
    _check_expressible(vision)
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": config.projection,
        "logit_scale_init_value": 2.6592,
        "text_config": {
            "model_type": "clip_text_model",
            "projection_dim": config.projection,
            **({} if text.eos_token is None else {"eos_token_id": text.eos_token}),
            **TEXT.write(text),
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "projection_dim": config.projection,
            "num_channels": 3,
            **VISION.write(vision),
        },
    }


def _check_expressible(vision: VisionConfig) -> None:
    """Raises a UserError where Hugging Face's CLIP has no such vision tower."""
    odd = {
        "stem": vision.stem is not None,
        "pooling": vision.pooling != "cls",
        "pre_norm": not vision.pre_norm,
        "patch_bias": vision.patch_bias,
    }
    if any(odd.values()):
        names = ", ".join(f"{name}={getattr(vision, name)}" for name, is_odd in odd.items() if is_odd)
        raise UserError(f"Hugging Face's CLIP has no {names}; choose --format=contextjax for this model.")


def hf_table(config: CLIPConfig) -> NameTable:
    """Returns the table of Hugging Face's names."""
    table: dict[str, ForeignTensors] = {
        "vision/class_embedding": ForeignTensors(("vision_model.embeddings.class_embedding",), SAME),
        "vision/patch_embedding/kernel": ForeignTensors(("vision_model.embeddings.patch_embedding.weight",), PATCHES),
        "vision/position_embedding": ForeignTensors(("vision_model.embeddings.position_embedding.weight",), SAME),
        **norm("vision/pre_norm", "vision_model.pre_layrnorm"),  # (sic)
        **norm("vision/post_norm", "vision_model.post_layernorm"),
        "text/token_embedding/embedding": ForeignTensors(("text_model.embeddings.token_embedding.weight",), SAME),
        "text/position_embedding": ForeignTensors(("text_model.embeddings.position_embedding.weight",), SAME),
        **norm("text/final_norm", "text_model.final_layer_norm"),
        **linear("visual_projection", "visual_projection", bias=False),
        **linear("text_projection", "text_projection", bias=False),
        "logit_scale": ForeignTensors(("logit_scale",), SAME),
    }
    for tower in ("vision", "text"):
        ours, theirs = f"{tower}/layer_{{}}", f"{tower}_model.encoder.layers.{{}}"
        attention = [f"{theirs}.self_attn.{name}_proj" for name in ("q", "k", "v", "out")]
        table |= norms_and_mlp(ours, theirs, norms=("layer_norm1", "layer_norm2"), mlp=("mlp.fc1", "mlp.fc2"))
        table |= separate_attention(f"{ours}/attention", attention[:3], attention[3])
    return table


def open_clip_config(config: Mapping[str, Any], pixels: Mapping[str, Any]) -> CLIPConfig:
    """Returns the CLIPConfig of an open_clip_config.json, with OpenCLIP's defaults where it leaves a key out."""
    model = config["model_cfg"]
    vision, text = model["vision_cfg"], model["text_cfg"]
    unknown = (set(vision) - {"image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio"}) | (
        set(text) - {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"}
    )
    if unknown or not isinstance(vision["layers"], int):
        raise UserError(
            f"open_clip_config.json asks for {', '.join(sorted(unknown)) or 'a ResNet'}, which is not read; expected "
            "one of OpenCLIP's plain ViT models."
        )
    activation = "quick_gelu" if model.get("quick_gelu", False) else "gelu"
    vision_width, text_width = vision.get("width", 768), text.get("width", 512)
    return CLIPConfig(
        VisionConfig(
            image_size=_side(vision, "image_size", 224),
            patch_size=_side(vision, "patch_size", 16),
            width=vision_width,
            layers=vision["layers"],
            heads=vision_width // vision.get("head_width", 64),
            mlp=int(vision_width * vision.get("mlp_ratio", 4.0)),
            activation=activation,
            **pixels,
        ),
        TextConfig(
            vocabulary=text.get("vocab_size", 49408),
            positions=text.get("context_length", 77),
            width=text_width,
            layers=text.get("layers", 12),
            heads=text.get("heads", 8),
            mlp=int(text_width * text.get("mlp_ratio", 4.0)),
            activation=activation,
            eos_token=2,  # which transformers takes for the largest id, as OpenCLIP does
        ),
        model["embed_dim"],
    )


def _side(section: Mapping[str, Any], key: str, default: int) -> int:
    """Returns the side of a square, which OpenCLIP gives as a number or as two."""
    value = section.get(key, default)
    if isinstance(value, list) and value and value == [value[0]] * 2:
        value = value[0]
    if type(value) is not int or value < 1:
        raise UserError(f"open_clip_config.json: vision_cfg.{key} is {value!r}; expected a number, or two equal ones.")
    return value


def open_clip_table(config: CLIPConfig) -> NameTable:
    """Returns the table of OpenCLIP's names. Its two projections are applied as x @ P, so they are not transposed."""
    table: dict[str, ForeignTensors] = {
        "vision/class_embedding": ForeignTensors(("visual.class_embedding",), SAME),
        "vision/patch_embedding/kernel": ForeignTensors(("visual.conv1.weight",), PATCHES),
        "vision/position_embedding": ForeignTensors(("visual.positional_embedding",), SAME),
        **norm("vision/pre_norm", "visual.ln_pre"),
        **norm("vision/post_norm", "visual.ln_post"),
        "text/token_embedding/embedding": ForeignTensors(("token_embedding.weight",), SAME),
        "text/position_embedding": ForeignTensors(("positional_embedding",), SAME),
        **norm("text/final_norm", "ln_final"),
        "visual_projection/kernel": ForeignTensors(("visual.proj",), SAME),
        "text_projection/kernel": ForeignTensors(("text_projection",), SAME),
        "logit_scale": ForeignTensors(("logit_scale",), SAME),
    }
    for ours, theirs in (
        ("vision/layer_{}", "visual.transformer.resblocks.{}"),
        ("text/layer_{}", "transformer.resblocks.{}"),
    ):
        table |= norms_and_mlp(ours, theirs, norms=("ln_1", "ln_2"), mlp=("mlp.c_fc", "mlp.c_proj"))
        attention = f"{theirs}.attn"
        table |= fused_attention(
            f"{ours}/attention", f"{attention}.in_proj_weight", f"{attention}.in_proj_bias", f"{attention}.out_proj"
        )
    return table
