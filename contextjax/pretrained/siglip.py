"""Names and config of SigLIP, and of SigLIP 2 at a fixed resolution, in Hugging Face's layout."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contextjax.models.clip import CLIPConfig, check_towers
from contextjax.models.text import TextConfig
from contextjax.models.vision import VisionConfig
from contextjax.pretrained import clip
from contextjax.pretrained.fields import Fields
from contextjax.pretrained.names import SAME, ForeignTensors, NameTable, fused_attention, leading_ones, linear, norm
from contextjax.tokenizer_files import has_tokenizer
from contextjax.tokenizers import TextTokenizer
from contextjax.types import UserError

# Defaults of transformers, where a file leaves a key out.
SIZES: Any = {"width": 768, "heads": 12, "mlp": 3072, "activation": "gelu_pytorch_tanh", "epsilon": 1e-6}
TEXT = Fields(("vocab_size", "vocabulary", 32000), ("max_position_embeddings", "positions", 64), **SIZES)
VISION = Fields(("image_size", "image_size", 224), ("patch_size", "patch_size", 16), **SIZES)
PAD = 1
HEAD = ("in_proj_weight", "in_proj_bias", "out_proj")  # of the head's attention, as PyTorch's own class names them
NAFLEX = (
    "is a SigLIP 2 of the NaFlex form, which sees pictures in shapes of their own; expected one of a fixed resolution, "
    "such as google/siglip2-base-patch16-224, whose model_type is 'siglip'."
)


def hf_config(config: Mapping[str, Any], pixels: Mapping[str, Any]) -> CLIPConfig:
    """Returns the CLIPConfig of a config.json; `pixels` are mean, std and fit from the preprocessor's file.

    Raises:
      UserError: the image tower has no pooling head, is NaFlex's, or its width is not that of the text's projection.
    """
    text, vision = (config.get(name) or {} for name in ("text_config", "vision_config"))
    if "num_patches" in vision:
        raise UserError(f"vision_config of config.json {NAFLEX}")
    if vision.get("vision_use_head", True) is not True:
        raise UserError(
            "vision_config.vision_use_head is false: this SigLIP has no pooling head, and so no embeddings of "
            "pictures; expected a whole SiglipModel."
        )
    towers = CLIPConfig(
        VisionConfig(
            **VISION.read(vision, "vision_config"), pre_norm=False, patch_bias=True, pooling="attention", **pixels
        ),
        TextConfig(**(sizes := TEXT.read(text, "text_config")), pad_token=PAD),
        sizes["width"] if text.get("projection_size") is None else text["projection_size"],
    )
    pad = text.get("pad_token_id")
    if type(pad) is int and 0 <= pad < towers.text.vocabulary:
        towers = with_pad(towers, pad)
    check_towers(towers, "config.json: ")
    return towers


def with_pad(config: CLIPConfig, pad: int) -> CLIPConfig:
    """Returns a SigLIP's config with the id of its tokenizer's padding, which every text is filled up with."""
    return dataclasses.replace(config, text=dataclasses.replace(config.text, pad_token=pad))


def with_pad_of(config: CLIPConfig, folder: Path) -> CLIPConfig:
    """Returns a config with the padding of the tokenizer in a folder: the config.json of SigLIP 2 leaves it out."""
    if not has_tokenizer(folder):
        return config
    tokenizer = TextTokenizer.read(folder, length=config.text.positions)
    if tokenizer.begin or tokenizer.pad >= config.text.vocabulary:
        raise UserError(
            f"{folder}'s tokenizer is of another model: its padding has the id {tokenizer.pad} of "
            f"{config.text.vocabulary}, and it puts {tokenizer.specials[0] or 'nothing'} before a text; expected "
            "SigLIP's own."
        )
    return with_pad(config, tokenizer.pad)


def hf_config_json(config: CLIPConfig) -> dict[str, Any]:
    """Returns the config.json of a CLIPConfig, every key written out."""
    text, vision = config.text, config.vision
    odd = {"stem": vision.stem is not None, "pre_norm": vision.pre_norm, "patch_bias": not vision.patch_bias}
    if any(odd.values()):
        names = ", ".join(f"{name}={getattr(vision, name)}" for name, is_odd in odd.items() if is_odd)
        raise UserError(f"Hugging Face's SigLIP has no {names}; choose --format=contextjax for this model.")
    return {
        "architectures": ["SiglipModel"],
        "model_type": "siglip",
        "text_config": {
            "model_type": "siglip_text_model",
            "projection_size": config.projection,
            "pad_token_id": text.pad_token,
            **({} if text.eos_token is None else {"eos_token_id": text.eos_token}),
            **TEXT.write(text),
        },
        "vision_config": {
            "model_type": "siglip_vision_model",
            "num_channels": 3,
            "vision_use_head": True,
            **VISION.write(vision),
        },
    }


def hf_table(config: CLIPConfig) -> NameTable:
    """Returns the table of Hugging Face's names: CLIP's, but for what is before and behind the blocks."""
    absent = ("visual_projection/", "text_projection/", "vision/class_embedding", "vision/pre_norm/", "logit_scale")
    rows = {ours: theirs for ours, theirs in clip.hf_table(config).items() if not ours.startswith(absent)}
    head = "vision_model.head"
    return {
        **rows,
        "vision/patch_embedding/bias": ForeignTensors(("vision_model.embeddings.patch_embedding.bias",), SAME),
        "vision/pooling/query": ForeignTensors((f"{head}.probe",), leading_ones(1)),
        **fused_attention("vision/pooling/attention", *(f"{head}.attention.{name}" for name in HEAD)),
        **norm("vision/pooling/norm", f"{head}.layernorm"),
        **linear("vision/pooling/mlp/up", f"{head}.mlp.fc1"),
        **linear("vision/pooling/mlp/down", f"{head}.mlp.fc2"),
        **linear("text_projection", "text_model.head"),
        "logit_scale": ForeignTensors(("logit_scale",), leading_ones(1)),
        "logit_bias": ForeignTensors(("logit_bias",), leading_ones(1)),
    }
