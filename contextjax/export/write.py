"""Writes an export: a folder that exists as a whole or not at all."""

from __future__ import annotations

import dataclasses
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
from contextjax.export.quantized import quantize
from contextjax.files import check_absent, whole_folder
from contextjax.pretrained.write import save
from contextjax.retriever import identity_of
from contextjax.spec import SystemSpec
from contextjax.system import System
from contextjax.types import UserError


def write_export(system: System, target: Path, *, formats: Sequence[str], dtype: str = "float32",
                 config: str = "", recipe: Mapping[str, str] | None = None,
                 evaluation: Mapping[str, Any] | None = None) -> dict[str, Any]:  # fmt: skip
    """Writes the parameters, the programs of each format, and what lies beside them.

    Args:
      system: the live one.
      target: the folder; its parent is made where it is missing.
      formats: some of folder.FORMATS.
      dtype: the type of parameters and computation, one of programs.DTYPES. int8 is that of ONNX's products; all else
        is float32 then.
      config: the text of the run's config.json, which is copied; "" where there is none.
      recipe: how the run was trained, for the model card, see `make_card`; None where that is not known.
      evaluation: the run's evaluation.json, for the model card.

    Returns:
      The contents of export.json, but for the files.

    Raises:
      UserError: the target exists, a format does not fit the system, or a program differs from the live model.
        Nothing is left at the target then.
    """
    check_absent(target)
    spec = _exported_spec(system)
    _check(formats, dtype, spec)
    with whole_folder(target) as folder:
        card = {"recipe": recipe, "evaluation": evaluation}
        return _fill(folder, system, spec, formats=formats, dtype=dtype, config=config, card=card)


def _exported_spec(system: System) -> SystemSpec:
    """Returns the spec of a system; where a published CLIP or BLIP was read from ("FOLDER@224-0") is left out."""
    return dataclasses.replace(system.spec, fingerprint="") if "@" in system.spec.fingerprint else system.spec


def _check(formats: Sequence[str], dtype: str, spec: SystemSpec) -> None:
    if "onnx" in formats and dtype == "bfloat16":
        raise UserError(
            "onnx is exported in float32, float16 or int8, and dtype is 'bfloat16'; leave onnx out, or export it by "
            "itself."
        )
    if dtype == "int8" and list(formats) != ["onnx"]:
        raise UserError(
            f"int8 is a type of onnx alone, and --format is '{','.join(formats)}'; export it by itself, "
            "as --format=onnx."
        )
    if "safetensors" in formats and spec.is_plain:
        raise UserError("A CLIP or BLIP is written as safetensors by experiments.convert; leave safetensors out.")
    for form, packages in {"stablehlo": ("flatbuffers",), "onnx": ("onnx", "onnxruntime")}.items():
        missing = [name for name in packages if not importlib.util.find_spec(name)]
        if form in formats and missing:
            raise UserError(f"{form} needs the package {missing[0]}; install it with pip install 'contextjax[export]'.")


def _fill(folder: Path, system: System, spec: SystemSpec, *, formats: Sequence[str], dtype: str, config: str,
          card: Mapping[str, Any]) -> dict[str, Any]:  # fmt: skip
    """Writes every file of an export; export.json is the last one."""
    model, tensors = portable(system, dtype)
    stored = quantize(tensors) if dtype == "int8" else tensors
    save(folder, stored, dtype="float32" if dtype == "int8" else dtype, metadata={"format": "contextjax"})
    system.tokenizer.save(folder / "tokenizer.json")
    spec.write(folder)
    if config:
        (folder / "config.json").write_text(config, encoding="utf-8")
    runtimes = [name for name in RUNTIMES if name in formats]
    programs = make_programs(system, model) if runtimes else []
    described = _write_programs(folder, programs, runtimes)
    manifest = {
        "formats": list(formats),
        "dtype": dtype,
        "tokenizer": {"specials": list(system.tokenizer.specials)},
        "limits": {name: limit for program in programs for name, limit in program.limits.items()},
        "programs": described,
        "fingerprint": identity_of(_written(folder), spec),
    }
    parity = None
    if runtimes:
        opened = {name: open_programs(folder, manifest, name) for name in runtimes}
        parity = certify(system, opened, dtype=dtype)
        _json(folder / "parity.json", parity)
    (folder / "README.md").write_text(make_card(manifest, spec, parity=parity, **card), encoding="utf-8")
    write_manifest(folder, manifest)
    return manifest


def _write_programs(folder: Path, programs: Sequence[Program], runtimes: Sequence[str]) -> dict[str, Any]:
    """Writes a file for each program and format; returns the section `programs` of export.json."""
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
    """Reads the parameters back from the written file."""
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def _json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
