"""BLIP for retrieval: Hugging Face's names and config.json, and those of the original release; and plain BERT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contextjax.models.blip import BLIPConfig
from contextjax.models.multimodal import BertConfig
from contextjax.models.vision import VisionConfig
from contextjax.pretrained.fields import Fields
from contextjax.pretrained.names import (
    PATCHES,
    SAME,
    Layout,
    Source,
    Table,
    fused_attention,
    leading_ones,
    linear,
    norm,
    separate_attention,
)
from contextjax.pretrained.tensors import Tensor
from contextjax.types import UserError


def _text_fields(*, vocabulary: int, heads: int) -> Fields:
    return Fields(
        ("vocab_size", "vocabulary", vocabulary),
        ("max_position_embeddings", "positions", 512),
        ("hidden_size", "width", 768),
        ("num_hidden_layers", "layers", 12),
        ("num_attention_heads", "heads", heads),
        ("intermediate_size", "mlp", 3072),
        ("hidden_act", "activation", "gelu"),
        ("layer_norm_eps", "epsilon", 1e-12),
    )


# What transformers takes where a file leaves a key out; BLIP's published files say 12 heads.
TEXT = _text_fields(vocabulary=30524, heads=8)
BERT = _text_fields(vocabulary=30522, heads=12)
VISION = Fields(
    ("image_size", "image_size", 384),
    ("patch_size", "patch_size", 16),
    ("hidden_size", "width", 768),
    ("num_hidden_layers", "layers", 12),
    ("num_attention_heads", "heads", 12),
    ("intermediate_size", "mlp", 3072),
    ("hidden_act", "activation", "gelu"),
    ("layer_norm_eps", "epsilon", 1e-5),
)


def hf_config(config: Mapping[str, Any], pixels: Mapping[str, Any]) -> BLIPConfig:
    """BLIPConfig of a config.json. `pixels`: what the preprocessor's file says (mean, std, fit)."""
    vision = VISION.read(config.get("vision_config") or {}, "vision_config")
    text = TEXT.read(config.get("text_config") or {}, "text_config")
    return BLIPConfig(
        VisionConfig(**vision, pre_norm=False, patch_bias=True, **pixels),
        BertConfig(**text),
        config.get("image_text_hidden_size", 256),
    )


def hf_config_json(config: BLIPConfig) -> dict[str, Any]:
    """The config.json of a BLIPConfig, every key written out."""
    return {
        "architectures": ["BlipForImageTextRetrieval"],
        "model_type": "blip",
        "image_text_hidden_size": config.projection,
        "projection_dim": 512,
        "logit_scale_init_value": 2.6592,
        "text_config": {
            "model_type": "blip_text_model",
            "encoder_hidden_size": config.vision.width,
            "is_decoder": True,  # that is, with cross-attention
            **TEXT.write(config.text),
        },
        "vision_config": {"model_type": "blip_vision_model", **VISION.write(config.vision)},
    }


def hf_table(config: BLIPConfig) -> Table:
    """Our parameters by Hugging Face's names."""
    layer = "vision_model.encoder.layers.{}"
    return {
        "vision/class_embedding": Source(("vision_model.embeddings.class_embedding",), leading_ones(2)),
        "vision/position_embedding": Source(("vision_model.embeddings.position_embedding",), leading_ones(1)),
        **_patches("vision_model.embeddings.patch_embedding"),
        **norm("vision/post_norm", "vision_model.post_layernorm"),
        **norm("vision/layer_{}/attention_norm", f"{layer}.layer_norm1"),
        **norm("vision/layer_{}/mlp_norm", f"{layer}.layer_norm2"),
        **fused_attention(
            "vision/layer_{}/attention",
            f"{layer}.self_attn.qkv.weight",
            f"{layer}.self_attn.qkv.bias",
            f"{layer}.self_attn.projection",
        ),
        **linear("vision/layer_{}/mlp/up", f"{layer}.mlp.fc1"),
        **linear("vision/layer_{}/mlp/down", f"{layer}.mlp.fc2"),
        **_text_and_heads(),
    }


def original_table(config: BLIPConfig) -> Table:
    """Our parameters by the names of the original release."""
    layer = "visual_encoder.blocks.{}"
    return {
        "vision/class_embedding": Source(("visual_encoder.cls_token",), leading_ones(2)),
        "vision/position_embedding": Source(("visual_encoder.pos_embed",), leading_ones(1)),
        **_patches("visual_encoder.patch_embed.proj"),
        **norm("vision/post_norm", "visual_encoder.norm"),
        **norm("vision/layer_{}/attention_norm", f"{layer}.norm1"),
        **norm("vision/layer_{}/mlp_norm", f"{layer}.norm2"),
        **fused_attention(
            "vision/layer_{}/attention", f"{layer}.attn.qkv.weight", f"{layer}.attn.qkv.bias", f"{layer}.attn.proj"
        ),
        **linear("vision/layer_{}/mlp/up", f"{layer}.mlp.fc1"),
        **linear("vision/layer_{}/mlp/down", f"{layer}.mlp.fc2"),
        **_text_and_heads(),
    }


ORIGINAL_LEFT_OUT = r"^text_decoder\.|_m(\.|$)|_queue$|^queue_ptr$|^ptr_queue$|^temp$"


def original_config(tensors: Mapping[str, Tensor], pixels: Mapping[str, Any]) -> BLIPConfig:
    """BLIPConfig of the original release, which has no config.json: sizes from the shapes, the rest as released.

    Released are ViT-B and ViT-L with 64 features a head, BERT with 12 heads, LayerNorm epsilons 1e-6 and 1e-12.

    Raises:
      UserError: tensors that the sizes are read from are missing.
    """
    try:
        shape = {name: tensor.shape for name, tensor in tensors.items()}
        width, _, patch, _ = shape["visual_encoder.patch_embed.proj.weight"]
        patches = shape["visual_encoder.pos_embed"][1] - 1
        vocabulary, text_width = shape["text_encoder.embeddings.word_embeddings.weight"]
        vision = VisionConfig(
            image_size=patch * round(patches**0.5),
            patch_size=patch,
            width=width,
            layers=_count(shape, "visual_encoder.blocks."),
            heads=max(width // 64, 1),
            mlp=shape["visual_encoder.blocks.0.mlp.fc1.weight"][0],
            activation="gelu",
            epsilon=1e-6,
            pre_norm=False,
            patch_bias=True,
            **pixels,
        )
        text = BertConfig(
            vocabulary=vocabulary,
            positions=shape["text_encoder.embeddings.position_embeddings.weight"][0],
            width=text_width,
            layers=_count(shape, "text_encoder.encoder.layer."),
            heads=12,
            mlp=shape["text_encoder.encoder.layer.0.intermediate.dense.weight"][0],
        )
        return BLIPConfig(vision, text, shape["vision_proj.weight"][0])
    except (KeyError, ValueError, IndexError) as error:
        raise UserError(
            f"This is no BLIP retrieval checkpoint of the original release ({error} is missing or ill-shaped)."
        ) from error


def bert_config(config: Mapping[str, Any], pixels: Mapping[str, Any]) -> BertConfig:
    """BertConfig of a plain BERT encoder's config.json."""
    return BertConfig(**BERT.read(config, "config.json"), cross_attention=False)


def bert_table(config: BertConfig) -> Table:
    """A plain BERT by Hugging Face's names. Only token type 0 occurs, so its row is folded into the positions."""
    fold = Layout(lambda positions, types: positions + types[0], lambda x: [x, x[:2] * 0])
    names = ("embeddings.position_embeddings.weight", "embeddings.token_type_embeddings.weight")
    return _bert("", "") | {"position_embedding": Source(names, fold)}


def _patches(theirs: str) -> Table:
    return {
        "vision/patch_embedding/kernel": Source((f"{theirs}.weight",), PATCHES),
        "vision/patch_embedding/bias": Source((f"{theirs}.bias",), SAME),
    }


def _text_and_heads() -> Table:
    """What both releases call alike."""
    return {
        **_bert("text/", "text_encoder."),
        **linear("visual_projection", "vision_proj"),
        **linear("text_projection", "text_proj"),
        **linear("matching_head", "itm_head"),
    }


def _bert(ours: str, theirs: str) -> dict[str, Source]:
    return {
        f"{ours}token_embedding/embedding": Source((f"{theirs}embeddings.word_embeddings.weight",), SAME),
        f"{ours}position_embedding": Source((f"{theirs}embeddings.position_embeddings.weight",), SAME),
        **norm(f"{ours}embedding_norm", f"{theirs}embeddings.LayerNorm"),
        **bert_layer(f"{ours}layer_{{}}", f"{theirs}encoder.layer.{{}}"),
    }


def bert_layer(own: str, layer: str) -> dict[str, Source]:
    """The rows of BERT's blocks, with and without cross-attention."""
    attention = [f"{layer}.attention.self.{name}" for name in ("query", "key", "value")]
    cross = f"{layer}.crossattention"
    return {
        **separate_attention(f"{own}/attention", attention, f"{layer}.attention.output.dense"),
        **norm(f"{own}/attention_norm", f"{layer}.attention.output.LayerNorm"),
        **linear(f"{own}/cross_attention/query", f"{cross}.self.query"),
        **linear(f"{own}/cross_attention/key", f"{cross}.self.key"),
        **linear(f"{own}/cross_attention/value", f"{cross}.self.value"),
        **linear(f"{own}/cross_attention/out", f"{cross}.output.dense"),
        **norm(f"{own}/cross_attention_norm", f"{cross}.output.LayerNorm"),
        **linear(f"{own}/mlp/up", f"{layer}.intermediate.dense"),
        **linear(f"{own}/mlp/down", f"{layer}.output.dense"),
        **norm(f"{own}/mlp_norm", f"{layer}.output.LayerNorm"),
    }


def _count(names: Mapping[str, Any], prefix: str) -> int:
    return 1 + max(int(name[len(prefix) :].split(".")[0]) for name in names if name.startswith(prefix))
