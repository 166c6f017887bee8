"""Tables of plans: sizes by numbers of devices, break-even batches, meshes, tensor beside fsdp, the contrastive loss.

A plan's file is SIZE-MESH.json, such as H14-data8,fsdp8.json. More devices than can be simulated are for the chips' own
compilers (experiments.plan --target).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from contextjax.analysis import chips
from contextjax.analysis.chips import USABLE
from contextjax.analysis.collectives import Collective
from contextjax.analysis.cost import Cost
from contextjax.analysis.roofline import expected_step
from contextjax.json_files import read_json
from contextjax.types import UserError
from contextjax.variants import VARIANTS

SIZES = ("B32", "B16", "L14", "H14")
CHIPS = ("H100", "v5e", "v5p")
DEVICES = (8, 64, 512, 4096)
ROWS = 32  # triplets a device, in all plans over data alone


def tables(folder: Path) -> list[str]:
    """Returns the tables of a folder of plans, in Markdown.

    Raises:
      UserError: the folder has no plan.
    """
    files = sorted(folder.glob("*.json"))
    plans = {path.stem: read_json(path, layout="a plan", remedy="write it again") for path in files}
    if not plans:
        raise UserError(
            f"{folder} has no plan; expected what experiments.plan --output={folder}/B32-data8.json writes."
        )
    return ["\n".join(rows) for rows in (_weak(plans), _break_even(plans), _meshes(plans), _tensor(), _losses())]


def _weak(plans: Mapping[str, Any]) -> Iterator[str]:
    """Sizes by numbers of devices, over data alone."""
    yield from _head(
        "size",
        "devices",
        "batch",
        "state",
        "temporaries",
        "sent",
        *(f"{chip}: step, MFU, efficiency" for chip in CHIPS),
    )
    for size in SIZES:
        for devices, cost in _over_data(plans, size).items():
            cells = [_gb(cost.arguments + cost.outputs), _gb(cost.temporaries), _gb(sum(cost.sent.values()))]
            yield _row(size, devices, ROWS * devices, *cells, *(_expected(cost, c) for c in CHIPS))


def _expected(cost: Any, chip: str) -> str:
    e = expected_step(cost, chips.CHIPS[chip], dtype="bfloat16")
    expected = f"{1e3 * e.step:.0f} ms, {100 * e.mfu:.0f} %, {100 * max(e.compute, e.memory) / e.step:.0f} %"
    return expected if cost.peak <= USABLE * chips.CHIPS[chip].memory else f"{expected} *"


def _break_even(plans: Mapping[str, Any]) -> Iterator[str]:
    """The batch a device at which sending takes as long as computing, over data alone."""
    yield from _head("size", "devices", *CHIPS)
    for size in SIZES:
        for devices, cost in _over_data(plans, size).items():
            # The gradients' bytes do not depend on the batch, what is left of the sending grows with it.
            name = next(name for name in plans if _is_over_data(name, size))
            fixed = 8 * plans[name]["parameters"] * (devices - 1) / devices / sum(cost.sent.values())
            each = [expected_step(cost, chips.CHIPS[chip], dtype="bfloat16") for chip in CHIPS]
            yield _row(size, devices, *(_even(e.compute / ROWS, e.collectives, fixed) for e in each))


def _even(compute: float, sending: float, fixed: float) -> str:
    """The batch b at which b x compute = fixed x sending + b x the sending that a row adds (ROWS rows, as planned)."""
    row = (1 - fixed) * sending / ROWS
    return f"{fixed * sending / (compute - row):.1f}" if compute > row else "never"


def _meshes(plans: Mapping[str, Any]) -> Iterator[str]:
    """Meshes of one size beside one another."""
    yield from _head(
        "plan", "batch", "state", "temporaries", "sent, by kind", *(f"{chip}: step, MFU" for chip in CHIPS)
    )
    for name, plan in plans.items():
        if not name.startswith("H14"):
            continue
        held, sent = plan["device_bytes"], {kind: size for kind, size in plan["sent"].items() if size > 5e6}
        kinds = ", ".join(f"{kind} {_gb(size)}" for kind, size in sent.items())
        times = [plan["chips"][chip] for chip in CHIPS]
        expected = [
            f"{1e3 * t['seconds']['step']:.0f} ms, {100 * t['mfu']:.0f} %{'' if t['fits'] else ' *'}" for t in times
        ]
        state = held["parameters"] + held["optimizer"]
        yield _row(name, plan["batch"], _gb(state), _gb(held["temporaries"]), kinds, *expected)


def _tensor() -> Iterator[str]:
    """Bytes that fsdp and tensor send for a block of the image tower, by their formulas: parameters or activations."""
    yield from _head("size", "fsdp", "tensor, a triplet", "triplets a device at which they are equal")
    for size in SIZES:
        vision: Any = VARIANTS[size].vision
        tokens = 1 + (vision.image_size // vision.patch_size) ** 2
        parameters = 4 * (4 * vision.width**2 + 2 * vision.width * vision.mlp)  # bytes, float32
        fsdp = 3 * parameters  # gathered twice, its gradient scattered
        tensor = 2 * 4 * 2 * 2 * tokens * vision.width  # 2 pictures, 4 all-reduces of twice their bfloat16 bytes
        yield _row(size, _gb(fsdp), _gb(tensor), f"{fsdp / tensor:.0f}")


def _losses() -> Iterator[str]:
    """Bytes that the contrastive loss sends and holds, by formula, for ROWS queries with a reference a device."""
    yield from _head("size", "devices", "sent, gathered", "sent, ring", "held, gathered", "held, ring, at most")
    for size in ("B32", "H14"):
        for devices in DEVICES:
            width = VARIANTS[size].projection
            everything = 2 * ROWS * devices  # targets and references
            once = 4 * (everything - 2 * ROWS) * width
            gathered = 4 * everything * width + 4 * ROWS * everything
            ring = 9 * 4 * (2 * ROWS * width + (2 * ROWS) ** 2)  # what a test allows: blocks, their gradients, logits
            yield _row(size, devices, _gb(2 * once), _gb(3 * once), _gb(gathered), _gb(ring))


def _over_data(plans: Mapping[str, Any], size: str) -> dict[int, Any]:
    """Costs by number of devices, from plans over data alone."""
    names = {int(name.removeprefix(f"{size}-data")): name for name in plans if _is_over_data(name, size)}
    return {devices: cost_of_plan(plans[names[devices]]) for devices in sorted(names)}


def _is_over_data(name: str, size: str) -> bool:
    return name.startswith(f"{size}-data") and name.removeprefix(f"{size}-data").isdigit()


def cost_of_plan(plan: Mapping[str, Any]) -> Any:
    """Returns the cost in a plan over data alone, where all devices take part in every collective."""
    held, n = plan["device_bytes"], plan["devices"]
    arguments = held["parameters"] + held["optimizer"] + held["batch"]
    outputs = held["peak"] - arguments - held["temporaries"]
    sent = tuple(Collective(kind, size, n, n, 1, True, "") for kind, size in plan["sent"].items() if size)
    return Cost(n, plan["flops"], plan["device_flops"], arguments, held["temporaries"], outputs, sent)


def _head(*cells: str) -> Iterator[str]:
    yield _row(*cells)
    yield f"|{'---|' * len(cells)}"


def _row(*cells: Any) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _gb(count: float) -> str:
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"
