"""Plans by a chip's own compiler: a config's step, compiled for chips that this machine lacks and never run."""

from __future__ import annotations

import dataclasses
import functools
import json
import resource
import time
from pathlib import Path
from typing import Any

from contextjax.analysis.collectives import bytes_by_type
from contextjax.analysis.cost import Cost, cost_of
from contextjax.analysis.roofline import seconds_to_send
from contextjax.analysis.targets import Target, devices_of, needed_bytes
from contextjax.analysis.traffic import Work, seconds, traffic
from contextjax.files import write_whole
from contextjax.losses.contrastive import contrastive_loss
from contextjax.losses.sigmoid import sigmoid_loss
from contextjax.models.clip import SIGLIP_BIAS
from contextjax.sharding import activations, batch_parts
from contextjax.types import UserError
from experiments.benchmarks.loss_forms import cost_of_form
from experiments.shared.abstract_step import AbstractStep, abstract_step
from experiments.shared.loss_form import FORMS, contrastive_form
from experiments.shared.plans import gigabytes, make_plan

CHUNK = 1024  # side of the blocks of logits of the chunked and the ring form, where the config has none


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A training step as a target's compiler has made it, or has refused to; bytes are of one device."""

    target: Target
    effort: str
    dtype: str
    cost: Cost | None  # None: refused
    works: list[Work]
    needed: float | None  # bytes; of a refused program as far as the compiler says
    seconds: float  # of the processors, for tracing and compiling
    host_bytes: float  # of this process at its peak
    losses: dict[str, dict[str, Any]]  # the contrastive loss alone, by form: "temporary" and "sent", see loss_forms

    @property
    def fits(self) -> bool:
        """True if a device has the memory: by the TPU compiler's own verdict; of a GPU, computed."""
        if self.cost is None:
            return False
        return self.target.is_tpu or self.cost.peak <= self.target.limit

    @property
    def flops(self) -> float:
        """FLOPs of a device in matrix products, of the compiled instructions with their repetitions."""
        return sum(work.flops for work in self.works)

    @property
    def roofline(self) -> dict[str, float]:
        """Seconds at the data sheet's peak and bandwidth: "instructions" one after the other, "sending", "step"."""
        chip, cost = self.target.chip, self.cost
        assert cost is not None
        own = seconds(self.works, peak=chip.peak(self.dtype), bandwidth=chip.bandwidth)
        sending = sum(seconds_to_send(operation, chip) for operation in cost.collectives)
        return {"instructions": own, "sending": sending, "step": own + sending}


def compile_for(config: Any, target: Target, *, effort: str = "default") -> Compiled:
    """Compiles the step of the config's last phase for a target, see `contextjax.analysis.targets.prepare`.

    Raises:
      UserError: the mesh or batch does not fit the target, or its compiler can't be used.
    """
    began = time.process_time()
    step = abstract_step(config, devices=devices_of(target))
    made = functools.partial(_compiled, target, effort, step, began)
    try:
        with activations(step.mesh):
            program = step.traced.lower().compile(compiler_options=target.compiler_options(effort) or None)
    except Exception as error:  # the compiler's own class of errors, JaxRuntimeError, has no finer ones
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return made(None, [], needed_bytes(str(error)), {})
    cost = cost_of(step.traced, program, devices=step.mesh.size)
    return made(cost, traffic(program.as_text()), cost.peak, loss_costs(step, target))


def loss_costs(step: AbstractStep, target: Target) -> dict[str, dict[str, Any]]:
    """Compiles each form of the step's contrastive loss alone, with as many negatives as queries, if it has one."""
    config, mesh = step.config, step.mesh
    if "contrastive" not in dict(step.phase.objective.weights) or batch_parts(mesh) == 1:
        return {}
    batch, chunk = config.data.batch_size, config.loss.chunk or CHUNK
    loss = functools.partial(sigmoid_loss, bias=SIGLIP_BIAS) if config.loss.get("sigmoid") else contrastive_loss
    options = target.compiler_options("default") or None
    return {
        name: cost_of_form(
            contrastive_form(name, 0 if name == "gathered" else chunk, mesh, loss=loss),
            mesh,
            batch,
            config.model.projection,
            options,
        )
        for name in FORMS
    }


def advice_on_loss(losses: dict[str, dict[str, Any]]) -> str:
    """Returns a sentence on what each form of the contrastive loss sends and holds, and on the one that sends least."""
    each = ", ".join(
        f"{name} {gigabytes(cost['sent'])} sent and {gigabytes(cost['temporary'])} held"
        for name, cost in losses.items()
    )
    least = min(losses, key=lambda name: losses[name]["sent"])
    return f"The contrastive loss alone, a device: {each}; --config.loss.contrastive={least} sends least."


def plan_target(config: Any, target: Target, *, effort: str, simulated: bool, output: str | None = None) -> str:
    """Compiles the step for a target and, if `simulated`, for simulated CPU devices, and returns both as text.

    `output` is a JSON file of the target's figures.

    Raises:
      UserError: see compile_for, or the program does not fit the target.
    """
    compiled = compile_for(config, target, effort=effort)
    if output:
        write_whole(Path(output), json.dumps(as_json(compiled), indent=2) + "\n")
    if not compiled.fits:
        raise UserError(f"The step {verdict(compiled)}")
    return describe(compiled, make_plan(config).cost if simulated else None)


def _compiled(
    target: Target,
    effort: str,
    step: AbstractStep,
    began: float,
    cost: Cost | None,
    works: list[Work],
    needed: Any,
    losses: dict[str, dict[str, Any]],
) -> Compiled:
    host = 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Compiled(
        target, effort, step.config.model.dtype, cost, works, needed, time.process_time() - began, host, losses
    )


def verdict(compiled: Compiled) -> str:
    """Returns a sentence on whether the program fits a device, and where the verdict comes from."""
    target = compiled.target
    limit, needed = gigabytes(target.limit), compiled.needed
    source = target.memory_source
    if compiled.fits:
        return f"fits {target.name}: {gigabytes(needed or 0.0)} of {limit} a device ({source})"
    missing = f", {gigabytes(needed - target.limit)} more than there are" if needed and needed > target.limit else ""
    amount = f"{gigabytes(needed)}{missing}" if needed else "more than that"
    return (
        f"does not fit {target.name}: it needs {amount}; a device has {limit} ({source}). Change: "
        "model.vision.remat=full and model.text.remat=full, fewer rows a device (--batch), micro-batches "
        "(training.micro_batches), or fsdp and tensor axes in --mesh."
    )


def describe(compiled: Compiled, simulated: Cost | None) -> str:
    """Returns what the target's compiler made of the step, beside the cost on simulated CPU devices, as text."""
    target, cost = compiled.target, compiled.cost
    effort = f", {compiled.effort} effort" if target.is_tpu else ""
    lines = [
        f"Compiled for {target.name} ({target.count} devices) by its own compiler{effort}, and never run:",
        f"{compiled.seconds:.0f} s of processor time, {gigabytes(compiled.host_bytes)} of this machine's memory",
        f"The step {verdict(compiled)}.",
    ]
    assert cost is not None
    beside = simulated
    row = lambda name, here, there: f"{name:<34}{here:>14}{there if beside else '':>18}"
    sent = sum(cost.sent.values())
    lines += ["", row("a device", "compiled", "simulated (CPU)")]
    for name in ("arguments", "temporaries", "outputs", "peak"):
        lines.append(row(name, gigabytes(getattr(cost, name)), gigabytes(getattr(beside, name)) if beside else ""))
    moved = sum(work.moved for work in compiled.works)
    lines += [
        row(
            "matrix FLOPs",
            f"{compiled.flops / 1e12:.4g} T",
            f"{beside.flops / beside.devices / 1e12:.4g} T" if beside else "",
        ),
        row("memory moved (compiled program)", gigabytes(moved), ""),
        row("sent", gigabytes(sent), gigabytes(sum(beside.sent.values())) if beside else ""),
    ]
    for kind, types in bytes_by_type(cost.collectives).items():
        for dtype, size in types.items():
            lines.append(row(f"  {kind}, {dtype}", gigabytes(size), ""))
    inexact = sum(not operation.is_exact for operation in cost.collectives)
    if inexact:
        lines.append(f"{inexact} of the collectives are in loops of unknown length, and count once")
    if compiled.losses:
        lines.append(advice_on_loss(compiled.losses))
    times = compiled.roofline
    lines.append(
        "Roofline of the compiled instructions, expected and not measured: each at the data sheet's peak or bandwidth, "
        f"one after the other {1e3 * times['instructions']:.1f} ms, sending {1e3 * times['sending']:.1f} ms"
    )
    return "\n".join(lines)


def as_json(compiled: Compiled) -> dict[str, Any]:
    """Returns the figures as data for a JSON file."""
    target, cost = compiled.target, compiled.cost
    figures: dict[str, Any] = {
        "target": target.name, "devices": target.count, "effort": compiled.effort if target.is_tpu else None,
        "fits": compiled.fits, "verdict": target.memory_source, "limit": target.limit, "needed": compiled.needed,
        "compile": {"cpu_seconds": compiled.seconds, "host_bytes": compiled.host_bytes},
    }  # fmt: skip
    if cost is None:
        return figures
    works = compiled.works
    return figures | {
        "device_bytes": {
            "arguments": cost.arguments, "temporaries": cost.temporaries, "outputs": cost.outputs, "peak": cost.peak,
            "read": sum(work.read for work in works), "written": sum(work.written for work in works),
        },
        "device_flops": compiled.flops, "traced_flops": cost.flops, "sent": cost.sent,
        "sent_by_type": bytes_by_type(cost.collectives), "roofline_seconds": compiled.roofline,
        "losses": compiled.losses, "inexact": sum(not operation.is_exact for operation in cost.collectives),
    }  # fmt: skip
