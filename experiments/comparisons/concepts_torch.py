"""PyTorch's side of the cost of concepts: every phrase alone goes through the whole model again, picture included."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from contextjax.models.clip import CLIPConfig
from contextjax.types import ComposedBatch

DESCRIPTION = (
    "transformers' CLIPModel (scaled_dot_product_attention) and the published fusion; naive: picture and phrase alone "
    "are encoded again for each phrase, padded to the text's length, under no_grad (the published stop-gradient at its "
    "cheapest); together: all phrases in one pass, one by one: a pass for each; torch.optim.AdamW(fused=True)"
)

TEMPERATURE = 0.07


def make_steps(
    folder: Path,
    config: CLIPConfig,
    fusion: Mapping[str, Any],
    batch: ComposedBatch,
    weights: Mapping[str, float],
    optimizer: Mapping[str, float],
    *,
    heads: int,
    passes: Mapping[str, int],
) -> dict[str, Callable[[], float]]:
    """name -> a training step that returns the loss; all train the same model.

    Args:
      folder: the CLIP.
      config: its sizes.
      fusion: parameters of everything but the CLIP, by our names.
      batch: as contextjax has it; phrases are padded to the texts' length here.
      weights: of the terms contrastive and consistency.
      optimizer: learning_rate, b1, b2, eps, weight_decay.
      heads: of the fusion.
      passes: name -> into how many passes the phrases alone are cut; 0: no consistency loss.
    """
    import torch

    model = _make_model(folder, config, fusion, heads)
    betas = optimizer["b1"], optimizer["b2"]
    rest: dict[str, Any] = {
        "lr": optimizer["learning_rate"],
        "eps": optimizer["eps"],
        "weight_decay": optimizer["weight_decay"],
    }
    rule = torch.optim.AdamW(model.parameters(), betas=betas, fused=True, **rest)
    tensors = _tensors(config, batch)

    def make(cut: int) -> Callable[[], float]:
        def run() -> float:
            loss = _loss(model, tensors, weights, cut)
            loss.backward()
            rule.step()
            rule.zero_grad(set_to_none=True)  # at the end: what a step frees, it has allocated; see cost
            return loss.item()

        return run

    return {name: make(cut) for name, cut in passes.items()}


def cost(run: Callable[[], float]) -> dict[str, float]:
    """FLOPs of a step, and of another one the most bytes of tensors alive beyond those it began with."""
    from torch.profiler import ProfilerActivity, profile
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        run()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    recorded: Any = profiler.profiler
    events = recorded.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    return {"flops": float(counter.get_total_flops()), "bytes": float(np.cumsum([size for _, size in changes]).max())}


def _loss(model: Any, tensors: Mapping[str, Any], weights: Mapping[str, float], passes: int) -> Any:
    """The contrastive loss with references as negatives, and the consistency of the phrases' maps."""
    import torch
    import torch.nn.functional as F

    references = tensors["references"]
    query, reference, attention = model(references, tensors["ids"], tensors["mask"])
    query, target, reference = (F.normalize(x) for x in (query, model.embed(tensors["targets"]), reference))
    rows = torch.arange(len(query))
    to_target, to_query = query @ torch.cat([target, reference]).T / TEMPERATURE, target @ query.T / TEMPERATURE
    loss = weights["contrastive"] * (F.cross_entropy(to_target, rows) + F.cross_entropy(to_query, rows)) / 2
    if not passes:
        return loss
    text, ids, mask = tensors["text"], tensors["alone_ids"], tensors["alone_mask"]
    with torch.no_grad():
        parts = torch.arange(len(text)).chunk(passes)
        alone = torch.cat([model(references[text[part]], ids[part], mask[part])[2] for part in parts])
        alone = _phrase_attention(alone, tensors["alone_inside"])
    in_context = _phrase_attention(attention[text], tensors["inside"])
    return loss + weights["consistency"] * (in_context - alone).abs().mean()


def _phrase_attention(attention: Any, inside: Any) -> Any:
    """Mean over the phrase's tokens, for every patch: [P, I, T] and bool [P, T] -> [P, I - 1]."""
    return (attention[:, 1:] * inside[:, None]).sum(-1) / inside.sum(-1, keepdim=True)


def _make_model(folder: Path, config: CLIPConfig, fusion: Mapping[str, Any], heads: int) -> Any:
    """A module whose parts have our names, so that our parameters fit by name."""
    import torch
    import transformers
    from torch import nn

    transformers.utils.logging.disable_progress_bar()
    width, epsilon = config.vision.width, config.vision.epsilon

    class CrossAttention(nn.Module):
        def __init__(self, context: int):
            super().__init__()
            self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)
            self.key, self.value = nn.Linear(context, width), nn.Linear(context, width)

        def forward(self, x: Any, context: Any, mask: Any = None) -> Any:
            split = lambda y: y.unflatten(-1, (heads, -1)).transpose(1, 2)
            query, key, value = split(self.query(x)), split(self.key(context)), split(self.value(context))
            logits = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
            if mask is not None:
                logits = logits.masked_fill(~mask[:, None, None, :], torch.finfo(logits.dtype).min)
            weights = logits.softmax(-1)
            return self.out((weights @ value).transpose(1, 2).flatten(-2)), weights

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.cross_attention_norm, self.mlp_norm = (nn.LayerNorm(width, epsilon) for _ in range(2))
            self.cross_attention = CrossAttention(config.text.width)
            self.mlp = nn.ModuleDict({"up": nn.Linear(width, 4 * width), "down": nn.Linear(4 * width, width)})

        def forward(self, v: Any, text: Any, mask: Any) -> Any:
            read, weights = self.cross_attention(self.cross_attention_norm(v), text, mask)
            v = v + read
            return v + self.mlp["down"](nn.functional.gelu(self.mlp["up"](self.mlp_norm(v)))), weights

    class Pooling(nn.Module):
        def __init__(self):
            super().__init__()
            self.query, self.attention = nn.Parameter(torch.zeros(1, width)), CrossAttention(width)
            self.norm = nn.LayerNorm(width, epsilon)

        def forward(self, x: Any) -> Any:
            return self.norm(self.attention(self.query.repeat(len(x), 1, 1), x)[0][:, 0])

    class ContextCIR(nn.Module):
        def __init__(self):
            super().__init__()
            self.clip = transformers.CLIPModel.from_pretrained(folder)
            self.blocks = sorted(name for name in fusion if name.startswith("fusion"))
            for name in self.blocks:
                self.add_module(name, Block())
            self.pooling, self.query_projection = Pooling(), nn.Linear(width, config.projection)

        def embed(self, pixels: Any) -> Any:
            return self.clip.visual_projection(self.clip.vision_model(pixel_values=pixels).pooler_output)

        def forward(self, pixels: Any, ids: Any, mask: Any) -> Any:
            """Query, gallery embedding, attention over the text (mean of blocks and heads)."""
            image = self.clip.vision_model(pixel_values=pixels)
            text = self.clip.text_model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
            v, found = image.last_hidden_state, []
            for name in self.blocks:
                v, weights = getattr(self, name)(v, text, mask)
                found.append(weights.mean(1))
            query = self.query_projection(self.pooling(v))
            return query, self.clip.visual_projection(image.pooler_output), torch.stack(found).mean(0)

    model = ContextCIR().train()
    own = {name: torch.from_numpy(x) for name, x in _by_name(fusion)}
    missing, unexpected = model.load_state_dict(own, strict=False)
    assert not unexpected and all(name.startswith("clip.") for name in missing), (missing, unexpected)
    return model


def _by_name(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, np.ndarray]]:
    """Flax parameters by PyTorch's names: kernels lie the other way."""
    found: list[tuple[str, np.ndarray]] = []
    for name, x in tree.items():
        if isinstance(x, Mapping):
            found += _by_name(x, f"{prefix}{name}.")
        else:
            array = np.array(x).T if name == "kernel" else np.array(x)
            found.append(
                (prefix + {"kernel": "weight", "scale": "weight"}.get(name, name), np.ascontiguousarray(array))
            )
    return found


def _tensors(config: CLIPConfig, batch: ComposedBatch) -> dict[str, Any]:
    """The batch as PyTorch wants it: pixels normalised, phrases padded to the texts' length."""
    import torch

    phrases = batch.phrases
    assert phrases is not None
    mean, std = (np.asarray(x, np.float32) for x in (config.vision.mean, config.vision.std))
    pixels = lambda x: np.ascontiguousarray(((x.astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2))
    length = batch.texts.ids.shape[-1]
    (text, span), (alone, real) = (phrases.text[0], phrases.span[0]), (x[0] for x in phrases.tokens)  # of one group
    room = ((0, 0), (0, length - alone.shape[1]))
    positions = np.arange(length)
    sizes = real.sum(-1)[:, None]
    arrays = {
        "references": pixels(batch.references),
        "targets": pixels(batch.targets[:, 0]),
        "ids": batch.texts.ids[:, 0].astype(np.int64),
        "mask": batch.texts.mask[:, 0],
        "alone_ids": np.pad(alone, room, mode="edge").astype(np.int64),
        "alone_mask": np.pad(real, room),
        "text": text.astype(np.int64),
        "inside": (positions >= span[:, :1]) & (positions < span[:, 1:]),
        "alone_inside": (positions >= 1) & (positions < sizes - 1),
    }
    return {name: torch.from_numpy(x) for name, x in arrays.items()}
