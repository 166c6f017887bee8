"""One forward pass in PyTorch transformers and here, compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def largest_difference(folder: Path, model: Any, params: Any, *, seed: int = 0) -> float:
    """Largest absolute difference of embeddings and matching logits on two random pictures and texts.

    Args:
      folder: a CLIP or BLIP as Hugging Face lays it out.
      model: our module of it, CLIP or BLIP.
      params: its parameters.
      seed: of the random inputs.
    """
    import jax
    import torch
    import transformers

    from contextjax.models.blip import BLIP

    rng, config = np.random.default_rng(seed), model.config
    size, vocabulary = config.vision.image_size, config.text.vocabulary
    pictures = rng.integers(0, 256, (2, size, size, 3), np.uint8)
    ids = rng.integers(3, vocabulary - 3, (2, 8)).astype(np.int32)
    ids[:, -1] = getattr(config.text, "eos_token", None) or 0
    if ids[0, -1] <= 2:
        ids[:, -1] = vocabulary - 1  # the largest id, which is the rule of old configs
    mask = np.ones(ids.shape, bool)
    pixels = (pictures / 255 - np.asarray(config.vision.mean)) / np.asarray(config.vision.std)
    tensors: dict[str, Any] = {
        "pixel_values": torch.tensor(pixels.transpose(0, 3, 1, 2), dtype=torch.float32),
        "input_ids": torch.tensor(ids, dtype=torch.long),
        "attention_mask": torch.tensor(mask, dtype=torch.long),
    }
    with torch.inference_mode():
        if isinstance(model, BLIP):
            peer: Any = transformers.BlipForImageTextRetrieval.from_pretrained(folder, dtype=torch.float32).eval()
            expected = [peer(**tensors, use_itm_head=False).itm_score, peer(**tensors).itm_score]
        else:
            peer = transformers.CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
            out = peer(**tensors)
            expected = [out.image_embeds, out.text_embeds]

    def ours(module):
        image, text, *logits = module(pictures, ids, mask)
        return [image @ text.T, *logits] if logits else [image, text]

    found = jax.jit(lambda params: model.apply({"params": params}, method=ours))(params)
    return max(float(np.abs(np.asarray(f) - e.numpy()).max()) for f, e in zip(found, expected, strict=True))
