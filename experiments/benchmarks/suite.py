"""A suite of measurements for a machine with a chip: cases, each in a process of its own, until the time is up.

A case that is done has its JSON file in the folder and is not run again; one that failed is tried again by the same
command. `suite.json` has all of them, and is written after each.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contextjax.analysis.chips import chip_of_kind
from contextjax.analysis.targets import GPUS
from contextjax.files import write_whole
from contextjax.json_files import read_json
from contextjax.types import UserError

LEAST = 5.0  # seconds that have to be left for another case
PROBE = "import jax, json; d = jax.devices()[0]; print(json.dumps([d.platform, d.device_kind]))"
AIMS = {"L14_training": 0.4, "B32_training": 0.3}  # MFU of the peak, on an H100
SCAN = ("--config.model.vision.scan=True", "--config.model.text.scan=True")
CUDNN = ("--config.model.vision.attention=cudnn", "--config.model.text.attention=cudnn")


@dataclasses.dataclass(frozen=True)
class Case:
    """A command that writes one JSON file, given as its last argument --output=FILE."""

    name: str
    command: tuple[str, ...]
    without: str = ""  # reason why it can't run here; "" if it can


def cases(suite: str, platform: str, kind: str) -> list[Case]:
    """Returns the cases of a suite on a device, those that say most first.

    Args:
      suite: "accelerator" or "accelerator_tiny".
      platform: "gpu", "tpu" or "cpu".
      kind: the device's own name.
    """
    is_tiny = suite == "accelerator_tiny"
    steps = "--steps=1" if is_tiny else "--steps=20"
    dtype = "--dtype=float32" if platform == "cpu" else "--dtype=bfloat16"
    sizes = {"L14": "configs/context_cir.py:L14", "B32": "configs/context_cir.py:B32", "1": "configs/context_blip.py:1"}
    if is_tiny:
        sizes = {"L14": "configs/context_cir.py:tiny", "B32": "configs/context_cir.py:tiny",
                 "1": "configs/context_blip.py:1,tiny"}  # fmt: skip

    def benchmark(size: str, mode: str, batch: int, *more: str) -> tuple[str, ...]:
        rows = f"--batch={2 if is_tiny else batch}"
        common = ("experiments.benchmark", f"--config={sizes[size]}", f"--mode={mode}", rows, dtype)
        return (*common, steps, "--nocompile", *more)

    no_cudnn = "" if platform == "gpu" else "cuDNN is of CUDA devices"
    trained = {"L14_training": ("L14", 32), "B32_training": ("B32", 256), "stage1_training": ("1", 128)}
    chosen = [Case(name, benchmark(size, "training", rows, *SCAN)) for name, (size, rows) in trained.items()]
    chosen += [Case(f"{size}_embedding", benchmark(size, "embedding", 256)) for size in ("L14", "B32")]
    for size, rows in (("L14", 32), ("B32", 256)):
        chosen.append(Case(f"{size}_training_cudnn", benchmark(size, "training", rows, *SCAN, *CUDNN), no_cudnn))
    chosen += [_planned(name, sizes[size], 2 if is_tiny else rows, kind) for name, (size, rows) in trained.items()]
    number = dtype.removeprefix("--dtype=")
    no_torch = "" if importlib.util.find_spec("torch") else "PyTorch is not installed (the extra [torch])"
    for size in ("tiny",) if is_tiny else ("L14", "B32"):
        rows = f"forward-{2 if is_tiny else 256}-{number},step-{2 if is_tiny else 64}-{number}"
        command = ("experiments.comparisons", "clip", f"--size={size}", f"--rows={rows}", "--seconds=0")
        chosen.append(Case(f"{size}_beside_pytorch", (*command, f"--pairs={1 if is_tiny else 3}"), no_torch))
    return chosen


def _planned(name: str, config: str, rows: int, kind: str) -> Case:
    """Returns the case of the figures that `plan --target` has for a training case's step."""
    chip = chip_of_kind(kind)
    target = f"{chip.name}:1x1x1" if chip and chip.name in GPUS else f"{chip.name}:1x1" if chip else ""
    command = ("experiments.plan", f"--config={config}", "--mesh=data:1", f"--batch={rows}", "--scan", "--nosimulated")
    without = "" if target else f"there is no compile target for '{kind}'"
    return Case(f"{name}_planned", (*command, f"--target={target}"), without)


def run(suite: str, folder: Path, *, minutes: float) -> str:
    """Runs the cases that `folder` lacks, one after the other, and returns a table of all of them.

    Raises:
      UserError: the machine has no accelerator, or JAX does not find it.
    """
    until = time.monotonic() + 60 * minutes
    environment = dict(os.environ) | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # PyTorch needs some, too
    environment.setdefault("CUDA_VISIBLE_DEVICES", "0")  # one GPU, whose figures can be compared
    platform, kind = _probe(environment)
    if platform == "cpu" and suite == "accelerator":
        raise UserError(
            "JAX finds no accelerator here, and the suite takes hours on a CPU; --suite=accelerator_tiny tries it."
        )
    folder.mkdir(parents=True, exist_ok=True)
    done: dict[str, Any] = {}
    for case in cases(suite, platform, kind):
        done[case.name] = _result(case, folder, environment, until)
        summary = {"suite": suite, "device": kind, "platform": platform, "cases": done}
        write_whole(folder / "suite.json", json.dumps(summary, indent=2) + "\n")
        print(f"{case.name}: {_said(done[case.name])}", flush=True)
    return table(done)


def _probe(environment: Mapping[str, str]) -> tuple[str, str]:
    """Returns the platform and kind of the first device; this process itself takes no device's memory."""
    command = [sys.executable, "-c", PROBE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"JAX finds no device ({last}); install JAX for it, or unset JAX_PLATFORMS.")
    platform, kind = json.loads(done.stdout.strip().splitlines()[-1])
    return ("gpu" if platform in ("gpu", "cuda", "rocm") else platform), kind


def _result(case: Case, folder: Path, environment: Mapping[str, str], until: float) -> Any:
    """Returns what a case's file has, after running its command where there is none; or why there is none."""
    output = folder / f"{case.name}.json"
    if output.exists():
        return read_json(output, layout="a benchmark", remedy="remove the file; the same command measures it again")
    if case.without:
        return {"left_out": case.without}
    if (left := until - time.monotonic()) < LEAST:
        return {"left_out": "the time was up; the same command continues"}
    log = folder / f"{case.name}.log"
    with log.open("w", encoding="utf-8") as stream:
        command = [sys.executable, "-m", *case.command, f"--output={output}"]
        try:
            code = subprocess.run(
                command, env=dict(environment), stdout=stream, stderr=subprocess.STDOUT, timeout=left, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            return {"left_out": "the time was up while it ran; the same command tries again"}
    if code or not output.exists():
        last = (log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no message"])[-1]
        return {"failed": f"exit code {code}: {last[:300]}"}
    log.unlink()
    return read_json(output, layout="a benchmark", remedy="remove the file; the same command measures it again")


def _said(result: Mapping[str, Any]) -> str:
    return result.get("left_out") or result.get("failed") or "done"


def table(done: Mapping[str, Any]) -> str:
    """Returns a Markdown table: rates, MFU beside its aim, memory beside its plan, PyTorch's rates beside ours."""
    lines = ["| case | samples/s | MFU | aim (H100) | peak memory | planned | PyTorch |", f"|{'---|' * 7}"]
    for name, result in done.items():
        if name.endswith("_planned"):
            continue
        if reason := result.get("left_out") or result.get("failed"):
            lines.append(f"| {name} | {reason} | | | | | |")
        elif "rates" in result:
            lines += [
                f"| {name}, {row} | {rates['images/s']:.4g} | | | | | {rates['PyTorch images/s']:.4g} |"
                for row, rates in result["rates"].items()
            ]
        else:
            planned = done.get(f"{name}_planned", {}).get("device_bytes", {}).get("peak")
            mfu, aim = result.get("mfu_of_peak"), AIMS.get(name)
            cells = (
                f"{result['samples_per_second']:.4g}", f"{100 * mfu:.1f} %" if mfu else "-",
                f"{100 * aim:.0f} %" if aim else "-", f"{result['peak_memory_bytes'] / 1e9:.2f} GB",
                f"{planned / 1e9:.2f} GB" if planned else "-", "-",
            )  # fmt: skip
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)
