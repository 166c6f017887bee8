"""The cost of answering: parameters, FLOPs and bytes of a system, of its base model and of every way to ask them."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from contextjax import programs
from contextjax.analysis.cost import matmul_flops, without_unused
from contextjax.lora import NAME, Lora
from contextjax.models.blip import BLIP
from contextjax.models.composed_blip import ComposedBLIP
from contextjax.models.context_blip import ContextBLIP
from contextjax.models.covr2 import CoVR2
from contextjax.pretrained import abstract_params, towers
from contextjax.pretrained.names import flatten
from contextjax.variants import make_model
from experiments.shared import models
from experiments.shared.abstract_step import with_sizes
from experiments.shared.config_check import check_values

Trained = Callable[[Any, set[str]], int]  # (parameters, paths of those that a program reads) -> how many are trained
CANDIDATES = 10  # of the set that a candidate's FLOPs are computed from


@dataclasses.dataclass(frozen=True)
class InferenceCost:
    """The cost of one way to query one model.

    Attributes:
      name: the model and the way.
      parameters: all that this way reads.
      trained: those of them that the recipe trains, and those of adapters, which are merged into them.
      query_flops: of a query: what there is once, however many candidates there are.
      candidate_flops: of each candidate: a gallery picture, once for all queries; or a picture of a set with its text.
      bytes: of the parameters, in the type that the model computes in.
    """

    name: str
    parameters: int
    trained: int
    query_flops: float
    candidate_flops: float
    bytes: int


def inference_costs(config: Any) -> list[InferenceCost]:
    """Returns the costs of a config's system: of its default way of answering first, then of the simpler ways.

    For ConText-CIR these are its baselines, of which "sum" is CLIP's. For ContextBLIP they are the base model's scores.
    """
    config = with_sizes(config)
    vocabulary = config.data.vocabulary or config.model.text["vocabulary"]
    spec = models.make_spec(config, vocabulary=vocabulary)
    model = make_model(spec)
    length = config.data.text_length
    trained = functools.partial(_count_trained, freeze=tuple(config.optimizer.freeze), lora=models.lora_of(config))
    if isinstance(model, ContextBLIP):
        short = (config.data.propositions, config.data.proposition_length) if config.model.propositions else (1, length)
        cost = functools.partial(_of_sets, length=length, short=short)
        base = BLIP(model.config.blip, model.dtype)
        return [
            cost("ContextBLIP", model, spec.score, trained=trained),
            *(cost("BLIP", base, score, trained=lambda params, used: 0) for score in ("itm", "sum", "itc")),
        ]
    base = "BLIP-2" if isinstance(model, CoVR2) else "BLIP" if isinstance(model, ComposedBLIP) else "CLIP"
    query = getattr(model.config, "query", "sum")
    modes = dict.fromkeys((query, "sum", "image", "text"))
    own = spec.title if spec.family != "context_cir" else query
    names = {"fusion": "ConText-CIR", "composed": own, "sum": f"{base}'s sum"}
    name = lambda mode: names.get(mode, own if mode == query else f"{base}'s {mode} alone")
    return [_of_queries(name(mode), model, mode, length=length, trained=trained) for mode in modes]


def describe(costs: Sequence[InferenceCost]) -> str:
    """Returns a Markdown table; FLOPs are those of matrix products, two for each multiply-add."""
    lines = [
        "| asked as | parameters | trained | GFLOPs a query | GFLOPs a candidate | MB |", f"|{'---|' * 6}",
        *(
            f"| {c.name} | {c.parameters:,} | {c.trained:,} | {c.query_flops / 1e9:.4g} | "
            f"{c.candidate_flops / 1e9:.4g} | {c.bytes / 1e6:.4g} |"
            for c in costs
        ),
    ]  # fmt: skip
    first, *others = costs
    for other in others[:1]:
        for what in ("query", "candidate"):
            mine, its = getattr(first, f"{what}_flops"), getattr(other, f"{what}_flops")
            if its:
                lines.append(f"A {what} of {first.name} costs {100 * (mine / its - 1):+.1f} % beside {other.name}.")
    return "\n".join(lines)


def describe_costs(config: Any) -> str:
    """Returns `describe` of a config's costs."""
    check_values(config)
    return describe(inference_costs(config))


def _of_queries(name: str, model: Any, mode: Any, *, length: int, trained: Trained) -> InferenceCost:
    """Returns the costs of composed queries: a reference and a text; a candidate is a picture of the gallery."""
    pixels, ids, mask = _pixels(towers(model.config).vision.image_size, 1), *_texts(1, length)
    params = nn.unbox(abstract_params(model))
    query = _used(lambda *inputs: programs.embed_query(model, *inputs, mode=mode), params, pixels, ids, mask)
    gallery = _used(lambda *inputs: programs.embed_gallery(model, *inputs), params, pixels)
    return _cost(name, model, params, query[1] | gallery[1], query[0], gallery[0], trained)


def _of_sets(
    name: str, model: Any, score: Any, *, length: int, short: tuple[int, int], trained: Trained
) -> InferenceCost:
    """Returns the costs of a text about a set: a candidate's is a tenth of what ten more add; the rest counts once.

    The inter-context encoder, which has no more than so many positions, is counted by itself, in equal parts of the
    candidates that it reads.
    """
    size = (model.config.blip if isinstance(model, ContextBLIP) else model.config).vision.image_size
    params = nn.unbox(abstract_params(model))

    def count(counted: Any, candidates: int) -> tuple[float, set[str]]:
        texts = (*_texts(1, length), *_texts(1, *short))
        ordered, sets = jax.ShapeDtypeStruct((1,), jnp.bool_), jax.ShapeDtypeStruct((1,), jnp.int32)
        run = lambda *inputs: programs.score_sets(counted, *inputs, mode=score)
        return _used(run, params, _pixels(size, 1, candidates), *texts, ordered, sets)

    has_encoder = isinstance(model, ContextBLIP) and score == "selection" and model.config.context_layers > 0
    plain = _without_context(model) if has_encoder else model
    few, used = count(plain, CANDIDATES)
    each = (count(plain, 2 * CANDIDATES)[0] - few) / CANDIDATES
    query = max(few - CANDIDATES * each, 0.0)
    if has_encoder:
        positions = min(CANDIDATES, model.config.context_positions)
        whole, used = count(model, positions)
        each = (whole - query) / positions
    return _cost(f"{name}, {score}", model, params, used, query, each, trained)


def _without_context(model: ContextBLIP) -> ContextBLIP:
    return ContextBLIP(dataclasses.replace(model.config, context_layers=0), model.dtype)


def _cost(
    name: str, model: Any, params: Any, used: set[str], query: float, candidate: float, trained: Trained
) -> InferenceCost:
    """Returns a cost; parameters are those that the programs read."""
    total = sum(math.prod(x.shape) for path, x in flatten(params).items() if path in used)
    return InferenceCost(
        name, total, trained(params, used), query, candidate, total * jnp.dtype(model.dtype or jnp.float32).itemsize
    )


def _count_trained(params: Any, used: set[str], *, freeze: Sequence[str], lora: Lora | None) -> int:
    """Returns how many of the parameters `used` are not frozen, and how many the adapters of the others have."""
    if lora:
        params = jax.eval_shape(lora.add, params, jax.random.key(0))
        used = {*used, *(f"{NAME}/{path}/{side}" for path in used for side in "ab")}
    frozen = tuple(f"{path}/" for path in freeze)
    sizes = {path: math.prod(x.shape) for path, x in flatten(params).items() if path in used}
    return sum(count for path, count in sizes.items() if not f"{path}/".startswith(frozen))


def _used(program: Callable[..., Any], params: Any, *inputs: Any) -> tuple[float, set[str]]:
    """Returns the FLOPs of a program, without what no output needs, and the paths of the parameters that it reads."""
    jaxpr, is_used = without_unused(jax.make_jaxpr(program)(params, *inputs))
    paths = list(flatten(params))
    return matmul_flops(jaxpr), {path for path, used in zip(paths, is_used, strict=False) if used}


def _pixels(size: int, *lead: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((*lead, size, size, 3), jnp.uint8)


def _texts(*shape: int) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    return jax.ShapeDtypeStruct(shape, jnp.int32), jax.ShapeDtypeStruct(shape, jnp.bool_)
