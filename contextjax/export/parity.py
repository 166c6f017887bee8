"""Certifies an export: measures how far it is from the live model, on inputs that neither has seen."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from contextjax.export.programs import Program, make_programs
from contextjax.system import System
from contextjax.threads import available_cpus
from contextjax.tokenizers import split_propositions, tokenize_propositions
from contextjax.types import UserError

BATCHES, INPUTS = (1, 3, 17), 64  # at least so many inputs at each batch
TOLERANCES: Mapping[str, float] = {"float32": 1e-5, "float16": 1e-2, "bfloat16": 5e-2, "int8": 1e-1}
DIFFERENCE = "largest |export - live| / max(1, |live|) over all inputs; the live model computes in {}"
TRAINED = "as trained"  # the live model in the type that it was trained in, where it is compared in another


def certify(system: System, opened: Mapping[str, Mapping[str, Callable[..., np.ndarray]]], *, dtype: str,
            seed: int = 0) -> dict[str, Any]:  # fmt: skip
    """Returns the certificate: the largest difference by format, program and batch, and how it was measured.

    A bfloat16 export is compared with the live model as it was trained, any other with the live model in float32. If
    the model was trained in another type, the certificate also records its distance from itself in that type, without
    a tolerance.

    Args:
      system: the live one.
      opened: format -> program -> function, read from the written files.
      dtype: of the export.
      seed: of the inputs.

    Raises:
      UserError: a difference is above the tolerance, or not a number.
    """
    trained = np.dtype(system.model.dtype or np.float32).name
    computes = trained if dtype == "bfloat16" else "float32"
    live = _runs(system, system.model.clone(dtype=None) if computes != trained else system.model)
    if computes != trained:
        opened = {**opened, TRAINED: _runs(system, system.model)}
    inputs, differences = _fresh(system, seed), {form: {name: {} for name in live} for form in opened}
    for program in make_programs(system, system.model):
        largest = program.limits.get("candidates", BATCHES[-1]) if program.name == "score" else BATCHES[-1]
        for place, batch in enumerate(sorted({min(batch, largest) for batch in BATCHES})):
            worst = dict.fromkeys(opened, 0.0)
            for arrays in _cut(program, inputs, batch, place):
                expected = live[program.name](*arrays)
                for form, programs in opened.items():
                    got = programs[program.name](*arrays)
                    if got.shape != expected.shape or got.dtype != expected.dtype:
                        raise UserError(
                            f"{form}, {program.name} gives {got.dtype} {list(got.shape)}, and the live model "
                            f"{expected.dtype} {list(expected.shape)}; nothing was written."
                        )
                    difference = np.abs(got - expected) / np.maximum(1, np.abs(expected))
                    worst[form] = float(np.maximum(worst[form], difference.max()))  # a NaN stays one
            for form, value in worst.items():
                differences[form][program.name][str(batch)] = value
                if form != TRAINED and not value <= TOLERANCES[dtype]:
                    raise UserError(
                        f"{form}, {program.name} differs from the live model by {value:.1e} at batch {batch}; at most "
                        f"{TOLERANCES[dtype]:g} is allowed in {dtype}, so nothing was written: leave {form} out."
                    )
    return {
        "difference": DIFFERENCE.format(computes),
        "tolerance": TOLERANCES[dtype],
        "dtype": dtype,
        "trained": {"dtype": trained, "largest_difference": differences.pop(TRAINED, {})},
        "inputs": f"at least {INPUTS} a batch, seed {seed}: noise, blocks of colour, flat pictures; random texts",
        "largest_difference": differences,
        "versions": _versions(),
        "hardware": _hardware(),
    }


def _runs(system: System, model: Any) -> dict[str, Callable[..., np.ndarray]]:
    """Returns the programs of a live model by name, as functions of numpy arrays."""

    def compiled(call: Callable[..., Any]) -> Callable[..., np.ndarray]:
        run = jax.jit(call)
        return lambda *inputs: np.asarray(run(system.params, *inputs))

    return {program.name: compiled(program.call) for program in make_programs(system, model)}


def _fresh(system: System, seed: int) -> dict[str, np.ndarray]:
    """Returns random pictures, and texts as the tokenizer encodes them; as many as the largest batch needs."""
    rng, size, count = np.random.default_rng(seed), system.image_size, -(-INPUTS // BATCHES[-1]) * BATCHES[-1]
    noise = rng.integers(0, 256, (count, size, size, 3), np.uint8)
    coarse = rng.integers(0, 256, (count, 4, 4, 3), np.uint8)
    places = np.arange(size) * 4 // size
    smooth, flat = coarse[:, places][:, :, places], np.broadcast_to(coarse[:, :1, :1], noise.shape)
    kind = np.arange(count) % 3
    pictures = np.where(
        (kind == 0)[:, None, None, None], noise, np.where((kind == 1)[:, None, None, None], smooth, flat)
    )
    letters = np.array(list("aaaeeeiioobcdfglmnprsttu"))
    word = lambda: "".join(rng.choice(letters, rng.integers(1, 8)))
    sentence = lambda: " ".join(word() for _ in range(rng.integers(1, 7)))
    texts = ["; ".join(sentence() for _ in range(rng.integers(1, 4))) for _ in range(count)]
    ids, mask = system.tokenizer(texts).tokens
    inputs = {"pictures": pictures, "ids": ids, "mask": mask, "ordered": rng.random(count) < 0.5}
    limit, length = system.propositions
    if limit:
        assert any(len(split_propositions(text, limit)) > 1 for text in texts)
        short, _ = tokenize_propositions(system.tokenizer, texts, limit=limit, length=length)
        inputs |= {"proposition_ids": short.ids, "proposition_mask": short.mask}
    return inputs


def _cut(program: Program, inputs: Mapping[str, np.ndarray], batch: int, place: int) -> list[list[np.ndarray]]:
    """Returns the program's arguments, `batch` pictures at a time; `place` numbers the lengths of texts."""
    longest = int(inputs["mask"].sum(-1).max())
    length = min(longest + 5 * place, inputs["ids"].shape[1])
    arrays = {name: x[:, :length] if name in ("ids", "mask") else x for name, x in inputs.items()}
    arguments = []
    for number in range(-(-INPUTS // batch)):
        rows = slice(number * batch, (number + 1) * batch)
        one = program.name == "score"  # one text a set
        arguments.append([arrays[x.name][rows if x.name == "pictures" or not one else number] for x in program.inputs])
    return arguments


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in ("contextjax", "jax", "jaxlib", "flax", "numpy", "onnx", "onnxruntime", "tokenizers", "pillow"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def _hardware() -> str:
    """Returns the names of the device and the processor."""
    device, info, name = jax.devices()[0], Path("/proc/cpuinfo"), platform.processor()
    if info.is_file():
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return f"{device.platform} ({device.device_kind}); {name or platform.machine()}, {available_cpus()} cores"
