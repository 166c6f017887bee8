"""The cost of concepts: a ConText-CIR step (CLIP ViT-B/32) with and without the consistency loss, here and in PyTorch.

python -m experiments.comparisons concepts [--pairs=5] [--batch=16] [--phrases=3] [--naive=together,one_by_one]
    [--threads=2] [--output=FILE.json]

Here a picture is encoded once; the naive form, in PyTorch, runs the vision tower again for each phrase. Both sides get
the same random weights and inputs. Needs the extra `[torch]`.
"""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from contextjax.models.clip import CLIPConfig
from contextjax.models.context_cir import ContextCIR, ContextCIRConfig
from contextjax.objectives.context_cir import ContextCIRObjective
from contextjax.pretrained import read_pretrained
from contextjax.types import ComposedBatch, Phrases, Tokens, UserError
from experiments.comparisons import pytorch
from experiments.comparisons.harness import KEEP_MEMORY, Case, Program, Table, measure, option
from experiments.comparisons.training import Training, compile_update, cost_of_compiled, make_update

OPTIMIZER: dict[str, Any] = {"learning_rate": 1e-5, "b1": 0.9, "b2": 0.98, "eps": 1e-6, "weight_decay": 0.01}
WEIGHTS = {"contrastive": 1.0, "consistency": 0.08}
LOSSES = {"without": {"contrastive": 1.0}, "with": WEIGHTS}
WITHOUT = "PyTorch, without"
NAIVE = {"together": "PyTorch, naive, together", "one_by_one": "PyTorch, naive, one by one"}
TEMPERATURE = 0.07
PHRASE_LENGTH = 12
PACKAGES = ("flax", "torch", "transformers")
NOTES = {
    "pytorch": "transformers' CLIPModel (scaled_dot_product_attention) and the published fusion; naive: picture and "
    "phrase alone are encoded again for each phrase, padded to the text's length, under no_grad (the published "
    "stop-gradient at its cheapest); together: all phrases in one pass, one by one: a pass for each; "
    "torch.optim.AdamW(fused=True)",
    "flops": "here: XLA's count of the compiled program; PyTorch: matrix products by FlopCounterMode",
    "memory": "here: temporaries of the compiled program; PyTorch: most tensors alive beyond those before the step",
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Flags of the case."""

    pairs: int = option(5, "Rounds: a timing of each step.", lower_bound=1)
    batch: int = option(16, "References, with one modification each.", lower_bound=1)
    phrases: int = option(3, "Phrases of each modification.", lower_bound=1, upper_bound=6)
    naive: tuple[str, ...] = option(tuple(NAIVE), "All phrases in one pass (together), a pass for each (one_by_one).")
    threads: int = option(2, "Threads of both.", lower_bound=1)
    size: str = option("B32", "The CLIP; tiny: to see that everything works.", enum_values=["B32", "tiny"])
    keep_memory: bool = option(True, KEEP_MEMORY)


def compare(options: Options) -> dict[str, Table]:
    """Returns "checked", "programs" (seconds, FLOPs, bytes) and "ratios".

    Raises:
      UserError: the losses differ, or a naive form is unknown.
    """
    if unknown := set(options.naive) - set(NAIVE):
        raise UserError(f"--naive has '{min(unknown)}'; expected {' or '.join(NAIVE)}, or both.")
    with tempfile.TemporaryDirectory() as scratch:
        case = make_case(Path(scratch), options)
    return measure(case, pairs=options.pairs)


def make_case(folder: Path, options: Options) -> Case:
    """Returns our steps and PyTorch's, of the same weights."""
    pytorch.write_clip(folder, options.size)
    model, params = load(folder)
    batch = make_batch(model, options.batch, options.phrases)
    fusion = {name: jax.tree.map(np.array, tree) for name, tree in params.items() if name != "clip"}
    ours, costs = make_steps(model, params, batch)
    passes = {"together": 1, "one_by_one": options.batch * options.phrases}
    forms = {WITHOUT: 0} | {NAIVE[name]: passes[name] for name in NAIVE if name in options.naive}
    theirs = make_torch_steps(folder, model, fusion, batch, forms)
    naive = [name for name in forms if name != WITHOUT]
    return Case(
        programs={**ours, **theirs},
        # The n-th check on either side is the loss of the same weights after n - 1 updates.
        checks=[(name, ours["with" if forms[name] else "without"], theirs[name]) for name in forms],
        tolerance=1e-4,
        ratios=[("with", "without"), *((name, WITHOUT) for name in naive), *((name, "with") for name in naive)],
        costs=costs | {name: functools.partial(pytorch.cost, step) for name, step in theirs.items()},
    )


def load(folder: Path, *, seed: int = 0) -> tuple[Any, Any]:
    """Returns the model around a CLIP, and its parameters: CLIP's as read, the rest random, zeros nowhere."""
    pretrained = read_pretrained(folder)
    clip: Any = pretrained.model.config
    model, size = ContextCIR(ContextCIRConfig(clip)), clip.vision.image_size
    inputs = jnp.zeros((1, size, size, 3), jnp.uint8), jnp.zeros((1, 4), jnp.int32), jnp.ones((1, 4), bool)
    shapes = nn.unbox(jax.eval_shape(model.init, jax.random.key(0), *inputs)["params"])
    rng = np.random.default_rng(seed)
    draw = lambda x: jnp.asarray(rng.normal(scale=0.02, size=x.shape) + (x.ndim == 1) * 0.5, jnp.float32)
    params = {name: jax.tree.map(draw, tree) for name, tree in shapes.items() if name != "clip"}
    return model, params | {"clip": jax.tree.map(lambda leaf: jnp.asarray(leaf.read()), pretrained.params)}


def make_batch(model: ContextCIR, batch: int, phrases: int, *, seed: int = 0) -> ComposedBatch:
    """Returns `batch` references with a modification of 20 tokens each, with `phrases` phrases of 3 tokens in it."""
    clip = model.config.clip
    rng, size, length = np.random.default_rng(seed), clip.vision.image_size, clip.text.positions
    bos, eos = clip.text.vocabulary - 2, clip.text.vocabulary - 1  # CLIP pads with its EOS
    ids, mask = np.full((batch, 1, length), eos, np.int32), np.zeros((batch, 1, length), bool)
    ids[..., 0], ids[..., 1:19], mask[..., :20] = bos, rng.integers(1000, 40000, (batch, 1, 18)), True
    text = np.repeat(np.arange(batch, dtype=np.int32), phrases)
    start = 1 + np.tile(np.arange(phrases, dtype=np.int32) * 3 % 16, batch)
    span = np.stack([start, start + 3], axis=-1)
    alone, real = np.full((len(text), PHRASE_LENGTH), eos, np.int32), np.zeros((len(text), PHRASE_LENGTH), bool)
    alone[:, 0], alone[:, 1:4] = bos, ids[text[:, None], 0, start[:, None] + np.arange(3)]
    real[:, :5] = True
    return ComposedBatch(
        references=rng.integers(0, 256, (batch, size, size, 3), np.uint8),
        targets=rng.integers(0, 256, (batch, 1, size, size, 3), np.uint8),
        texts=Tokens(ids, mask),
        valid=np.ones((batch, 1), bool),
        reference_ids=np.arange(batch, dtype=np.int32),
        target_ids=np.arange(batch, 2 * batch, dtype=np.int32)[:, None],
        records=np.arange(batch, dtype=np.int32)[:, None],
        phrases=Phrases(
            Tokens(alone[None], real[None]),
            text[None],
            span[None],
            np.ones((1, len(text)), bool),
            np.zeros((batch, 3), np.int32),
        ),
    )


def make_steps(model: ContextCIR, params: Any, batch: ComposedBatch) -> tuple[dict[str, Program], dict[str, Any]]:
    """Returns our step without and with the loss, which train the same parameters, and calls that give their costs."""
    optimizer, inputs = optax.adamw(**OPTIMIZER), jax.tree.map(jnp.asarray, batch)
    training = Training(params, optimizer)
    steps, costs = {}, {}
    for name, weights in LOSSES.items():
        update = make_update(ContextCIRObjective(model, tuple(weights.items()), temperature=TEMPERATURE), optimizer)
        compiled = compile_update(update, training.state, inputs)
        steps[name] = lambda compiled=compiled: training.update(compiled, inputs)["loss"]
        costs[name] = functools.partial(cost_of_compiled, compiled)
    return steps, costs


def make_torch_steps(
    folder: Path, model: ContextCIR, fusion: Mapping[str, Any], batch: ComposedBatch, passes: Mapping[str, int]
) -> dict[str, Program]:
    """Returns PyTorch's steps by name; all train the same model.

    Args:
      folder: the CLIP.
      model: ours, for its sizes.
      fusion: parameters of everything but the CLIP, by our names.
      batch: as contextjax has it; phrases are padded to the texts' length here.
      passes: name -> into how many passes the phrases alone are cut; 0: no consistency loss.
    """
    module = make_torch_model(folder, model.config.clip, fusion, model.config.fusion_heads)
    optimizer, tensors = pytorch.adamw(module.parameters(), OPTIMIZER), torch_tensors(model.config.clip, batch)
    return {
        name: lambda cut=cut: pytorch.update(optimizer, torch_loss(module, tensors, cut))
        for name, cut in passes.items()
    }


def torch_loss(model: Any, tensors: Mapping[str, Any], passes: int) -> Any:
    """Returns the contrastive loss with references as negatives, plus the consistency of the phrases' maps."""
    import torch
    import torch.nn.functional as F

    references = tensors["references"]
    query, reference, attention = model(references, tensors["ids"], tensors["mask"])
    query, target, reference = (F.normalize(x) for x in (query, model.embed(tensors["targets"]), reference))
    rows = torch.arange(len(query))
    to_target, to_query = query @ torch.cat([target, reference]).T / TEMPERATURE, target @ query.T / TEMPERATURE
    loss = WEIGHTS["contrastive"] * (F.cross_entropy(to_target, rows) + F.cross_entropy(to_query, rows)) / 2
    if not passes:
        return loss
    text, ids, mask = tensors["text"], tensors["alone_ids"], tensors["alone_mask"]
    with torch.no_grad():
        chunks = torch.arange(len(text)).chunk(passes)
        alone = torch.cat([model(references[text[chunk]], ids[chunk], mask[chunk])[2] for chunk in chunks])
        alone = _phrase_attention(alone, tensors["alone_inside"])
    in_context = _phrase_attention(attention[text], tensors["inside"])
    return loss + WEIGHTS["consistency"] * (in_context - alone).abs().mean()


def _phrase_attention(attention: Any, inside: Any) -> Any:
    """Mean over the phrase's tokens, for every patch: [P, I, T] and bool [P, T] -> [P, I - 1]."""
    return (attention[:, 1:] * inside[:, None]).sum(-1) / inside.sum(-1, keepdim=True)


def _torch_modules(config: CLIPConfig, heads: int) -> tuple[Any, Any]:
    """Returns the classes of a fusion block and of the query's pooling, as PyTorch modules with our names."""
    import torch
    from torch import nn

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

    return Block, Pooling


def make_torch_model(folder: Path, config: CLIPConfig, fusion: Mapping[str, Any], heads: int) -> Any:
    """Returns ConText-CIR as a PyTorch module, whose submodules have our names, so that our parameters fit by name."""
    import torch
    from torch import nn

    make_block, make_pooling = _torch_modules(config, heads)

    class TorchContextCIR(nn.Module):
        def __init__(self):
            super().__init__()
            self.clip = pytorch.load_clip(folder)
            self.blocks = sorted(name for name in fusion if name.startswith("fusion"))
            for name in self.blocks:
                self.add_module(name, make_block())
            self.pooling, self.query_projection = make_pooling(), nn.Linear(config.vision.width, config.projection)

        def embed(self, pixels: Any) -> Any:
            return self.clip.visual_projection(self.clip.vision_model(pixel_values=pixels).pooler_output)

        def forward(self, pixels: Any, ids: Any, mask: Any) -> Any:
            """Query, gallery embedding, attention over the text (mean of blocks and heads)."""
            image = self.clip.vision_model(pixel_values=pixels)
            text = self.clip.text_model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
            v, attention = image.last_hidden_state, []
            for name in self.blocks:
                v, weights = getattr(self, name)(v, text, mask)
                attention.append(weights.mean(1))
            query = self.query_projection(self.pooling(v))
            return query, self.clip.visual_projection(image.pooler_output), torch.stack(attention).mean(0)

    model = TorchContextCIR().train()
    own = {name: torch.from_numpy(x) for name, x in _torch_names(fusion)}
    missing, unexpected = model.load_state_dict(own, strict=False)
    assert not unexpected and all(name.startswith("clip.") for name in missing), (missing, unexpected)
    return model


def _torch_names(tree: Mapping[str, Any], prefix: str = "") -> Sequence[tuple[str, np.ndarray]]:
    """Flax parameters under PyTorch's names; PyTorch's kernels are transposed."""
    named: list[tuple[str, np.ndarray]] = []
    for name, x in tree.items():
        if isinstance(x, Mapping):
            named += _torch_names(x, f"{prefix}{name}.")
        else:
            array = np.ascontiguousarray(np.array(x).T if name == "kernel" else np.array(x))
            named.append((prefix + {"kernel": "weight", "scale": "weight"}.get(name, name), array))
    return named


def torch_tensors(config: CLIPConfig, batch: ComposedBatch) -> dict[str, Any]:
    """Returns the batch as PyTorch's model takes it: pixels normalised, phrases padded to the texts' length."""
    import torch

    phrases = batch.phrases
    assert phrases is not None
    length = batch.texts.ids.shape[-1]
    (text, span), (alone, real) = (phrases.text[0], phrases.span[0]), (x[0] for x in phrases.tokens)  # of one group
    padding = ((0, 0), (0, length - alone.shape[1]))
    positions = np.arange(length)
    sizes = real.sum(-1)[:, None]
    arrays = {
        "ids": batch.texts.ids[:, 0].astype(np.int64),
        "mask": batch.texts.mask[:, 0],
        "alone_ids": np.pad(alone, padding, mode="edge").astype(np.int64),
        "alone_mask": np.pad(real, padding),
        "text": text.astype(np.int64),
        "inside": (positions >= span[:, :1]) & (positions < span[:, 1:]),
        "alone_inside": (positions >= 1) & (positions < sizes - 1),
    }
    return {
        "references": pytorch.pixels(batch.references, config.vision),
        "targets": pytorch.pixels(batch.targets[:, 0], config.vision),
        **{name: torch.from_numpy(x) for name, x in arrays.items()},
    }
