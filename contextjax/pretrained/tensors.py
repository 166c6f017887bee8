"""Reads the tensors of a checkpoint by name: safetensors only, one tensor at a time.

A file is opened for each tensor and closed again, so that what was read does not stay mapped in memory.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from contextjax.json_files import read_json
from contextjax.types import UserError

FILES = ("model.safetensors", "open_clip_model.safetensors")
INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pth", ".pt", ".ckpt")
PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
WRAPPERS = ("module.", "_orig_mod.", "model.", "state_dict.")  # of DataParallel, torch.compile and trainers
FLOATS = {"F64", "F32", "F16", "BF16"}


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor in a file, not read yet."""

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: str  # as safetensors names it

    @property
    def is_float(self) -> bool:
        """True for the floating-point types that weights may have."""
        return self.dtype in FLOATS

    def read(self) -> np.ndarray:
        """Returns the values: floats as float32, integers as they are.

        Raises:
          UserError: a value is not finite.
        """
        with _open(self.file) as file:
            value = file.get_tensor(self.name)
        if self.dtype not in FLOATS:
            return value
        value = value.astype(np.float32)  # a copy: the mapped file is closed when this function returns
        if not np.isfinite(value).all():
            raise UserError(
                f"{self.name} of {self.file} holds {np.count_nonzero(~np.isfinite(value))} values that are not "
                "finite; expected weights: this file is damaged or the model diverged."
            )
        return value


def weights_of(place: Path) -> list[Path]:
    """Returns the files that each name a whole set of weights: a safetensors file, those of a folder, or its index.

    Raises:
      UserError: there are no safetensors.
    """
    if place.is_file():
        return [place]
    if present := [place / name for name in (INDEX, *FILES) if (place / name).exists()]:
        return present
    pickles = sorted(path.name for path in place.iterdir() if path.suffix in PICKLES)
    hint = (
        f"it has the pickle {pickles[0]}: convert that with `experiments.convert --allow_pickle` if you trust it"
        if pickles
        else "check the path"
    )
    raise UserError(f"{place} holds no model.safetensors and no {INDEX}; {hint}.")


def tensors_of(weights: Path) -> dict[str, Tensor]:
    """Returns all tensors of a file of `weights_of` by name, without the prefix that a model wrapper put before each.

    Raises:
      UserError: a file is incomplete, or it is a pickle.
    """
    tensors = _of_index(weights) if weights.name == INDEX else _of_file(weights)
    while prefix := next((p for p in WRAPPERS if tensors and all(name.startswith(p) for name in tensors)), ""):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _of_index(index: Path) -> dict[str, Tensor]:
    contents = read_json(index, layout="a checkpoint")
    try:
        weight_map = contents["weight_map"]
        files = {str(name) for name in weight_map.values()}
    except (KeyError, AttributeError) as error:
        raise UserError(f"{index} is no index of safetensors ({error!r}); download it again.") from error
    outside = sorted(name for name in files if Path(name).name != name)
    if outside:
        raise UserError(f"{index} names the file {outside[0]}, which is not beside it; download it again.")
    tensors: dict[str, Tensor] = {}
    for name in sorted(files):
        if not (index.parent / name).exists():
            raise UserError(f"{index} names {name}, which is missing; download the rest of the checkpoint.")
        tensors |= _of_file(index.parent / name)
    if set(tensors) != set(weight_map):
        odd = sorted(set(tensors) ^ set(weight_map))
        raise UserError(
            f"{index} and its files disagree about {len(odd)} tensors ({', '.join(odd[:5])}); download it again."
        )
    return tensors


def _of_file(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as file:
        if file.read(4).startswith(PICKLE_STARTS):
            raise UserError(
                f"{path} is a pickle, not safetensors, and pickles can run code; nothing was read. "
                "If you trust it, convert it with `experiments.convert --allow_pickle`."
            )
    with _open(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        return {name: Tensor(path, name, tuple(s.get_shape()), str(s.get_dtype())) for name, s in slices.items()}


def _open(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(str(path), framework="numpy")
    except SafetensorError as error:
        raise UserError(f"{path} is not a whole safetensors file ({error}); download it again.") from error
