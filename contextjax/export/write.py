"""Writes an export: a folder that is there whole or not at all."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from contextjax.export.card import make_card
from contextjax.export.exported import RUNTIMES, open_programs
from contextjax.export.folder import write_manifest
from contextjax.export.parity import certify
from contextjax.export.programs import Program, make_programs, portable, tree_of
from contextjax.files import check_absent, whole_folder
from contextjax.pretrained.write import save
from contextjax.retriever import identity_of
from contextjax.system import System
from contextjax.types import UserError


def write_export(system: System, target: Path, *, formats: Sequence[str], dtype: str = "float32",
                 config: Mapping[str, Any] | None = None, evaluation: Mapping[str, Any] | None = None,
                 ) -> dict[str, Any]:  # fmt: skip
    """Writes the parameters, the programs of each format, and what lies beside them; returns what export.json says.

    Args:
      system: the live one.
      target: the folder; its parent is made where it is missing.
      formats: of folder.FORMATS.
      dtype: of parameters and computation, "float32" or "bfloat16".
      config: the run's whole config; None for a CLIP or BLIP.
      evaluation: its evaluation.json, for the card.

    Raises:
      UserError: the target is there, a format does not fit the system, or a program differs from the live model.
        Nothing is left at the target then.
    """
    check_absent(target)
    _check(formats, dtype, config)
    with whole_folder(target) as folder:
        return _fill(folder, system, formats, dtype, config, evaluation)


def _check(formats: Sequence[str], dtype: str, config: Any) -> None:
    if "onnx" in formats and dtype != "float32":
        raise UserError(f"onnx is exported in float32, and dtype is '{dtype}'; leave onnx out, or export it by itself.")
    if "safetensors" in formats and config is None:
        raise UserError("A CLIP or BLIP is written as safetensors by experiments.convert; leave safetensors out.")
    for form, packages in {"stablehlo": ("flatbuffers",), "onnx": ("onnx", "onnxruntime")}.items():
        missing = [name for name in packages if not importlib.util.find_spec(name)]
        if form in formats and missing:
            raise UserError(f"{form} needs the package {missing[0]}; install it with pip install 'contextjax[export]'.")


def _fill(
    folder: Path, system: System, formats: Sequence[str], dtype: str, config: Any, evaluation: Any
) -> dict[str, Any]:
    config_hash, _, step = system.fingerprint.rpartition("-")
    run = {"config_hash": config_hash, "step": int(step)} if config else {"config_hash": "", "step": 0}
    model, tensors = portable(system, dtype)
    save(folder, tensors, dtype=dtype, metadata={"format": "contextjax"})
    system.tokenizer.save(folder / "tokenizer.json")
    if config:
        _json(folder / "config.json", {**config, "exported": run})
    runtimes = [name for name in RUNTIMES if name in formats]
    programs = make_programs(system, model) if runtimes else []
    described = _write_programs(folder, programs, runtimes)
    facts = {"class": type(model).__name__, **system.preprocessing}
    manifest = {
        "formats": list(formats),
        "class": type(model).__name__,
        "dtype": dtype,
        "run": run,
        "query": system.query,
        "score": system.score,
        "preprocessing": system.preprocessing,
        "tokenizer": {"length": system.tokenizer.length, "specials": list(system.tokenizer.specials)},
        "propositions": list(system.propositions),
        "limits": {name: limit for program in programs for name, limit in program.limits.items()},
        "programs": described,
        "fingerprint": identity_of(_written(folder), facts),
    }
    parity = None
    if runtimes:
        opened = {name: open_programs(folder, manifest, name) for name in runtimes}
        parity = certify(system, opened, dtype=dtype)
        _json(folder / "parity.json", parity)
    (folder / "README.md").write_text(make_card(manifest, config, evaluation, parity), encoding="utf-8")
    write_manifest(folder, manifest)
    return manifest


def _write_programs(folder: Path, programs: Sequence[Program], runtimes: Sequence[str]) -> dict[str, Any]:
    """Writes a file for each program and format; returns what export.json says of each program."""
    described, weights = {}, folder / "model.safetensors"
    tensors = _written(folder)
    for program in programs:
        call = lambda tensors, *inputs, program=program: program.call(tree_of(tensors), *inputs)
        inputs, files = program.trace_inputs(), {name: f"{program.name}.{name}" for name in runtimes}
        if "stablehlo" in files:
            from contextjax.export.stablehlo import to_stablehlo

            (folder / files["stablehlo"]).write_bytes(to_stablehlo(call, tensors, inputs))
        if "onnx" in files:
            _write_onnx(folder / files["onnx"], program, call, tensors, inputs, weights)
        described[program.name] = {
            "inputs": [{"name": x.name, "shape": list(x.axes), "dtype": x.dtype} for x in program.inputs],
            "output": {"shape": list(program.output), "dtype": "float32"},
            "files": files,
        }
    return described


def _write_onnx(path: Path, program: Program, call: Any, tensors: Any, inputs: Any, weights: Path) -> None:
    import onnx

    from contextjax.export.onnx_writer import to_onnx

    names = [x.name for x in program.inputs]
    output = "scores" if program.name == "score" else "embeddings"
    path.write_bytes(to_onnx(call, tensors, inputs, names, output, weights).SerializeToString())
    onnx.checker.check_model(str(path))


def _written(folder: Path) -> dict[str, Any]:
    """The parameters as the file has them."""
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def _json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
