"""Names and config of BLIP-2 for image-text retrieval, in Hugging Face's layout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contextjax.models.blip2 import BLIP2Config
from contextjax.models.qformer import QFormerConfig
from contextjax.models.vision import VisionConfig
from contextjax.pretrained.fields import Fields
from contextjax.pretrained.names import (
    PATCHES,
    SAME,
    ForeignTensors,
    NameTable,
    fused_attention,
    leading_ones,
    linear,
    norm,
    norms_and_mlp,
    separate_attention,
)
from contextjax.types import UserError

# Defaults of transformers, where a file leaves a key out; published files do so of most.
TEXT = Fields(
    ("vocab_size", "vocabulary", 30522), ("max_position_embeddings", "positions", 512),
    ("cross_attention_frequency", "cross_every", 2),
    width=768, heads=12, mlp=3072, activation="gelu", epsilon=1e-12,
)  # fmt: skip
VISION = Fields(
    ("image_size", "image_size", 224), ("patch_size", "patch_size", 14),
    width=1408, layers=39, heads=16, mlp=6144, activation="gelu", epsilon=1e-6,
)  # fmt: skip
LEFT_OUT = r"^(language_model|language_projection)\."


def hf_config(config: Mapping[str, Any], pixels: Mapping[str, Any]) -> BLIP2Config:
    """Returns the BLIP2Config of a config.json; `pixels` are mean, std and fit from the preprocessor's file.

    Raises:
      UserError: the Q-Former reads no text, or another picture's width, or a value is not known.
    """
    vision_section, text_section = (config.get(f"{name}_config") or {} for name in ("vision", "qformer"))
    if not text_section.get("use_qformer_text_input", False):
        raise UserError(
            "qformer_config.use_qformer_text_input is not true: this Q-Former reads no text, as in BLIP-2 weights that "
            "caption; give those for retrieval (Blip2ForImageTextRetrieval), such as Salesforce/blip2-itm-vit-g-coco."
        )
    if not vision_section.get("qkv_bias", True):
        raise UserError("vision_config.qkv_bias is false; expected BLIP-2's image tower, whose attention has biases.")
    vision, text = VISION.read(vision_section, "vision_config"), TEXT.read(text_section, "qformer_config")
    width = text_section.get("encoder_hidden_size", vision["width"])
    if width != vision["width"]:
        raise UserError(
            f"qformer_config.encoder_hidden_size is {width!r}, but vision_config.hidden_size {vision['width']}: the "
            "Q-Former is of another image tower; give weights and config.json of one model."
        )
    return BLIP2Config(
        VisionConfig(**vision, pre_norm=False, patch_bias=True, **pixels),
        QFormerConfig(**text, query_tokens=config.get("num_query_tokens", 32)),
        config.get("image_text_hidden_size", 256),
    )


def hf_config_json(config: BLIP2Config) -> dict[str, Any]:
    """Returns the config.json of a BLIP2Config, every key of what retrieval needs written out."""
    return {
        "architectures": ["Blip2ForImageTextRetrieval"],
        "model_type": "blip-2",
        "image_text_hidden_size": config.projection,
        "num_query_tokens": config.text.query_tokens,
        "qformer_config": {
            "model_type": "blip_2_qformer",
            "use_qformer_text_input": True,
            "encoder_hidden_size": config.vision.width,
            **TEXT.write(config.text),
        },
        "vision_config": {"model_type": "blip_2_vision_model", "qkv_bias": True, **VISION.write(config.vision)},
    }


def hf_table(config: BLIP2Config) -> NameTable:
    """Returns the table of Hugging Face's names."""
    embeddings, layer = "vision_model.embeddings", "vision_model.encoder.layers.{}"
    return {
        "vision/class_embedding": ForeignTensors((f"{embeddings}.class_embedding",), leading_ones(2)),
        "vision/position_embedding": ForeignTensors((f"{embeddings}.position_embedding",), leading_ones(1)),
        "vision/patch_embedding/kernel": ForeignTensors((f"{embeddings}.patch_embedding.weight",), PATCHES),
        "vision/patch_embedding/bias": ForeignTensors((f"{embeddings}.patch_embedding.bias",), SAME),
        **norm("vision/post_norm", "vision_model.post_layernorm"),
        **norms_and_mlp(
            "vision/layer_{}", layer, norms=("layer_norm1", "layer_norm2"), mlp=("mlp.fc1", "mlp.fc2")
        ),
        **fused_attention(
            "vision/layer_{}/attention", f"{layer}.self_attn.qkv.weight", f"{layer}.self_attn.qkv.bias",
            f"{layer}.self_attn.projection",
        ),
        **_qformer("text", "qformer.encoder.layer.{}"),
        **linear("visual_projection", "vision_projection"),
        **linear("text_projection", "text_projection"),
        **linear("matching_head", "itm_head"),
    }  # fmt: skip


def _qformer(ours: str, layer: str) -> dict[str, ForeignTensors]:
    own, cross = f"{ours}/layer_{{}}", f"{layer}.crossattention"
    rows = {
        f"{ours}/query_tokens": ForeignTensors(("query_tokens",), leading_ones(1)),
        f"{ours}/token_embedding/embedding": ForeignTensors(("embeddings.word_embeddings.weight",), SAME),
        f"{ours}/position_embedding": ForeignTensors(("embeddings.position_embeddings.weight",), SAME),
        **norm(f"{ours}/embedding_norm", "qformer.layernorm"),
        **separate_attention(
            f"{own}/attention", [f"{layer}.attention.attention.{name}" for name in ("query", "key", "value")],
            f"{layer}.attention.output.dense",
        ),
        **norm(f"{own}/attention_norm", f"{layer}.attention.output.LayerNorm"),
        **linear(f"{own}/cross_attention/out", f"{cross}.output.dense"),
        **norm(f"{own}/cross_attention_norm", f"{cross}.output.LayerNorm"),
    }  # fmt: skip
    for name in ("query", "key", "value"):
        rows |= linear(f"{own}/cross_attention/{name}", f"{cross}.attention.{name}")
    for mlp, suffix in (("mlp", ""), ("query_mlp", "_query")):
        rows |= linear(f"{own}/{mlp}/up", f"{layer}.intermediate{suffix}.dense")
        rows |= linear(f"{own}/{mlp}/down", f"{layer}.output{suffix}.dense")
        rows |= norm(f"{own}/{mlp}_norm", f"{layer}.output{suffix}.LayerNorm")
    return rows
