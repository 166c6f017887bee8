"""The tables of docs/scaling.md, from plans that experiments.plan has written.

python -m experiments.scaling [--plans=results/plans]

A plan's file is SIZE-MESH.json, such as H14-data8,fsdp8.json. What stands at 4096 devices is continued from the two
largest plans of a size over data alone: with a constant batch a device, everything that a device holds, computes and
sends is a line in the number of devices, n, once what it sends is divided by (n - 1) / n.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from absl import flags

from experiments import cli

PLANS = flags.DEFINE_string("plans", "results/plans", "The folder of plans.")
SIZES = ("B32", "B16", "L14", "H14")
CHIPS = ("H100", "v5e", "v5p")
LARGEST = 4096
ROWS = 32  # triplets a device, in all plans over data alone
USABLE = 0.9  # of a chip's memory, as experiments.plan has it


def main() -> None:
    """Plans -> tables."""
    print("\n\n".join(tables(Path(PLANS.value))))


def tables(folder: Path) -> list[str]:
    """Markdown: sizes by devices, break-even batches, meshes of H/14, the contrastive loss.

    Raises:
      UserError: the folder has no plan.
    """
    from contextjax.types import UserError

    plans = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
    if not plans:
        raise UserError(
            f"{folder} has no plan; expected what experiments.plan --output={folder}/B32-data8.json writes."
        )
    return ["\n".join(rows) for rows in (_weak(plans), _break_even(plans), _meshes(plans), _losses())]


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
        found = _over_data(plans, size)
        for devices, cost in found.items():
            cells = [_gb(cost.arguments + cost.outputs), _gb(cost.temporaries), _gb(sum(cost.sent.values()))]
            continued = "" if f"{size}-data{devices}" in plans else " (continued)"
            yield _row(size, f"{devices}{continued}", ROWS * devices, *cells, *(_expected(cost, c) for c in CHIPS))


def _expected(cost: Any, chip: str) -> str:
    from contextjax.analysis.chips import CHIPS as table
    from contextjax.analysis.roofline import expected_step

    e = expected_step(cost, table[chip], dtype="bfloat16")
    told = f"{1e3 * e.step:.0f} ms, {100 * e.mfu:.0f} %, {100 * max(e.compute, e.memory) / e.step:.0f} %"
    return told if cost.peak <= USABLE * table[chip].memory else f"{told} *"


def _break_even(plans: Mapping[str, Any]) -> Iterator[str]:
    """The batch a device at which sending takes as long as computing, over data alone."""
    from contextjax.analysis.chips import CHIPS as table
    from contextjax.analysis.roofline import expected_step

    yield from _head("size", "devices", *CHIPS)
    for size in SIZES:
        for devices, cost in _over_data(plans, size).items():
            each = [expected_step(cost, table[chip], dtype="bfloat16") for chip in CHIPS]
            yield _row(size, devices, *(f"{ROWS * e.collectives / e.compute:.1f}" for e in each))


def _meshes(plans: Mapping[str, Any]) -> Iterator[str]:
    """Meshes of one size beside one another."""
    yield from _head(
        "plan", "batch", "state", "temporaries", "sent, by kind", *(f"{chip}: step, MFU" for chip in CHIPS)
    )
    for name, found in plans.items():
        if not name.startswith("H14"):
            continue
        held, sent = found["device_bytes"], {kind: size for kind, size in found["sent"].items() if size > 5e6}
        kinds = ", ".join(f"{kind} {_gb(size)}" for kind, size in sent.items())
        times = [found["chips"][chip] for chip in CHIPS]
        expected = [
            f"{1e3 * t['seconds']['step']:.0f} ms, {100 * t['mfu']:.0f} %{'' if t['fits'] else ' *'}" for t in times
        ]
        state = held["parameters"] + held["optimizer"]
        yield _row(name, found["batch"], _gb(state), _gb(held["temporaries"]), kinds, *expected)


def _losses() -> Iterator[str]:
    """What the contrastive loss adds on a device: by its formulas, of ROWS queries a device and one reference each."""
    widths = {"B32": 512, "B16": 512, "L14": 768, "H14": 1024}
    yield from _head("size", "devices", "embeddings sent", "gathered: embeddings and logits held", "ring: held")
    for size in ("B32", "H14"):
        for devices in (8, 64, 512, LARGEST):
            width = widths[size]
            everything = 2 * ROWS * devices  # targets and references
            sent = 4 * (everything - 2 * ROWS) * width
            gathered = 4 * everything * width + 4 * ROWS * everything
            ring = 2 * 4 * 2 * ROWS * width + 4 * ROWS * 2 * ROWS  # a block and the one that is on its way
            yield _row(size, devices, _gb(sent), _gb(gathered), _gb(ring))


def _over_data(plans: Mapping[str, Any], size: str) -> dict[int, Any]:
    """Devices -> Cost: of the plans over data alone, and continued to LARGEST."""
    names = {int(name.removeprefix(f"{size}-data")): name for name in plans if _is_over_data(name, size)}
    costs = {devices: cost_of_plan(plans[names[devices]]) for devices in sorted(names)}
    if len(costs) >= 2:
        costs[LARGEST] = continued(*list(costs.values())[-2:], devices=LARGEST)
    return costs


def _is_over_data(name: str, size: str) -> bool:
    return name.startswith(f"{size}-data") and name.removeprefix(f"{size}-data").isdigit()


def cost_of_plan(found: Mapping[str, Any]) -> Any:
    """The Cost in a plan over data alone, where every collective is of all devices."""
    from contextjax.analysis.collectives import Collective
    from contextjax.analysis.cost import Cost

    held, n = found["device_bytes"], found["devices"]
    arguments = held["parameters"] + held["optimizer"] + held["batch"]
    outputs = held["peak"] - arguments - held["temporaries"]
    sent = tuple(Collective(kind, size, n, n, 1, True, "") for kind, size in found["sent"].items() if size)
    return Cost(n, found["flops"], found["device_flops"], 0.0, arguments, held["temporaries"], outputs, sent)


def continued(first: Any, second: Any, *, devices: int) -> Any:
    """The cost on more devices with the same batch on each, on the line through two; see the module's docstring."""
    share = lambda n: (n - 1) / n
    t = (devices - second.devices) / (second.devices - first.devices)
    line = lambda a, b: b + t * (b - a)
    before = {operation.kind: operation.sent / share(first.devices) for operation in first.collectives}
    sent = tuple(
        dataclasses.replace(
            operation, group=devices, span=devices,
            sent=share(devices) * line(before.get(operation.kind, 0.0), operation.sent / share(second.devices)),
        )
        for operation in second.collectives
    )  # fmt: skip
    numbers = ("device_flops", "arguments", "temporaries", "outputs")
    values = {name: line(getattr(first, name), getattr(second, name)) for name in numbers}
    flops = devices * line(first.flops / first.devices, second.flops / second.devices)
    return dataclasses.replace(second, devices=devices, flops=flops, collectives=sent, **values)


def _head(*cells: str) -> Iterator[str]:
    yield _row(*cells)
    yield f"|{'---|' * len(cells)}"


def _row(*cells: Any) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _gb(count: float) -> str:
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"


if __name__ == "__main__":
    cli.run(main, doc=__doc__)
