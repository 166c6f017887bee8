"""Runs the ONNX form of an export in onnxruntime; imports no JAX."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from contextjax.types import UserError


def open_onnx(folder: Path, programs: Mapping[str, Mapping[str, Any]]) -> dict[str, Callable[..., np.ndarray]]:
    """Returns the programs of an export by name, as functions of numpy arrays.

    Raises:
      UserError: onnxruntime is missing or does not read the programs.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(
            f"{folder} runs in onnxruntime, which is not installed; pip install 'contextjax[export]'."
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3

    def opened(name: str) -> Callable[..., np.ndarray]:
        path = folder / programs[name]["files"]["onnx"]
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=onnxruntime.get_available_providers())
        except Exception as error:
            reason = str(error).partition("\n")[0]
            raise UserError(
                f"{path} can't be read by onnxruntime {onnxruntime.__version__} ({reason}); export again."
            ) from error
        names = [x["name"] for x in programs[name]["inputs"]]
        return lambda *inputs: np.asarray(session.run(None, dict(zip(names, map(np.asarray, inputs), strict=True)))[0])

    return {name: opened(name) for name in programs}
