"""PyTorch's side of the comparisons: checkpoints of random weights, inputs, the optimizer and what a step costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from contextjax.models.vision import VisionConfig

TINY_TOWER = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
CLIP_SIZES: dict[str, dict[str, Any]] = {
    "B32": {},  # the defaults of transformers.CLIPConfig
    "L14": {
        "projection_dim": 768,
        "text_config": {
            "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "projection_dim": 768,
        },
        "vision_config": {
            "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
            "patch_size": 14, "projection_dim": 768,
        },
    },
    "tiny": {
        "projection_dim": 32,
        "text_config": {**TINY_TOWER, "max_position_embeddings": 32, "projection_dim": 32},
        "vision_config": {**TINY_TOWER, "image_size": 32, "patch_size": 8, "projection_dim": 32},
    },
}  # fmt: skip


def device() -> str:
    """Returns the device that PyTorch's side of CLIP runs on: a GPU, where PyTorch finds one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def write_clip(folder: Path, size: str, *, seed: int = 0) -> None:
    """Writes a CLIP checkpoint of random weights, as `transformers` initialises them."""
    import torch
    import transformers

    quiet()
    torch.manual_seed(seed)
    transformers.CLIPModel(transformers.CLIPConfig(**CLIP_SIZES[size])).save_pretrained(folder)


def load_clip(folder: Path) -> Any:
    """Returns the `transformers.CLIPModel` of a folder."""
    import transformers

    quiet()
    model: Any = transformers.CLIPModel.from_pretrained(folder)
    return model.to(device())


def quiet() -> None:
    """Silences `transformers`, which doubts token ids that a small vocabulary does not have."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


def pixels(images: np.ndarray, vision: VisionConfig) -> Any:
    """Returns uint8 pictures [B, H, W, 3] as a normalised float32 tensor [B, 3, H, W]."""
    import torch

    mean, std = (np.asarray(x, np.float32) for x in (vision.mean, vision.std))
    scaled = (images.astype(np.float32) / 255 - mean) / std
    return torch.from_numpy(np.ascontiguousarray(scaled.transpose(0, 3, 1, 2)))


def adamw(parameters: Iterable[Any], optimizer: Mapping[str, float]) -> Any:
    """Returns torch.optim.AdamW with the arguments of optax.adamw: learning_rate, b1, b2, eps, weight_decay."""
    import torch

    rest: dict[str, Any] = {"lr": optimizer["learning_rate"]}
    rest |= {name: optimizer[name] for name in ("eps", "weight_decay")}
    return torch.optim.AdamW(parameters, betas=(optimizer["b1"], optimizer["b2"]), fused=True, **rest)


def update(optimizer: Any, loss: Any) -> float:
    """Runs the backward pass and the optimizer; returns the loss.

    Gradients are freed at the end, so that each step frees what it has allocated; `cost` relies on it.
    """
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item()


def cost(step: Callable[[], Any]) -> dict[str, float]:
    """Returns the FLOPs of a step's matrix products, and the most bytes of tensors alive beyond those before it."""
    from torch.profiler import ProfilerActivity, profile
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        step()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    recorded: Any = profiler.profiler
    events = recorded.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    return {"flops": float(counter.get_total_flops()), "bytes": float(np.cumsum([size for _, size in changes]).max())}
