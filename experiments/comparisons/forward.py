"""A forward pass in PyTorch's `transformers` and here, compared: the check of `convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def largest_difference(folder: Path, model: Any, params: Any, *, seed: int = 0) -> float:
    """Returns the largest absolute difference of embeddings and matching logits on two random pictures and texts.

    Args:
      folder: a CLIP, SigLIP, BLIP or BLIP-2 checkpoint in Hugging Face's layout.
      model: our module of it.
      params: the parameters of `model`.
      seed: the seed of the random inputs.
    """
    import jax
    import torch
    import transformers

    from contextjax.models.blip import BLIP
    from contextjax.models.blip2 import BLIP2

    rng, config = np.random.default_rng(seed), model.config
    size, vocabulary = config.vision.image_size, config.text.vocabulary
    pictures = rng.integers(0, 256, (2, size, size, 3), np.uint8)
    ids = rng.integers(3, vocabulary - 3, (2, 8)).astype(np.int32)
    end = getattr(config.text, "eos_token", None)
    end = vocabulary - 1 if end in (None, 2) else end  # the largest id, which is the rule of old configs
    ids = np.where(ids == end, end - 1 if end > 3 else 4, ids)  # transformers pools at the first one
    ids[:, -1] = end
    mask = np.ones(ids.shape, bool)
    pixels = (pictures / 255 - np.asarray(config.vision.mean)) / np.asarray(config.vision.std)
    tensors: dict[str, Any] = {
        "pixel_values": torch.tensor(pixels.transpose(0, 3, 1, 2), dtype=torch.float32),
        "input_ids": torch.tensor(ids, dtype=torch.long),
        "attention_mask": torch.tensor(mask, dtype=torch.long),
    }
    with torch.inference_mode():
        if isinstance(model, BLIP):
            reference: Any = transformers.BlipForImageTextRetrieval.from_pretrained(folder, dtype=torch.float32).eval()
            expected = [reference(**tensors, use_itm_head=False).itm_score, reference(**tensors).itm_score]
        elif isinstance(model, BLIP2):
            reference = transformers.Blip2ForImageTextRetrieval.from_pretrained(folder, dtype=torch.float32).eval()
            alone = reference(**tensors)
            matching = reference(**tensors, use_image_text_matching_head=True).logits_per_image
            expected = [alone.image_embeds @ alone.text_embeds.T, matching]
        elif model.config.is_siglip:
            filled = np.full((len(ids), config.text.positions), config.text.pad_token)
            filled[:, : ids.shape[1]] = ids
            reference = transformers.SiglipModel.from_pretrained(folder, dtype=torch.float32).eval()
            out = reference(pixel_values=tensors["pixel_values"], input_ids=torch.tensor(filled, dtype=torch.long))
            expected = [out.image_embeds, out.text_embeds]
        else:
            reference = transformers.CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
            out = reference(**tensors)
            expected = [out.image_embeds, out.text_embeds]

    def ours(module):
        image, text, *logits = module(*map(jax.numpy.asarray, (pictures, ids, mask)))
        return [image @ text.T, *logits] if logits else [image, text]

    outputs = jax.jit(lambda params: model.apply({"params": params}, method=ours))(params)
    return max(float(np.abs(np.asarray(o) - e.numpy()).max()) for o, e in zip(outputs, expected, strict=True))
