"""Writes CLIP and BLIP as folders in Hugging Face's layout, and any model under our own parameter names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from contextjax.files import whole_file
from contextjax.models.blip import BLIPConfig
from contextjax.models.clip import CLIPConfig
from contextjax.pretrained import blip, clip
from contextjax.pretrained.names import flatten, own_table, write
from contextjax.spec import DTYPES, SystemSpec
from contextjax.types import UserError


def write_pretrained(folder: str | Path, config: CLIPConfig | BLIPConfig, params: Any, *, dtype: str = "float32",
                     title: str = "", origin: str = "") -> Path:  # fmt: skip
    """Writes model.safetensors, config.json, preprocessor_config.json and a model card, as transformers reads them.

    Args:
      folder: the folder to write, created where it is missing; nothing in it is overwritten.
      config: sizes of the model.
      params: parameters of the model, a tree of arrays.
      dtype: dtype of the written weights, "float32" or "bfloat16".
      title: heading of the model card.
      origin: a sentence for the card about where the weights come from.

    Raises:
      UserError: the folder holds a model already, or Hugging Face has no class for such a model.
    """
    is_clip = isinstance(config, CLIPConfig)
    family: Any = clip if is_clip else blip
    described = {**family.hf_config_json(config), "dtype": dtype}
    tensors = write(family.hf_table(config), flatten(params))
    folder = new_folder(folder)
    save(folder, tensors, dtype=dtype, metadata={"format": "pt"})
    _json(folder / "config.json", described)
    _json(folder / "preprocessor_config.json", _preprocessor(config))
    name = described["architectures"][0]
    _card(folder, title or name, origin, f"from transformers import {name}\nmodel = {name}.from_pretrained(FOLDER)")
    return folder


def write_own(folder: str | Path, spec: SystemSpec, params: Any, *, dtype: str = "float32",
              origin: str = "") -> Path:  # fmt: skip
    """Writes model.safetensors under our own parameter paths ("." between the names), system.json and a model card."""
    folder = new_folder(folder)
    flat = flatten(params)
    save(folder, write(own_table(flat), flat), dtype=dtype, metadata={"format": "contextjax"})
    spec.write(folder)
    _card(folder, spec.title, origin, "import contextjax\nsystem = contextjax.load(FOLDER)")
    return folder


def new_folder(folder: str | Path) -> Path:
    """Creates a folder to write a model to.

    Raises:
      UserError: the folder holds a model already.
    """
    path = Path(folder)
    if (path / "model.safetensors").exists():
        raise UserError(f"{path} holds a model already; give another --target, or remove it.")
    path.mkdir(parents=True, exist_ok=True)
    return path


def save(folder: Path, tensors: Mapping[str, np.ndarray], *, dtype: str, metadata: dict[str, str]) -> None:
    """Writes model.safetensors, whole or not at all.

    Raises:
      UserError: the dtype is unknown, or the disk is full.
    """
    import ml_dtypes
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    if dtype not in DTYPES:
        raise UserError(f"dtype is '{dtype}'; expected one of {', '.join(DTYPES)}.")
    kind = np.float32 if dtype == "float32" else ml_dtypes.bfloat16
    with whole_file(folder / "model.safetensors") as partial:
        try:
            save_file({name: x.astype(kind, copy=False) for name, x in tensors.items()}, partial, metadata=metadata)
        except SafetensorError as error:  # raised for a full disk too
            raise UserError(f"{folder} can't be written ({error}); make room for it and try again.") from error
        partial.chmod(0o644)  # save_file makes files that only their owner can read


def _preprocessor(config: CLIPConfig | BLIPConfig) -> dict[str, Any]:
    vision = config.vision
    square = {"height": vision.image_size, "width": vision.image_size}
    crop = {"crop_size": square, "do_center_crop": True, "size": {"shortest_edge": vision.image_size}}
    own = crop if vision.fit == "crop" else {"size": square}
    return {
        "image_processor_type": "CLIPImageProcessor" if vision.fit == "crop" else "BlipImageProcessor",
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": list(vision.mean),
        "image_std": list(vision.std),
        "resample": 3,
        "rescale_factor": 1 / 255,
        **own,
    }


def _json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _card(folder: Path, title: str, origin: str, usage: str) -> None:
    text = f"""---
library_name: {"transformers" if "transformers" in usage else "contextjax"}
pipeline_tag: feature-extraction
---
# {title}

Written by contextjax. {origin}

The weights are their authors'; their licence holds here too.

```python
{usage}
```
"""
    (folder / "README.md").write_text(text, encoding="utf-8")
