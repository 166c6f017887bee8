"""Names and configs of BLIP for retrieval (Hugging Face's layout and the original release) and of plain BERT."""

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
    ForeignTensors,
    Layout,
    NameTable,
    fused_attention,
    leading_ones,
    linear,
    norm,
    norms_and_mlp,
    separate_attention,
)
from contextjax.pretrained.tensors import Tensor
from contextjax.types import UserError

# Defaults of transformers, where a file leaves a key out; BLIP's published files say 12 text heads.
POSITIONS = ("max_position_embeddings", "positions", 512)
BERT_SIZES: Any = {"width": 768, "mlp": 3072, "activation": "gelu"}
TEXT = Fields(("vocab_size", "vocabulary", 30524), POSITIONS, heads=8, epsilon=1e-12, **BERT_SIZES)
BERT = Fields(("vocab_size", "vocabulary", 30522), POSITIONS, heads=12, epsilon=1e-12, **BERT_SIZES)
VISION = Fields(("image_size", "image_size", 384), ("patch_size", "patch_size", 16), heads=12, **BERT_SIZES)


def hf_config(config: Mapping[str, Any], pixels: Mapping[str, Any]) -> BLIPConfig:
    """Returns the BLIPConfig of a config.json; `pixels` are mean, std and fit from the preprocessor's file."""
    vision = VISION.read(config.get("vision_config") or {}, "vision_config")
    text = TEXT.read(config.get("text_config") or {}, "text_config")
    return BLIPConfig(
        VisionConfig(**vision, pre_norm=False, patch_bias=True, **pixels),
        BertConfig(**text),
        config.get("image_text_hidden_size", 256),
    )


def hf_config_json(config: BLIPConfig) -> dict[str, Any]:
    """Returns the config.json of a BLIPConfig, every key written out."""
    return {
        "architectures": ["BlipForImageTextRetrieval"],
        "model_type": "blip",
        "image_text_hidden_size": config.projection,
        "projection_dim": 512,
        "logit_scale_init_value": 2.6592,
        "text_config": {
            "model_type": "blip_text_model",
            "encoder_hidden_size": config.vision.width,
            "is_decoder": True,  # this is how transformers asks for cross-attention
            **TEXT.write(config.text),
        },
        "vision_config": {"model_type": "blip_vision_model", **VISION.write(config.vision)},
    }


def hf_table(config: BLIPConfig) -> NameTable:
    """Returns the table of Hugging Face's names."""
    embeddings, layer = "vision_model.embeddings", "vision_model.encoder.layers.{}"
    return _table(
        f"{embeddings}.class_embedding", f"{embeddings}.position_embedding", f"{embeddings}.patch_embedding",
        "vision_model.post_layernorm", layer, norms=("layer_norm1", "layer_norm2"), attention=f"{layer}.self_attn",
        out="projection",
    )  # fmt: skip


def original_table(config: BLIPConfig) -> NameTable:
    """Returns the table of the names of the original release."""
    layer = "visual_encoder.blocks.{}"
    return _table(
        "visual_encoder.cls_token", "visual_encoder.pos_embed", "visual_encoder.patch_embed.proj",
        "visual_encoder.norm", layer, norms=("norm1", "norm2"), attention=f"{layer}.attn", out="proj",
    )  # fmt: skip


def _table(
    cls: str, positions: str, patches: str, last_norm: str, layer: str, *, norms: tuple[str, str], attention: str,
    out: str,
) -> NameTable:  # fmt: skip
    """Returns a table by the names of the vision tower, in which the two releases differ."""
    return {
        "vision/class_embedding": ForeignTensors((cls,), leading_ones(2)),
        "vision/position_embedding": ForeignTensors((positions,), leading_ones(1)),
        "vision/patch_embedding/kernel": ForeignTensors((f"{patches}.weight",), PATCHES),
        "vision/patch_embedding/bias": ForeignTensors((f"{patches}.bias",), SAME),
        **norm("vision/post_norm", last_norm),
        **norms_and_mlp("vision/layer_{}", layer, norms=norms, mlp=("mlp.fc1", "mlp.fc2")),
        **fused_attention(
            "vision/layer_{}/attention", f"{attention}.qkv.weight", f"{attention}.qkv.bias", f"{attention}.{out}"
        ),
        **_bert("text/", "text_encoder."),
        **linear("visual_projection", "vision_proj"),
        **linear("text_projection", "text_proj"),
        **linear("matching_head", "itm_head"),
    }


ORIGINAL_LEFT_OUT = r"^text_decoder\.|_m(\.|$)|_queue$|^queue_ptr$|^ptr_queue$|^temp$"


def original_config(tensors: Mapping[str, Tensor], pixels: Mapping[str, Any]) -> BLIPConfig:
    """Returns the BLIPConfig of a checkpoint of the original release, which has no config.json.

    Sizes are read from the shapes. The rest is as in all released models: ViT-B and ViT-L with 64 features a head, BERT
    with 12 heads, LayerNorm epsilons 1e-6 and 1e-12.

    Raises:
      UserError: a tensor from which a size is read is missing.
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
    """Returns the BertConfig of a plain BERT encoder's config.json."""
    return BertConfig(**BERT.read(config, "config.json"), cross_attention=False)


def bert_table(config: BertConfig) -> NameTable:
    """Returns the table of a plain BERT. Only token type 0 is used, so its row is added to the positions."""
    fold = Layout(lambda positions, types: positions + types[0], lambda x: [x, x[:2] * 0])
    names = ("embeddings.position_embeddings.weight", "embeddings.token_type_embeddings.weight")
    return _bert("", "") | {"position_embedding": ForeignTensors(names, fold)}


def _bert(ours: str, theirs: str) -> dict[str, ForeignTensors]:
    return {
        f"{ours}token_embedding/embedding": ForeignTensors((f"{theirs}embeddings.word_embeddings.weight",), SAME),
        f"{ours}position_embedding": ForeignTensors((f"{theirs}embeddings.position_embeddings.weight",), SAME),
        **norm(f"{ours}embedding_norm", f"{theirs}embeddings.LayerNorm"),
        **bert_layer(f"{ours}layer_{{}}", f"{theirs}encoder.layer.{{}}"),
    }


def bert_layer(own: str, layer: str) -> dict[str, ForeignTensors]:
    """Returns the rows of BERT's blocks, with and without cross-attention."""
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
