"""The cost of one run of a program: matrix FLOPs from the traced program, memory and bytes from the compiled one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr
from jax.interpreters import partial_eval

from contextjax.analysis.collectives import Collective, bytes_sent, collectives


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of one run of a program; memory, bytes and `device_flops` are those of one device."""

    devices: int
    flops: float  # of the matrix products of all devices together, as they are written: nothing is computed twice
    device_flops: float  # of the busiest device, elementwise work included
    arguments: float  # bytes a device holds before the program begins
    temporaries: float  # bytes beside them and the outputs, at the worst moment
    outputs: float  # bytes that take no argument's place
    collectives: tuple[Collective, ...]

    @property
    def peak(self) -> float:
        """The bytes that a device needs at the peak."""
        return self.arguments + self.temporaries + self.outputs

    @property
    def sent(self) -> dict[str, float]:
        """The bytes that a device sends, by kind of collective."""
        return bytes_sent(self.collectives)


def cost_of(traced: Any, compiled: Any, *, devices: int) -> Cost:
    """Returns the cost of a program.

    Args:
      traced: the jax.stages.Traced of `jax.jit(...).trace(...)`.
      compiled: the jax.stages.Compiled of its `.lower().compile()`.
      devices: the number of devices that it runs on.

    Example:
      traced = jax.jit(jnp.matmul).trace(x, y)
      cost_of(traced, traced.lower().compile(), devices=1).flops
    """
    flops, memory = matmul_flops(without_unused(traced.jaxpr)[0]), compiled.memory_analysis()
    counted = compiled.cost_analysis() or {}
    # XLA counts a loop's body once, however often it runs, and the products inside some kernels not at all.
    device_flops = max(counted.get("flops", 0.0), flops / devices)
    return Cost(
        devices=devices,
        flops=flops,
        device_flops=device_flops,
        arguments=float(memory.argument_size_in_bytes),
        temporaries=float(memory.temp_size_in_bytes),
        outputs=float(memory.output_size_in_bytes - memory.alias_size_in_bytes),
        collectives=collectives(compiled.as_text()),
    )


def traced_flops(program: Callable, *inputs: Any) -> float:
    """Returns `matmul_flops` of a function, traced on arrays or their shapes."""
    return matmul_flops(without_unused(jax.make_jaxpr(program)(*inputs))[0])


def without_unused(program: ClosedJaxpr) -> tuple[Jaxpr, list[bool]]:
    """Returns a program without operations that no output needs (gradients of pictures), and which inputs it reads."""
    return partial_eval.dce_jaxpr(program.jaxpr, [True] * len(program.jaxpr.outvars))


def matmul_flops(program: ClosedJaxpr | Jaxpr) -> float:
    """Returns the FLOPs of a program's matrix products and convolutions on all devices, two for each multiply-add.

    A loop counts as often as it runs (of unknown length: once), a conditional as its most expensive branch.
    """
    total = 0.0
    for equation in getattr(program, "jaxpr", program).eqns:
        name, params = equation.primitive.name, equation.params
        if name == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            total += 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)
        elif name == "conv_general_dilated":
            kernel, where = equation.invars[1].aval.shape, params["dimension_numbers"].rhs_spec
            per_output = math.prod(kernel) / kernel[where[0]]
            total += 2 * math.prod(equation.outvars[0].aval.shape) * per_output
        else:
            inner = [matmul_flops(each) for each in _programs_in(params)]
            if name == "cond":
                total += max(inner)
            else:
                total += _times(name, params) * sum(inner)
    return total


def _times(name: str, params: dict[str, Any]) -> int:
    """Returns how often an operation runs its programs: the length of a scan, or the devices of a shard_map.

    Axes that a shard_map leaves to the compiler don't count: the compiler divides the body's work over them.
    """
    if name == "shard_map":
        return math.prod(params["mesh"].shape[axis] for axis in params["newly_manual_axes"])
    return params["length"] if name == "scan" else 1


def _programs_in(params: dict[str, Any]) -> Iterator[Any]:
    """The programs that an operation runs."""
    for value in params.values():
        for each in value if isinstance(value, tuple | list) else (value,):
            if isinstance(each, ClosedJaxpr | Jaxpr):
                yield each
