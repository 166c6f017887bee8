"""CLIP ViT-B/32 beside PyTorch: the image tower and a dual-encoder training step, in pictures a second.

python -m experiments.comparisons clip [--pairs=7] [--rows=forward-8-float32,...] [--threads=2] [--output=FILE.json]

Both sides get the same random weights and inputs. A large matrix product is timed in the same rounds: it is the roof
that the share of the roofline refers to. Needs the extra `[torch]`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import statistics
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from contextjax.analysis.cost import traced_flops
from contextjax.analysis.roofline import matmul
from contextjax.losses.contrastive import contrastive_loss
from contextjax.models.clip import CLIP, CLIPConfig
from contextjax.pretrained import read_pretrained
from contextjax.types import Tokens, UserError
from experiments.comparisons import pytorch
from experiments.comparisons.harness import KEEP_MEMORY, Case, Program, Table, measure, option
from experiments.comparisons.training import Training, compile_update, make_update

ROWS = tuple(f"{name}-{dtype}" for dtype in ("float32", "bfloat16") for name in ("forward-8", "forward-32", "step-16"))
OPTIMIZER: dict[str, Any] = {"learning_rate": 1e-5, "b1": 0.9, "b2": 0.98, "eps": 1e-6, "weight_decay": 0.2}
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.1}  # tolerance of outputs and losses; bfloat16 keeps 8 bits
MATMUL = 2048
PACKAGES = ("flax", "torch", "transformers")
NOTES = {
    "pytorch": "transformers' CLIPModel, scaled_dot_product_attention, inference_mode; bfloat16: weights cast before "
    "(forward), autocast (step); torch.optim.AdamW(fused=True)",
    "flops": "matrix products of our traced program, two for each multiply-add",
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Flags of the case."""

    pairs: int = option(7, "Rounds: a timing of each library and of a large matmul.", lower_bound=1)
    rows: tuple[str, ...] = option(ROWS, "What is timed: {forward,step}-BATCH-{float32,bfloat16}.")
    seconds: float = option(1.5, "The least time of one timing.", lower_bound=0.0)
    threads: int = option(2, "Threads of both.", lower_bound=1)
    size: str = option("B32", "The model; tiny: to see that everything works.", enum_values=[*pytorch.CLIP_SIZES])
    keep_memory: bool = option(True, KEEP_MEMORY)


def compare(options: Options) -> dict[str, Table]:
    """Returns "checked", "programs", "ratios" and "rates" (medians, for each row).

    Raises:
      UserError: a row can't be read, or the outputs differ.
    """
    wanted = [parse_row(row) for row in options.rows]
    tables: dict[str, Table] = {"checked": {}, "programs": {}, "ratios": {}, "rates": {}}
    with tempfile.TemporaryDirectory() as scratch:
        pytorch.write_clip(Path(scratch), options.size)
        for row, (name, batch, dtype) in zip(options.rows, wanted, strict=True):
            case, flops = make_case(Path(scratch), row, name, batch, dtype)
            result = measure(case, pairs=options.pairs, seconds=options.seconds)
            result["rates"] = {row: rates(result["programs"], row, batch=batch, flops=flops)}
            for title, rows in result.items():
                tables[title] |= rows
            print(f"{row} is done.", flush=True)
            del case
            gc.collect()  # a step keeps gigabytes
    return tables


def parse_row(row: str) -> tuple[str, int, str]:
    """Returns "forward" or "step", the batch and the number type of a row.

    Raises:
      UserError: it is written in another way.
    """
    name, _, rest = row.partition("-")
    batch, _, dtype = rest.partition("-")
    if name not in ("forward", "step") or not batch.isdigit() or dtype not in TOLERANCE:
        raise UserError(
            f"--rows has '{row}'; expected {{forward,step}}-BATCH-{{float32,bfloat16}}, as forward-8-float32."
        )
    return name, int(batch), dtype


def make_case(folder: Path, row: str, name: str, batch: int, dtype: str) -> tuple[Case, float]:
    """Returns the programs of a row and the FLOPs of one call."""
    config: Any = read_pretrained(folder).model.config
    rng, length = np.random.default_rng(0), config.text.positions
    images = rng.integers(0, 256, (batch, config.vision.image_size, config.vision.image_size, 3), np.uint8)
    checks = 1
    if name == "forward":
        (ours, flops), theirs = forward(folder, images, dtype), torch_forward(folder, config, images, dtype)
    else:
        ids = rng.integers(1, config.text.eos_token, (batch, length), np.int32)
        ids[:, -1] = config.text.eos_token
        (ours, flops), theirs = step(folder, images, ids, dtype), torch_step(folder, config, images, ids, dtype)
        checks = 2  # the loss after an update compares the gradients and the optimizers, too
    programs = {row: ours, f"PyTorch {row}": theirs, f"matmul beside {row}": matmul(MATMUL, dtype)}
    case = Case(
        programs=programs,
        checks=[(f"{row}, {number + 1}", ours, theirs) for number in range(checks)],
        tolerance=TOLERANCE[dtype],
        ratios=[(f"PyTorch {row}", row)],
    )
    return case, flops


def rates(programs: Table, row: str, *, batch: int, flops: float) -> dict[str, float]:
    """Returns medians over the rounds; the share of the roofline is that of each round's own matmul."""
    ours, theirs, roof = (programs[name]["seconds"] for name in (row, f"PyTorch {row}", f"matmul beside {row}"))
    reached = [2 * MATMUL**3 / t for t in roof]
    return {
        "images/s": batch / statistics.median(ours),
        "PyTorch images/s": batch / statistics.median(theirs),
        "share of the matmul roofline": statistics.median(
            flops / t / rate for t, rate in zip(ours, reached, strict=True)
        ),
        "matmul FLOP/s": statistics.median(reached),
        "flops": flops,
    }


@dataclasses.dataclass(frozen=True)
class ClipObjective:
    """CLIP's own loss: pictures against their texts, both ways, with the learned temperature."""

    model: CLIP
    weights: tuple[tuple[str, float], ...] = (("contrastive", 1.0),)
    is_rowwise = True

    def represent(self, params: Any, batch: tuple[Any, Tokens], rng: Any) -> dict[str, Any]:
        """Returns both embeddings and the temperature; nothing here is random."""
        images, texts = batch
        image, text = self.model.bind({"params": params})(images, *texts)
        return {"image": image, "text": text, "temperature": jnp.exp(-params["logit_scale"])}

    def terms(self, representations: dict[str, Any], batch: Any) -> dict[str, tuple[Any, Any]]:
        """Returns the one term."""
        r = representations
        rows = jnp.arange(len(r["image"]))
        options = {"temperature": r["temperature"], "valid": rows >= 0, "target_ids": rows}
        return {"contrastive": contrastive_loss(r["image"], r["text"], **options)}


def load(folder: Path, dtype: str) -> tuple[Any, Any]:
    """Returns the module, computing in `dtype`, and its float32 parameters."""
    pretrained = read_pretrained(folder, dtype=jnp.dtype(dtype))
    return pretrained.model, jax.tree.map(lambda leaf: jnp.asarray(leaf.read()), pretrained.params)


def forward(folder: Path, images: np.ndarray, dtype: str) -> tuple[Program, float]:
    """Returns our image tower with its projection, uint8 [B, H, W, 3] -> [B, D], and its FLOPs."""
    model, params = load(folder, dtype)
    params, batch = jax.tree.map(lambda x: x.astype(dtype), params), jnp.asarray(images)

    @jax.jit
    def embed(params: Any, images: jax.Array) -> jax.Array:
        clip = model.bind({"params": params})
        return clip.project_image(clip.encode_image(images).pooled)

    return lambda: np.asarray(embed(params, batch), np.float32), traced_flops(embed, params, batch)


def step(folder: Path, images: np.ndarray, ids: np.ndarray, dtype: str) -> tuple[Program, float]:
    """Returns our training step of both towers, which gives the loss, and its FLOPs."""
    model, params = load(folder, dtype)
    optimizer = optax.adamw(**OPTIMIZER)
    training, update = Training(params, optimizer), make_update(ClipObjective(model), optimizer)
    batch = jnp.asarray(images), Tokens(jnp.asarray(ids), jnp.ones(ids.shape, bool))
    flops, compiled = traced_flops(update, training.state, batch), compile_update(update, training.state, batch)
    return lambda: training.update(compiled, batch)["loss"], flops


def torch_forward(folder: Path, config: CLIPConfig, images: np.ndarray, dtype: str) -> Program:
    """Returns PyTorch's image tower with its projection, as a careful user would run it."""
    import torch

    model = pytorch.load_clip(folder).eval().to(getattr(torch, dtype))
    pixels = pytorch.pixels(images, config.vision).to(pytorch.device(), getattr(torch, dtype))

    def run() -> np.ndarray:
        with torch.inference_mode():
            return model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output).float().cpu().numpy()

    return run


def torch_step(folder: Path, config: CLIPConfig, images: np.ndarray, ids: np.ndarray, dtype: str) -> Program:
    """Returns PyTorch's training step of both towers, which gives the loss."""
    import torch

    model = pytorch.load_clip(folder).train()
    device = pytorch.device()
    pixels, tokens = pytorch.pixels(images, config.vision).to(device), torch.from_numpy(ids).long().to(device)
    optimizer = pytorch.adamw(model.parameters(), OPTIMIZER)
    precision = torch.autocast(device, torch.bfloat16) if dtype == "bfloat16" else contextlib.nullcontext()

    def run() -> float:
        with precision:
            # Texts fill their length: without a mask, attention may be causal by itself.
            loss = model(input_ids=tokens, pixel_values=pixels, return_loss=True).loss
        return pytorch.update(optimizer, loss)

    return run
