"""Writes and reads StableHLO by jax.export: one file a program, for cpu, cuda and tpu.

Running it imports JAX and no Flax.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export

from contextjax.types import UserError

PLATFORMS = ("cpu", "cuda", "tpu")


def to_stablehlo(call: Callable[..., Any], tensors: Mapping[str, Any], inputs: Sequence[Any]) -> bytes:
    """Returns a function of (named tensors, *inputs) as one serialised program; the tensors are inputs of it, too."""
    shapes = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in tensors.items()}
    return bytes(export.export(jax.jit(call), platforms=PLATFORMS)(shapes, *inputs).serialize())


def open_stablehlo(folder: Path, programs: Mapping[str, Mapping[str, Any]]) -> dict[str, Callable[..., np.ndarray]]:
    """Returns the programs of an export by name, as functions of numpy arrays.

    The parameters are on the device once, for all of them.

    Raises:
      UserError: flatbuffers is missing, or this JAX does not read the programs.
    """
    from safetensors import safe_open

    with safe_open(str(folder / "model.safetensors"), framework="numpy") as file:
        tensors = {name: jax.device_put(file.get_tensor(name)) for name in sorted(file.keys())}

    def opened(name: str) -> Callable[..., np.ndarray]:
        path = folder / programs[name]["files"]["stablehlo"]
        try:
            call = jax.jit(export.deserialize(bytearray(path.read_bytes())).call)
        except ImportError as error:
            raise UserError(
                f"{folder} needs a package that is not installed ({error}); pip install 'contextjax[export]'."
            ) from error
        except Exception as error:  # flatbuffers and StableHLO raise what they like
            reason = str(error).partition("\n")[0]
            raise UserError(
                f"{path} can't be read by JAX {jax.__version__} ({reason}); use the JAX that parity.json names or a "
                "newer one, or export again."
            ) from error
        return lambda *inputs: np.asarray(call(tensors, *inputs))

    return {name: opened(name) for name in programs}
