"""PyTorch's side of the comparison: transformers' CLIPModel, as a careful user would run it on a CPU."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

DESCRIPTION = (
    "transformers' CLIPModel, scaled_dot_product_attention, inference_mode; bfloat16: weights cast before (forward), "
    "autocast (step); torch.optim.AdamW(fused=True)"
)


def write_checkpoint(folder: Path, *, seed: int = 0) -> None:
    """A folder with CLIP ViT-B/32 of random weights, as its authors' library initialises them."""
    import torch
    import transformers

    torch.manual_seed(seed)
    transformers.CLIPModel(transformers.CLIPConfig()).save_pretrained(folder)


def forward(folder: Path, images: np.ndarray, dtype: str) -> Callable[[], np.ndarray]:
    """The image tower and its projection: pixels [B, H, W, 3], normalised -> [B, D]."""
    import torch

    model = _load(folder).eval().to(getattr(torch, dtype))
    pixels = _pixels(images).to(getattr(torch, dtype))

    def run() -> np.ndarray:
        with torch.inference_mode():
            return model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output).float().numpy()

    return run


def step(folder: Path, images: np.ndarray, ids: np.ndarray, dtype: str, optimizer: dict[str, Any]) -> Callable:
    """A training step of both towers; returns the loss."""
    import torch

    model = _load(folder).train()
    pixels, tokens = _pixels(images), torch.from_numpy(ids).long()
    betas = optimizer["b1"], optimizer["b2"]
    rest = {"lr": optimizer["learning_rate"], "eps": optimizer["eps"], "weight_decay": optimizer["weight_decay"]}
    rule = torch.optim.AdamW(model.parameters(), betas=betas, fused=True, **rest)
    half = torch.autocast("cpu", torch.bfloat16) if dtype == "bfloat16" else contextlib.nullcontext()

    def run() -> float:
        with half:
            # Texts fill their length: without a mask, attention may be causal by itself.
            loss = model(input_ids=tokens, pixel_values=pixels, return_loss=True).loss
        rule.zero_grad(set_to_none=True)
        loss.backward()
        rule.step()
        return loss.item()

    return run


def _load(folder: Path) -> Any:
    import transformers

    transformers.utils.logging.disable_progress_bar()
    return transformers.CLIPModel.from_pretrained(folder)


def _pixels(images: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
