"""Plans: the needs of a config on a mesh, whose training step is compiled for simulated devices and never run."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import AbstractMesh

from contextjax.analysis.chips import USABLE, Chip
from contextjax.analysis.cost import Cost, cost_of
from contextjax.analysis.roofline import FORMULA, expected_step, touched
from contextjax.sharding import activations, placement_table, placements, state_shardings
from experiments.shared.abstract_step import abstract_step, with_sizes


@dataclasses.dataclass(frozen=True)
class Plan:
    """The training step of a config on a mesh; bytes are of one device."""

    mesh: dict[str, int]
    batch: int
    dtype: str
    parameters: int
    parameter_bytes: int
    optimizer_bytes: int
    cost: Cost
    table: str  # the placement of the state
    state_bytes: Callable[[int], int]  # fsdp -> bytes of parameters and optimizer on such a mesh, otherwise the same

    @property
    def batch_bytes(self) -> float:
        """Bytes of the inputs."""
        return self.cost.arguments - self.parameter_bytes - self.optimizer_bytes

    def fits(self, chip: Chip) -> bool:
        """Returns True if the program's peak is within the usable part of a chip's memory."""
        return self.cost.peak <= USABLE * chip.memory


def make_plan(config: Any) -> Plan:
    """Compiles the step of the config's last phase for its mesh, which names a size for every axis.

    Raises:
      UserError: there are no sizes to build the model with, or the mesh or batch does not go together.
    """
    step = abstract_step(config)
    with activations(step.mesh):
        compiled = step.traced.lower().compile()
    state = step.state
    return Plan(
        mesh=dict(step.mesh.shape),
        batch=step.config.data.batch_size,
        dtype=step.config.model.dtype,
        parameters=sum(math.prod(row.shape) for row in placements(state.params)),
        parameter_bytes=sum(row.device_bytes for row in placements(state.params)),
        optimizer_bytes=sum(row.device_bytes for row in placements(state.opt_state)),
        cost=cost_of(step.traced, compiled, devices=step.mesh.size),
        table=placement_table(state),
        state_bytes=functools.partial(_state_bytes, step.fresh, dict(step.mesh.shape)),
    )


def make_plan_with_remat(config: Any) -> Plan | None:
    """Returns the plan of the same step with remat in both towers; None if the config has that already.

    The blocks are scanned as well: XLA's CPU compiler keeps the activations of unrolled blocks all the same.
    """
    config = with_sizes(config)
    with config.unlocked():
        if config.model.vision.remat == config.model.text.remat == "full":
            return None
        config.model.vision.remat = config.model.text.remat = "full"
        config.model.vision.scan = config.model.text.scan = True
        config.model.pretrained = ""  # whose sizes are there now
    return make_plan(config)


def advice(plan: Plan, chip: Chip, *, with_remat: Plan | None = None) -> list[str]:
    """Returns changes that make the plan fit a chip, each with the figure it is computed from; none if it fits."""
    if plan.fits(chip):
        return []
    cost, usable, changes = plan.cost, USABLE * chip.memory, []
    state = plan.parameter_bytes + plan.optimizer_bytes
    parts = plan.mesh["data"] * plan.mesh["fsdp"]
    cuts = [n for n in range(2 * plan.mesh["fsdp"], parts + 1) if parts % n == 0 and n % plan.mesh["fsdp"] == 0]
    if state > usable / 4 and cuts:
        best = next((n for n in cuts if plan.state_bytes(n) <= usable / 4), cuts[-1])
        changes.append(
            f"mesh data:{parts // best},fsdp:{best}: parameters and optimizer take {gigabytes(plan.state_bytes(best))} "
            f"a device instead of {gigabytes(state)}."
        )
    left = usable - cost.arguments - cost.outputs
    if left <= 0:
        return [*changes, f"More devices: {gigabytes(cost.arguments)} a device are there before a step begins."]
    if with_remat:
        verdict = "which fits" if with_remat.fits(chip) else "which does not fit either"
        changes.append(
            f"model.vision.remat=full and model.text.remat=full: {gigabytes(with_remat.cost.peak)} at the peak instead "
            f"of {gigabytes(cost.peak)}, {verdict}; {with_remat.cost.flops / cost.flops:.2f} x the FLOPs."
        )
    pieces, rows = math.ceil(cost.temporaries / left), plan.batch // parts
    largest = int(rows * left / cost.temporaries) * parts
    if not largest:
        return [*changes, f"More devices, or tensor: not even one row a device fits ({gigabytes(left)} are left)."]
    cut = next(count for count in range(pieces, rows + 1) if rows % count == 0)
    changes.append(
        f"a batch of {largest} at most instead of {plan.batch}, or {cut} micro-batches (training.micro_batches), if "
        f"the {gigabytes(cost.temporaries)} of temporaries grow with the batch."
    )
    return changes


def describe(plan: Plan, chips: Sequence[Chip], *, attainable: float, hidden: float) -> str:
    """Returns the plan as text: placements, the cost of a step, and the time to expect of each chip."""
    cost, devices = plan.cost, plan.cost.devices
    mesh = ", ".join(f"{axis}:{size}" for axis, size in plan.mesh.items())
    sent = {kind: size for kind, size in cost.sent.items() if size}
    lines = [
        f"{plan.parameters:,} parameters; mesh {mesh}: {devices} devices; batch {plan.batch}, {plan.dtype}",
        "", plan.table, "",
        "bytes of a device: " + ", ".join((
            f"parameters {gigabytes(plan.parameter_bytes)}", f"optimizer {gigabytes(plan.optimizer_bytes)}",
            f"batch {gigabytes(plan.batch_bytes)}", f"activations and other temporaries {gigabytes(cost.temporaries)}",
            f"at the peak {gigabytes(cost.peak)}",
        )),
        f"FLOPs of a step: {cost.flops / 1e12:.4g} T in matrix products, {cost.device_flops / 1e12:.4g} T on a device",
        f"bytes a device sends in a step: {gigabytes(sum(sent.values()))}"
        + "".join(f", {kind} {gigabytes(size)}" for kind, size in sent.items()),
        f"bytes of memory moved, at least: {gigabytes(touched(cost))} a device",
        "", "Expected, not measured: " + FORMULA.format(attainable=attainable, exposed=1 - hidden), "",
        f"{'chip':<6}{'memory':>10}  {'fits':<5}{'FLOPs':>10}{'memory':>10}{'sending':>10}{'step':>11}{'MFU':>8}",
    ]  # fmt: skip
    for chip in chips:
        e = expected_step(cost, chip, dtype=plan.dtype, attainable=attainable, hidden=hidden)
        times = "".join(f"{1e3 * value:>7.1f} ms" for value in (e.compute, e.memory, e.collectives))
        lines.append(
            f"{chip.name:<6}{gigabytes(chip.memory):>10}  {'yes' if plan.fits(chip) else 'no':<5}{times}"
            f"{1e3 * e.step:>8.1f} ms{100 * e.mfu:>6.1f} %"
        )
    return "\n".join(lines)


def as_json(plan: Plan, chips: Sequence[Chip], *, attainable: float, hidden: float) -> dict[str, Any]:
    """Returns the plan and the expectations as data for a JSON file."""
    expected = {}
    for chip in chips:
        e = expected_step(plan.cost, chip, dtype=plan.dtype, attainable=attainable, hidden=hidden)
        seconds = {name: getattr(e, name) for name in ("compute", "memory", "collectives", "step")}
        expected[chip.name] = {"fits": plan.fits(chip), "seconds": seconds, "mfu": e.mfu, "source": chip.source}
    cost = plan.cost
    return {
        "mesh": plan.mesh, "devices": cost.devices, "batch": plan.batch, "dtype": plan.dtype,
        "parameters": plan.parameters,
        "device_bytes": {
            "parameters": plan.parameter_bytes, "optimizer": plan.optimizer_bytes, "batch": plan.batch_bytes,
            "temporaries": cost.temporaries, "peak": cost.peak, "moved": touched(cost),
        },
        "flops": cost.flops, "device_flops": cost.device_flops, "sent": cost.sent,
        "formula": FORMULA.format(attainable=attainable, exposed=1 - hidden), "usable": USABLE, "chips": expected,
    }  # fmt: skip


def gigabytes(count: float) -> str:
    """Returns bytes as a text in GB, with three digits."""
    return f"{count / 1e9:.3g} GB"


def _state_bytes(fresh: Callable[[], Any], mesh: dict[str, int], fsdp: int) -> int:
    """Bytes of the state on each device, on the same number of devices with another fsdp."""
    sizes = {**mesh, "data": mesh["data"] * mesh["fsdp"] // fsdp, "fsdp": fsdp}
    abstract = jax.eval_shape(fresh)
    shardings = state_shardings(abstract, AbstractMesh(tuple(sizes.values()), tuple(sizes)))
    pairs = (abstract.params, shardings.params), (abstract.opt_state, shardings.opt_state)
    return sum(row.device_bytes for pair in pairs for row in placements(*pair))
