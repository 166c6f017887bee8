"""Writes CLIP, SigLIP, BLIP and BLIP-2 as folders in Hugging Face's layout, and any model under our own names."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from contextjax.files import whole_file, whole_folder
from contextjax.models.blip import BLIPConfig
from contextjax.models.blip2 import BLIP2Config
from contextjax.models.clip import CLIPConfig
from contextjax.pretrained import blip, blip2, clip, preprocessing, siglip
from contextjax.pretrained.names import flatten, own_table, write
from contextjax.spec import DTYPES, SystemSpec
from contextjax.types import UserError

Finish = Callable[[Path], None]
FLOATS = (*DTYPES, "float16")


def nothing(folder: Path) -> None:
    """Adds no file to a folder."""


def write_pretrained(folder: str | Path, config: CLIPConfig | BLIPConfig | BLIP2Config, params: Any, *,
                     dtype: str = "float32", title: str = "", origin: str = "",
                     finish: Finish = nothing) -> Path:  # fmt: skip
    """Writes model.safetensors, config.json, preprocessor_config.json and a model card, as transformers reads them.

    Args:
      folder: the folder to write, whole or not at all; nothing is overwritten.
      config: sizes of the model.
      params: parameters of the model, a tree of arrays.
      dtype: dtype of the written weights, one of FLOATS.
      title: heading of the model card.
      origin: a sentence for the card about where the weights come from.
      finish: adds files, such as the tokenizer's, to the folder that it is given.

    Raises:
      UserError: the folder holds something already, or Hugging Face has no class for such a model.
    """
    family: Any
    if isinstance(config, CLIPConfig):
        family, processor = (siglip, "Siglip") if config.is_siglip else (clip, "CLIP")
    else:
        family, processor = blip2 if isinstance(config, BLIP2Config) else blip, "Blip"
    described = {**family.hf_config_json(config), "dtype": dtype}
    tensors = write(family.hf_table(config), flatten(params))
    name = described["architectures"][0]
    with whole_folder(Path(folder)) as partial:
        save(partial, tensors, dtype=dtype, metadata={"format": "pt"})
        _json(partial / "config.json", described)
        _json(partial / "preprocessor_config.json", preprocessing.write_hf(config.vision, processor))
        usage = f"from transformers import {name}\nmodel = {name}.from_pretrained(FOLDER)"
        _card(partial, title or name, origin, usage)
        finish(partial)
    return Path(folder)


def write_own(folder: str | Path, spec: SystemSpec, params: Any, *, dtype: str = "float32",
              origin: str = "", finish: Finish = nothing) -> Path:  # fmt: skip
    """Writes model.safetensors under our own parameter paths ("." between the names), system.json and a model card.

    The arguments are those of `write_pretrained`.
    """
    flat = flatten(params)
    with whole_folder(Path(folder)) as partial:
        save(partial, write(own_table(flat), flat), dtype=dtype, metadata={"format": "contextjax"})
        spec.write(partial)
        _card(partial, spec.title, origin, "import contextjax\nsystem = contextjax.load(FOLDER)")
        finish(partial)
    return Path(folder)


def save(folder: Path, tensors: Mapping[str, np.ndarray], *, dtype: str, metadata: dict[str, str]) -> None:
    """Writes model.safetensors, whole or not at all; integers stay what they are.

    Raises:
      UserError: the dtype is unknown, or the disk is full.
    """
    import ml_dtypes
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    if dtype not in FLOATS:
        raise UserError(f"dtype is '{dtype}'; expected one of {', '.join(FLOATS)}.")
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    cast = lambda x: x.astype(kind, copy=False) if np.issubdtype(x.dtype, np.floating) else x
    with whole_file(folder / "model.safetensors") as partial:
        try:
            save_file({name: cast(x) for name, x in tensors.items()}, partial, metadata=metadata)
        except SafetensorError as error:  # raised for a full disk too
            raise UserError(f"{folder} can't be written ({error}); make room for it and try again.") from error
        partial.chmod(0o644)  # save_file makes files that only their owner can read


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
