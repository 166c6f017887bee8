"""What a program's cost lets one expect of a chip, and what matrix products reach in this very process."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from contextjax.analysis.chips import ATTAINABLE, Chip
from contextjax.analysis.collectives import Collective
from contextjax.analysis.cost import Cost

FORMULA = (
    "step = max(FLOPs / (peak x {attainable:g}), memory bytes / bandwidth) + bytes sent / interconnect x {exposed:g}; "
    "MFU = matrix FLOPs / (step x peak x devices)"
)


@dataclasses.dataclass(frozen=True)
class Expectation:
    """Seconds of one step by the formula, and the share of the peak that its matrix products then reach."""

    chip: Chip
    compute: float
    memory: float
    collectives: float
    step: float
    mfu: float


def expected_step(
    cost: Cost, chip: Chip, *, dtype: str, attainable: float = ATTAINABLE, hidden: float = 0.0
) -> Expectation:
    """The formula of FORMULA, on one device's figures.

    Args:
      cost: of the step.
      chip: what it runs on.
      dtype: of its matrix products.
      attainable: share of the peak that they reach at best.
      hidden: share of the collectives' time that passes during other work.
    """
    compute = cost.device_flops / (chip.peak(dtype) * attainable)
    memory = touched(cost) / chip.bandwidth
    sending = (1 - hidden) * sum(seconds_to_send(operation, chip) for operation in cost.collectives)
    step = max(compute, memory) + sending
    return Expectation(chip, compute, memory, sending, step, cost.flops / (step * chip.peak(dtype) * cost.devices))


def touched(cost: Cost) -> float:
    """Bytes that a device's memory moves at least: each argument and output once, each temporary written and read.

    What XLA's analysis calls "bytes accessed" is of the compiled backend, whose fusions are not another chip's.
    """
    return 2 * cost.arguments + cost.outputs + 2 * cost.temporaries


def seconds_to_send(operation: Collective, chip: Chip) -> float:
    """Time of a collective at the speed of the slowest part of its way, latencies left out.

    A group within a domain has the chips' links. One that reaches further has the network, where the members in one
    domain share its load: each of m sends a part in m over its own port.
    """
    if operation.span <= chip.domain:
        return operation.total / chip.link
    together = max(1, operation.group * chip.domain // operation.span)
    speed = min(chip.link, chip.network * together)
    return operation.total / speed if speed else float("inf")


def matmul_rate(dtype: str, *, sizes: tuple[int, ...] = (1024, 2048), seconds: float = 1.0) -> float:
    """FLOP/s of the fastest square matrix product on the first device: what this machine can do at best, now.

    Args:
      dtype: "float32" or "bfloat16".
      sizes: of the sides that are tried.
      seconds: for which each is repeated.
    """
    return max(_rate(matmul(size, dtype), size, seconds / len(sizes)) for size in sizes)


def matmul(size: int, dtype: str) -> Callable[[], Any]:
    """A square matrix product of 2 * size ** 3 FLOPs."""
    key = jax.random.key(0)
    a, b = (jax.random.normal(k, (size, size), jnp.float32).astype(dtype) for k in jax.random.split(key))
    product = jax.jit(jnp.matmul)
    return lambda: jax.block_until_ready(product(a, b))


def _rate(product: Callable[[], Any], size: int, seconds: float) -> float:
    """The best of single runs: a roof is not what an interrupted run reached."""
    product()  # compiles
    best, end = float("inf"), time.perf_counter() + seconds
    while True:
        begin = time.perf_counter()
        product()
        best = min(best, time.perf_counter() - begin)
        if time.perf_counter() > end:
            return 2 * size**3 / best
