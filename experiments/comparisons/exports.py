"""The ONNX form of a run by type: the size of its files, a CPU's latency beside float32, and recall.

python -m experiments.comparisons exports --workdir=RUN --data=data/pictograms/cirr [--split=val] [--pairs=7]
    [--batch=16] [--types=float32,float16,int8] [--threads=2] [--output=results/exports.json]

Each type is exported, with its certificate, and scored by the protocol of --protocol, beside the live run. Then the
programs of pictures (gallery), texts and queries of all types run in turn, with --batch rows of random input.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import contextjax
from contextjax.evaluation import mean_metrics
from contextjax.export.exported import Exported, open_export
from contextjax.export.write import write_export
from contextjax.types import UserError
from data_pipelines import protocols
from experiments.comparisons.harness import Case, Program, Table, measure, option
from experiments.shared.data import load_parts
from experiments.shared.scoring import evaluate

PACKAGES = ("onnxruntime",)
TYPES, PROGRAMS = ("float32", "float16", "int8"), ("gallery", "text", "query")
NOTES = {
    "files": "bytes of model.safetensors and of all four programs, which share it",
    "difference": "the largest from the live model in float32 that the certificate found, over all programs",
    "latency": "seconds of a program for `batch` rows, by onnxruntime's CPU provider; ratios are to float32's",
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Flags of the case."""

    workdir: str = option("", "The run.")
    data: str = option("data/pictograms/cirr", "The folder that it is scored on.")
    protocol: str = option("cirr", "The protocol of the metrics.")
    split: str = option("val", "The split.")
    types: tuple = option(TYPES, "Types of the exports; float32 is the one that the others are compared with.")
    pairs: int = option(7, "Alternating rounds.", lower_bound=1)
    batch: int = option(16, "Rows of a call.", lower_bound=1)
    seconds: float = option(0.2, "The least time of one timing.", lower_bound=0.0)
    threads: int = option(2, "Threads.", lower_bound=1)


def compare(options: Options) -> dict[str, Table]:
    """Returns "exports" (size, difference, metrics by type), "programs" and "ratios".

    Raises:
      UserError: a type is unknown, or float32 is not among them; or see `contextjax.load` and `write_export`.
    """
    if "float32" not in options.types or not set(options.types) <= set(TYPES):
        raise UserError(f"--types is '{','.join(options.types)}'; expected float32, and some of {', '.join(TYPES)}.")
    live = contextjax.load(options.workdir)
    protocol = protocols.named(options.protocol)
    parts = load_parts(protocol, options.data, options.split, size=live.image_size, fit=live.fit)
    metrics = lambda system: mean_metrics([evaluate(system, protocol, data).metrics() for data in parts.values()])
    rows, opened = {"live": metrics(live)}, {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.types:
            folder = Path(scratch) / name
            write_export(live, folder, formats=("onnx",), dtype=name)
            opened[name] = open_export(folder)
            rows[name] = {"bytes": _bytes(folder), "difference": _difference(folder), **metrics(opened[name])}
        columns = dict.fromkeys(("bytes", "difference", *rows["live"]))
        exports = {name: {column: row[column] for column in columns if column in row} for name, row in rows.items()}
        tables = measure(
            Case(
                programs={f"{program}, {name}": _program(opened[name], program, options.batch)
                          for program in PROGRAMS for name in options.types},
                ratios=[(f"{program}, {name}", f"{program}, float32")
                        for program in PROGRAMS for name in options.types if name != "float32"],
            ),
            pairs=options.pairs, seconds=options.seconds,
        )  # fmt: skip
    return {"exports": exports, "programs": tables["programs"], "ratios": tables["ratios"]}


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.suffix in (".onnx", ".safetensors"))


def _difference(folder: Path) -> float:
    differences = json.loads((folder / "parity.json").read_text(encoding="utf-8"))["largest_difference"]["onnx"]
    return max(value for batches in differences.values() for value in batches.values())


def _program(exported: Exported, name: str, batch: int) -> Program:
    """Returns a call of a program with random pictures, and texts of twelve tokens."""
    rng, size = np.random.default_rng(0), exported.image_size
    length, tokenizer = min(12, exported.tokenizer.length), exported.tokenizer
    inputs: Mapping[str, Any] = {
        "pictures": rng.integers(0, 256, (batch, size, size, 3), np.uint8),
        "ids": rng.integers(0, tokenizer.vocabulary, (batch, length)).astype(np.int32),
        "mask": np.ones((batch, length), bool),
    }
    run: Callable[..., np.ndarray] = exported.programs[name]
    arrays: Sequence[np.ndarray] = [inputs[x["name"]] for x in exported.manifest["programs"][name]["inputs"]]
    return lambda: run(*arrays)
