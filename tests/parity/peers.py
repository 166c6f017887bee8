"""Small random models of PyTorch transformers: the reference that ours are compared with."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from contextjax.losses.sigmoid import sigmoid_loss

ACTIVATIONS = ("gelu", "quick_gelu", "gelu_new", "relu")


@dataclasses.dataclass
class Inputs:
    """Pictures uint8 [B, S, S, 3], ids int [B, T], mask bool [B, T]."""

    pictures: np.ndarray
    ids: np.ndarray
    mask: np.ndarray


def clip_config(rng: np.random.Generator) -> dict[str, Any]:
    """A random config.json of CLIP: odd widths, head counts, patch sizes, activations, EOS rules."""
    text_heads, vision_heads = int(rng.integers(1, 5)), int(rng.integers(1, 5))
    patch, vocabulary = int(rng.integers(2, 9)), int(rng.integers(20, 120))
    return {
        "model_type": "clip",
        "projection_dim": int(rng.integers(3, 40)),
        "text_config": {
            "vocab_size": vocabulary,
            "hidden_size": text_heads * int(rng.integers(8, 17)),
            "intermediate_size": int(rng.integers(5, 90)),
            "num_hidden_layers": int(rng.integers(1, 4)),
            "num_attention_heads": text_heads,
            "max_position_embeddings": int(rng.integers(12, 24)),
            "hidden_act": str(rng.choice(ACTIVATIONS)),
            "layer_norm_eps": float(rng.choice([1e-5, 1e-6, 1e-3])),
            "bos_token_id": vocabulary - 2,
            "eos_token_id": int(rng.choice([2, vocabulary - 1])),  # 2: the largest id
            "pad_token_id": 0,
        },
        "vision_config": {
            "hidden_size": vision_heads * int(rng.integers(8, 17)),
            "intermediate_size": int(rng.integers(5, 90)),
            "num_hidden_layers": int(rng.integers(1, 4)),
            "num_attention_heads": vision_heads,
            "image_size": patch * int(rng.integers(1, 6)),
            "patch_size": patch,
            "hidden_act": str(rng.choice(ACTIVATIONS)),
            "layer_norm_eps": float(rng.choice([1e-5, 1e-6, 1e-3])),
        },
    }


def _vision_tower(rng: np.random.Generator, *, width: int, heads: int, patch: int) -> dict[str, Any]:
    """A random section of an image tower, of BLIP or BLIP-2."""
    return {
        "hidden_size": width,
        "intermediate_size": int(rng.integers(5, 90)),
        "num_hidden_layers": int(rng.integers(1, 4)),
        "num_attention_heads": heads,
        "image_size": patch * int(rng.integers(1, 6)),
        "patch_size": patch,
        "hidden_act": str(rng.choice(ACTIVATIONS)),
        "layer_norm_eps": float(rng.choice([1e-5, 1e-6])),
    }


def siglip_config(rng: np.random.Generator) -> dict[str, Any]:
    """A random config.json of SigLIP: the image tower is as wide as the text's projection."""
    text_heads, vision_heads = int(rng.integers(1, 5)), int(rng.integers(1, 5))
    patch, vocabulary = int(rng.integers(2, 9)), int(rng.integers(20, 120))
    width = vision_heads * int(rng.integers(8, 17))
    return {
        "model_type": "siglip",
        "text_config": {
            "vocab_size": vocabulary,
            "hidden_size": text_heads * int(rng.integers(8, 17)),
            "projection_size": width,
            "intermediate_size": int(rng.integers(5, 90)),
            "num_hidden_layers": int(rng.integers(1, 4)),
            "num_attention_heads": text_heads,
            "max_position_embeddings": int(rng.integers(12, 24)),
            "hidden_act": str(rng.choice(ACTIVATIONS)),
            "layer_norm_eps": float(rng.choice([1e-5, 1e-6, 1e-3])),
            "eos_token_id": vocabulary - 1,
            "pad_token_id": int(rng.integers(0, 3)),
        },
        "vision_config": _vision_tower(rng, width=width, heads=vision_heads, patch=patch),
    }


def blip_config(rng: np.random.Generator) -> dict[str, Any]:
    """A random config.json of BLIP for retrieval."""
    text_heads, vision_heads = int(rng.integers(1, 5)), int(rng.integers(1, 5))
    patch, vocabulary = int(rng.integers(2, 9)), int(rng.integers(20, 120))
    width = vision_heads * int(rng.integers(8, 17))
    return {
        "model_type": "blip",
        "image_text_hidden_size": int(rng.integers(3, 40)),
        "text_config": {
            "vocab_size": vocabulary,
            "hidden_size": text_heads * int(rng.integers(8, 17)),
            "encoder_hidden_size": width,
            "intermediate_size": int(rng.integers(5, 90)),
            "num_hidden_layers": int(rng.integers(1, 4)),
            "num_attention_heads": text_heads,
            "max_position_embeddings": int(rng.integers(12, 24)),
            "hidden_act": str(rng.choice(ACTIVATIONS)),
            "layer_norm_eps": float(rng.choice([1e-12, 1e-5])),
            "bos_token_id": vocabulary - 2,
            "sep_token_id": 1,
            "pad_token_id": 0,
            "eos_token_id": 1,
            "is_decoder": True,
        },
        "vision_config": _vision_tower(rng, width=width, heads=vision_heads, patch=patch),
    }


def blip2_config(rng: np.random.Generator) -> dict[str, Any]:
    """A random config.json of BLIP-2 for retrieval."""
    text_heads, vision_heads = int(rng.integers(1, 5)), int(rng.integers(1, 5))
    patch, vocabulary = int(rng.integers(2, 9)), int(rng.integers(20, 120))
    width = vision_heads * int(rng.integers(8, 17))
    return {
        "model_type": "blip-2",
        "image_text_hidden_size": int(rng.integers(3, 40)),
        "num_query_tokens": int(rng.integers(1, 9)),
        "qformer_config": {
            "use_qformer_text_input": True,
            "vocab_size": vocabulary,
            "hidden_size": text_heads * int(rng.integers(8, 17)),
            "encoder_hidden_size": width,
            "intermediate_size": int(rng.integers(5, 90)),
            "num_hidden_layers": int(rng.integers(1, 5)),
            "num_attention_heads": text_heads,
            "max_position_embeddings": int(rng.integers(12, 24)),
            "cross_attention_frequency": int(rng.integers(1, 4)),
            "hidden_act": str(rng.choice(ACTIVATIONS)),
            "layer_norm_eps": float(rng.choice([1e-12, 1e-5])),
        },
        "vision_config": _vision_tower(rng, width=width, heads=vision_heads, patch=patch),
    }


def build(config: dict[str, Any], seed: int) -> Any:
    """The PyTorch model of a config, every parameter random (also those that start at zero or one)."""
    import torch
    import transformers

    torch.manual_seed(seed)
    if config["model_type"] == "clip":
        model: Any = transformers.CLIPModel(transformers.CLIPConfig(**config))
    elif config["model_type"] == "siglip":
        model = transformers.SiglipModel(transformers.SiglipConfig(**config))
    elif config["model_type"] == "blip-2":
        model = transformers.Blip2ForImageTextRetrieval(transformers.Blip2Config(**config))
    else:
        model = transformers.BlipForImageTextRetrieval(transformers.BlipConfig(**config))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.2
            start = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
            parameter.copy_(start + scale * torch.randn_like(parameter))
    return model.eval()


def draw_inputs(config: dict[str, Any], rng: np.random.Generator, *, batch: int = 4) -> Inputs:
    """Random pictures and texts of all lengths: BOS, words, EOS, padding."""
    size, text = config["vision_config"]["image_size"], config.get("qformer_config") or config["text_config"]
    length = int(rng.integers(4, text["max_position_embeddings"] + 1))
    ids, mask = np.zeros((batch, length), np.int32), np.zeros((batch, length), bool)
    for row in range(batch):
        words = int(rng.integers(0, length - 1)) if row else length - 2
        ids[row, : words + 2] = [
            text["vocab_size"] - 2, *rng.integers(3, text["vocab_size"] - 2, words), text["vocab_size"] - 1
        ]  # fmt: skip
        mask[row, : words + 2] = True
    return Inputs(rng.integers(0, 256, (batch, size, size, 3), np.uint8), ids, mask)


def tensors(inputs: Inputs, vision: Any) -> dict[str, Any]:
    """The inputs as PyTorch's models take them, pixels scaled as `vision` (a VisionConfig) says."""
    import torch

    pixels = (inputs.pictures.astype(np.float64) / 255 - np.asarray(vision.mean)) / np.asarray(vision.std)
    return {
        "pixel_values": torch.tensor(pixels.transpose(0, 3, 1, 2), dtype=torch.float32),
        "input_ids": torch.tensor(inputs.ids, dtype=torch.long),
        "attention_mask": torch.tensor(inputs.mask, dtype=torch.long),
    }


def clip_outputs(model: Any, tensors: dict[str, Any]) -> dict[str, Any]:
    """Returns the outputs of PyTorch's CLIP, by the names that `ours` uses."""
    out = model(**tensors)
    return {
        "image_tokens": out.vision_model_output.last_hidden_state,
        "text_states": out.text_model_output.last_hidden_state,
        "image_embedding": out.image_embeds,
        "text_embedding": out.text_embeds,
    }


def siglip_outputs(model: Any, tensors: dict[str, Any]) -> dict[str, Any]:
    """Returns the outputs of PyTorch's SigLIP, by the names that `ours` uses; texts are filled up, as it needs them."""
    import torch

    text = model.config.text_config
    shape, length = (len(tensors["input_ids"]), text.max_position_embeddings), tensors["input_ids"].shape[1]
    ids = torch.full(shape, text.pad_token_id)
    ids[:, :length] = torch.where(tensors["attention_mask"].bool(), tensors["input_ids"], text.pad_token_id)
    out = model(pixel_values=tensors["pixel_values"], input_ids=ids, return_loss=True)
    return {
        "image_states": out.vision_model_output.last_hidden_state,
        "text_states": out.text_model_output.last_hidden_state[:, :length],
        "image_embedding": out.image_embeds,
        "text_embedding": out.text_embeds,
        "logits": out.logits_per_text / 10,  # whose scale is that of ten cosines
        "loss": out.loss / 10,
    }


def blip_outputs(model: Any, tensors: dict[str, Any]) -> dict[str, Any]:
    """Returns the outputs of PyTorch's BLIP, by the names that `ours` uses."""
    fused, alone = model(**tensors), model(**tensors, use_itm_head=False)
    return {
        "image_states": fused.last_hidden_state,
        "fused_states": fused.question_embeds,
        "matching": fused.itm_score,
        "text_states": alone.question_embeds,
        "cosines": alone.itm_score,
    }


def blip2_outputs(model: Any, tensors: dict[str, Any]) -> dict[str, Any]:
    """Returns the outputs of PyTorch's BLIP-2, by the names that `ours` uses."""
    fused, alone = model(**tensors, use_image_text_matching_head=True), model(**tensors)
    return {
        "image_states": alone.vision_model_output.last_hidden_state,
        "fused_states": fused.text_embeds[:, : model.config.num_query_tokens],
        "matching": fused.logits_per_image,
        "text_states": alone.text_model_output.last_hidden_state,
        "image_embeddings": alone.image_embeds,
        "text_embedding": alone.text_embeds,
    }


def ours(pretrained: Any, params: Any, inputs: Inputs) -> dict[str, Any]:
    """The same outputs of our module."""
    import jax
    import jax.numpy as jnp

    pictures, ids, mask = (jnp.asarray(x) for x in (inputs.pictures, inputs.ids, inputs.mask))

    def clip(model):
        image, text = model.encode_image(pictures), model.encode_text(ids, mask)
        return {
            "image_tokens": image.tokens,
            "text_states": text.states,
            "image_embedding": model.embed_image(image),
            "text_embedding": model.embed_text(text),
        }

    def siglip(model):
        image, text = model.encode_image(pictures), model.encode_text(ids, mask)
        images, texts, every = model.embed_image(image), model.embed_text(text), jnp.arange(len(ids))
        scale = {"temperature": model.temperature(), "bias": model.pair_bias()}
        total, count = sigmoid_loss(texts, images, **scale, valid=every >= 0, target_ids=every)
        return {
            "image_states": model.vision.normalize(image.tokens),
            "text_states": text.states,
            "image_embedding": images,
            "text_embedding": texts,
            "logits": (texts @ images.T / scale["temperature"] + scale["bias"]) / 10,
            "loss": total / count / 10,
        }

    def blip(model):
        image, text = model.encode_image(pictures), model.encode_text(ids, mask)
        fused = model.read(model.normalize_tokens(image.tokens), ids, mask)
        return {
            "image_states": model.vision.normalize(image.tokens),
            "fused_states": fused.states,
            "matching": model.match(image, ids, mask),
            "text_states": text.states,
            "cosines": model.embed_image(image) @ model.embed_text(text).T,
        }

    def blip2(model):
        image, text = model.encode_image(pictures), model.encode_text(ids, mask)
        tokens = model.normalize_tokens(image.tokens)
        return {
            "image_states": tokens,
            "fused_states": model.text.read_both(tokens, ids, mask),
            "matching": model.match(image, ids, mask),
            "text_states": text.states,
            "image_embeddings": model.embed_image_tokens(image),
            "text_embedding": model.embed_text(text),
        }

    method = {"CLIP": clip, "SigLIP": siglip, "BLIP": blip, "BLIP-2": blip2}[pretrained.family.split(" ")[0]]
    return jax.jit(lambda params: pretrained.model.apply({"params": params}, method=method))(params)


def read_params(unread: Any) -> Any:
    """Reads all leaves of a tree."""
    import jax

    return jax.tree.map(lambda leaf: leaf.read(), unread)
