"""The step time to expect of a chip from a program's cost, and the rate that matrix products reach in this process."""

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
    """The seconds of one step by FORMULA, and the share of the peak that its matrix products then reach (MFU)."""

    chip: Chip
    compute: float
    memory: float
    collectives: float
    step: float
    mfu: float


def expected_step(
    cost: Cost, chip: Chip, *, dtype: str, attainable: float = ATTAINABLE, hidden: float = 0.0
) -> Expectation:
    """Returns the step time that FORMULA gives for one device: an expectation, not a measurement.

    Args:
      cost: the step's cost.
      chip: the chip that it runs on.
      dtype: "bfloat16" or "float32", of the matrix products.
      attainable: the share of the peak that matrix products reach at best.
      hidden: the share of the collectives' time that passes during other work.
    """
    compute = cost.device_flops / (chip.peak(dtype) * attainable)
    memory = touched(cost) / chip.bandwidth
    sending = (1 - hidden) * sum(seconds_to_send(operation, chip) for operation in cost.collectives)
    step = max(compute, memory) + sending
    return Expectation(chip, compute, memory, sending, step, cost.flops / (step * chip.peak(dtype) * cost.devices))


def touched(cost: Cost) -> float:
    """Returns a lower bound of the bytes that memory moves: all are written once, arguments and temporaries read.

    XLA's own "bytes accessed" depends on the fusions of the backend that compiled the program, which differ by chip.
    """
    return 2 * cost.arguments + cost.outputs + 2 * cost.temporaries


def seconds_to_send(operation: Collective, chip: Chip) -> float:
    """Returns the seconds of a collective at the speed of its slowest link, without latencies.

    A group within a domain uses the chips' links. A group that reaches further uses the network; its m members in one
    domain share the load, each with its own port.
    """
    if operation.span <= chip.domain:
        return operation.total / chip.link
    together = max(1, operation.group * chip.domain // operation.span)
    speed = min(chip.link, chip.network * together)
    return operation.total / speed if speed else float("inf")


def matmul_rate(dtype: str, *, sizes: tuple[int, ...] = (1024, 2048), seconds: float = 1.0) -> float:
    """Returns the FLOP/s of the fastest square matrix product on the first device: the roof of this machine, now.

    Args:
      dtype: "float32" or "bfloat16".
      sizes: the sides that are tried.
      seconds: the time in which they are repeated, all together.
    """
    return max(_rate(matmul(size, dtype), size, seconds / len(sizes)) for size in sizes)


def matmul(size: int, dtype: str) -> Callable[[], Any]:
    """Returns a program that runs a square matrix product of 2 * size ** 3 FLOPs."""
    key = jax.random.key(0)
    a, b = (jax.random.normal(k, (size, size), jnp.float32).astype(dtype) for k in jax.random.split(key))
    product = jax.jit(jnp.matmul)
    return lambda: jax.block_until_ready(product(a, b))


def _rate(product: Callable[[], Any], size: int, seconds: float) -> float:
    """FLOP/s of the fastest single run: runs that other work interrupted do not count."""
    product()  # compiles
    best, end = float("inf"), time.perf_counter() + seconds
    while True:
        begin = time.perf_counter()
        product()
        best = min(best, time.perf_counter() - begin)
        if time.perf_counter() > end:
            return 2 * size**3 / best
