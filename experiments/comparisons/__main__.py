"""Speed beside PyTorch, FAISS, Pillow and other ways to do the same: results are compared first, then timed in turn.

python -m experiments.comparisons CASE [--pairs=5] [--threads=2] [--output=FILE.json] [the case's own flags]

clip: CLIP's image tower and training step, beside PyTorch.
concepts: what the consistency loss adds to a step of ConText-CIR, here and in PyTorch.
stage1: a stage-1 step of ContextBLIP, beside PyTorch.
cached: an epoch of ContextBLIP's stage 2b from cached features, beside one that encodes the pictures again.
exports: a run's ONNX form in float32, float16 and int8: size, latency on a CPU, recall.
input: files to batches, beside Pillow alone.
search: exact search, beside FAISS and the memory's bandwidth.
service: queries served over HTTP, beside the same work without the service.

`python -m experiments.comparisons CASE --help` lists a case's flags. All timings are of one run, in alternating rounds.
"""

import dataclasses
import importlib
import json
import sys
from pathlib import Path
from typing import Any

from absl import flags

from contextjax.files import write_whole
from experiments.shared import cli
from experiments.shared.paths import Place, define_path

CASES = ("clip", "concepts", "stage1", "cached", "exports", "input", "search", "service")
KEEPS_MEMORY = True
OUTPUT = define_path("output", Place.NEW_FILE, "A JSON file of every timing.")
DEFINE: dict[type, Any] = {
    bool: flags.DEFINE_bool, int: flags.DEFINE_integer, float: flags.DEFINE_float, tuple: flags.DEFINE_list
}  # fmt: skip


def main(case: Any, options: dict[str, Any]) -> None:
    """Runs the case, prints its tables and writes the JSON file."""
    from experiments.comparisons import harness

    values = {name: cli.required(flag) for name, flag in options.items()}
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    result = harness.run(case, case.Options(**values | lists))
    if OUTPUT.value:
        write_whole(Path(OUTPUT.value), json.dumps(result, indent=2) + "\n")


def define_options(case: Any) -> dict[str, Any]:
    """Defines a flag for each field of the case's `Options`; returns the flags by name."""
    defined = {}
    for field in dataclasses.fields(case.Options):
        metadata = dict(field.metadata)
        if field.name == "config":
            defined["config"] = cli.define_config()
        elif isinstance(field.default, str):
            define = flags.DEFINE_enum if "enum_values" in metadata else flags.DEFINE_string
            defined[field.name] = define(field.name, field.default, **metadata)
        else:
            default: Any = list(field.default) if isinstance(field.default, tuple) else field.default
            defined[field.name] = DEFINE[type(field.default)](field.name, default, **metadata)
    return defined


if __name__ == "__main__":
    name = sys.argv.pop(1) if len(sys.argv) > 1 and not sys.argv[1].startswith("-") else ""
    if name not in CASES and not any("help" in argument for argument in sys.argv):
        cli.fail(
            f"The case is '{name}'; expected one of {', '.join(CASES)}, as in python -m experiments.comparisons clip."
        )
    chosen: Any = importlib.import_module(f"experiments.comparisons.{name}") if name in CASES else None
    options = define_options(chosen) if chosen else {}
    __doc__ = chosen.__doc__ if chosen else __doc__  # for --help
    cli.run(lambda: main(chosen, options))
