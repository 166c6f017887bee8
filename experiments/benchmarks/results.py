"""Records of benchmarks: rates, MFU and the machine; tables of records, and two of them side by side."""

from __future__ import annotations

import datetime
import importlib.metadata
import resource
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from contextjax.analysis.chips import chip_of_kind
from contextjax.json_files import read_json
from contextjax.types import UserError
from experiments.benchmarks.runs import Timing
from experiments.shared import machine

COMPARED = (
    "steps_per_second", "samples_per_second", "seconds_per_step", "flops", "mfu_of_peak", "mfu_of_matmul",
    "matmul_flops_per_second", "data_wait", "first_step_cold_seconds", "first_step_warm_seconds",
    "recompiles", "peak_memory_bytes",
)  # fmt: skip
SAME = ("mode", "config", "variant", "batch", "dtype", "mesh", "data", "device")


def record(timing: Timing, about: Mapping[str, Any], *, began: float, roof: float | None, dtype: str) -> dict[str, Any]:
    """Returns the record of a run, as it is written to a file.

    MFU counts the program's matrix products as they are written: nothing that is computed twice.

    Args:
      timing: the run's timing.
      about: entries that describe the run, "mode" among them.
      began: time.perf_counter() when the process began.
      roof: FLOP/s of the fastest matrix product in this process, on one device.
      dtype: the number type of the computation.
    """
    devices = jax.device_count() if about["mode"] == "training" else 1  # the others' parameters are on one
    chip = chip_of_kind(jax.devices()[0].device_kind)
    entries: dict[str, Any] = {
        **about, "device": jax.devices()[0].device_kind, "devices": devices, "cpu": machine.cpu_model(),
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax")},
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "first_step_seconds": timing.first_step - began, "flops": timing.flops, "data_wait": timing.data_wait,
        "recompiles": timing.recompiles, "matmul_flops_per_second": roof, **peak_memory(),
    }  # fmt: skip
    if timing.seconds:
        total, step = sum(timing.seconds), statistics.median(timing.seconds)
        entries |= {
            "steps": len(timing.seconds), "seconds": timing.seconds, "seconds_per_step": step,
            "steps_per_second": len(timing.seconds) / total, "samples": timing.samples,
            "samples_per_second": timing.samples * len(timing.seconds) / total,
        }  # fmt: skip
        rate = timing.flops / step / devices if timing.flops else None
        entries["mfu_of_peak"] = rate / chip.peak(dtype) if rate and chip else None
        entries["mfu_of_matmul"] = rate / roof if rate and roof else None
    return entries


def peak_memory() -> dict[str, Any]:
    """Returns the peak bytes of a device, where its runtime counts them; else those of this process."""
    counted = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    if counted:
        return {"peak_memory_bytes": counted, "peak_memory_of": "device"}
    unit = 1 if sys.platform == "darwin" else 1024
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {"peak_memory_bytes": resident, "peak_memory_of": "process"}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns a Markdown table with a row for each record."""
    heads = (
        "run", "batch", "steps/s", "samples/s", "TFLOP a step", "of the peak", "of the matmul roofline",
        "waits for data", "first step, cold", "warm", "recompiles", "peak memory",
    )  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for row in rows:
        cells = (
            f"{row['mode']}, {row['variant']}, {row['dtype']}, {row['data']}", row["batch"],
            _shown(row.get("steps_per_second"), "{:.3g}"), _shown(row.get("samples_per_second"), "{:.3g}"),
            _shown(row["flops"], "{:.3g}", 1e-12), _shown(row.get("mfu_of_peak"), "{:.1f} %", 100),
            _shown(row.get("mfu_of_matmul"), "{:.1f} %", 100), _shown(row["data_wait"], "{:.1f} %", 100),
            _shown(row.get("first_step_cold_seconds"), "{:.1f} s"),
            _shown(row.get("first_step_warm_seconds"), "{:.1f} s"),
            row["recompiles"], _shown(row["peak_memory_bytes"], "{:.2f} GB", 1e-9),
        )  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _shown(value: float | None, form: str, factor: float = 1.0) -> str:
    return "-" if value is None else form.format(factor * value)


def compare(paths: Sequence[str]) -> str:
    """Returns a Markdown table of two result files, with the ratios of the second to the first.

    Raises:
      UserError: there are not two, or one can't be read.
    """
    if len(paths) != 2:
        raise UserError(f"--compare got {len(paths)} files; expected two, as --compare=before.json,after.json.")
    first, second = (_read(path) for path in paths)
    lines = [
        f"{key} differs: {first.get(key)} and {second.get(key)}" for key in SAME if first.get(key) != second.get(key)
    ]
    lines += ["", f"| | {paths[0]} | {paths[1]} | ratio |", "|---|---|---|---|"]
    for key in COMPARED:
        a, b = first.get(key), second.get(key)
        if a is None and b is None:
            continue
        ratio = f"{b / a:.3f}" if a and b is not None else "-"
        lines.append(f"| {key} | {_shown(a, '{:.4g}')} | {_shown(b, '{:.4g}')} | {ratio} |")
    return "\n".join(lines)


def _read(path: str) -> dict[str, Any]:
    result = read_json(Path(path), layout="a benchmark", remedy="give a file that experiments.benchmark --output wrote")
    if "mode" not in result:
        raise UserError(f"{path} is no result of one benchmark; give a file that experiments.benchmark --output wrote.")
    return result
