"""Converts a pickled PyTorch checkpoint to safetensors: only on request, and in a process of its own.

    python -m contextjax.pretrained.unpickle SOURCE.pth TARGET.safetensors

A pickle can run code when it is loaded. PyTorch's weights-only reader refuses everything but tensors; older versions
of it could be deceived (CVE-2025-32434), so torch >= 2.10 is required.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from contextjax.files import whole_file
from contextjax.types import UserError

OLDEST = (2, 10)
NESTS = (
    "model",
    "state_dict",
    "model_state_dict",
    "module",
    "CLIP",
    "Combiner",
)  # entries in which trainers keep the tensors


def unpickle(source: Path, target: Path) -> None:
    """Writes the tensors of a pickle (of an entry of NESTS, where it has one) as safetensors.

    Raises:
      UserError: PyTorch is missing or too old, or the pickle holds more than tensors.
    """
    command = [sys.executable, "-m", __name__, str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"{source} could not be converted: {reason}")


def _main(source: str, target: str) -> None:
    try:
        import torch
    except ImportError:
        sys.exit("PyTorch is not installed; pip install 'contextjax[torch]'.")
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < OLDEST:
        sys.exit(f"PyTorch is {torch.__version__}; expected {OLDEST[0]}.{OLDEST[1]} or newer.")
    from safetensors.numpy import save_file

    try:
        loaded = torch.load(source, map_location="cpu", weights_only=True, mmap=False)
    except Exception as error:  # a damaged file can raise anything
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        sys.exit(f"it is no pickle of tensors alone ({first}).")
    while isinstance(loaded, dict) and (inner := [loaded[k] for k in NESTS if isinstance(loaded.get(k), dict)]):
        loaded = inner[0]
    if not isinstance(loaded, dict):
        sys.exit(f"it holds a {type(loaded).__name__}; expected tensors by their names, a state_dict.")
    tensors = {name: value for name, value in loaded.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        sys.exit(f"it holds no tensors, but {', '.join(str(name) for name in loaded)[:200] or 'nothing'}.")
    floats = {name: (x.float() if x.is_floating_point() else x).contiguous().numpy() for name, x in tensors.items()}
    with whole_file(Path(target)) as partial:
        save_file(floats, partial)


if __name__ == "__main__":
    _main(*sys.argv[1:])
