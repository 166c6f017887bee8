"""Tiny CLIP, SigLIP, BLIP and BLIP-2 folders in Hugging Face's layout, by our own writer, which tests/parity checks."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from contextjax.models.blip import BLIP, BLIPConfig
from contextjax.models.blip2 import BLIP2, BLIP2Config
from contextjax.models.clip import CLIP, CLIPConfig
from contextjax.models.multimodal import BertConfig
from contextjax.models.qformer import QFormerConfig
from contextjax.models.text import TextConfig
from contextjax.models.vision import VisionConfig
from contextjax.pretrained import abstract_params, write_pretrained
from contextjax.pretrained.names import flatten

VISION = VisionConfig(16, 8, width=16, layers=3, heads=4, mlp=24, activation="gelu", pre_norm=False, patch_bias=True,
                      fit="squash")  # fmt: skip
QFORMER = QFormerConfig(32, 12, width=24, layers=3, heads=4, mlp=20, query_tokens=3)
BLIP2_CONFIG = BLIP2Config(VISION, QFORMER, 8)
SIGLIP_CONFIG = CLIPConfig(
    dataclasses.replace(VISION, pooling="attention", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    TextConfig(32, 12, width=8, layers=2, heads=2, mlp=20, activation="gelu", pad_token=2),
    16,
)
BLIP_CONFIG = BLIPConfig(VISION, BertConfig(32, 12, width=24, layers=2, heads=4, mlp=20), 8)


def random_params(model: Any, *, seed: int = 0) -> Any:
    """Random numpy parameters of a module."""
    rng = np.random.default_rng(seed)
    shapes = nn.unbox(abstract_params(model))
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)


def read(unread: Any) -> Any:
    """Reads all parameters."""
    return jax.tree.map(lambda leaf: leaf.read(), unread)


def equal(tree: Any, other: Any) -> None:
    """Checks that two trees of arrays are the same bit by bit."""
    flat, others = flatten(tree), flatten(other)
    assert flat.keys() == others.keys()
    for path, value in flat.items():
        np.testing.assert_array_equal(value, others[path], err_msg=path)


def change(folder: Path, function: Any) -> None:
    """Rewrites the weights of a folder with what `function` returns for the tensors."""
    file = folder / "model.safetensors"
    save_file(function(load_file(file)), file)


@pytest.fixture(scope="session")
def models(tiny) -> dict[str, Any]:
    """name -> module: "clip" with two text layers, "siglip", "blip", "blip2"."""
    text = dataclasses.replace(tiny.clip.text, layers=2, eos_token=31)
    clip = CLIP(dataclasses.replace(tiny.clip, text=text))
    return {"clip": clip, "siglip": CLIP(SIGLIP_CONFIG), "blip": BLIP(BLIP_CONFIG), "blip2": BLIP2(BLIP2_CONFIG)}


@pytest.fixture(scope="session")
def folders(models, tmp_path_factory) -> dict[str, Path]:
    """name -> folder in Hugging Face's layout. Read only."""
    root = tmp_path_factory.mktemp("pretrained")
    return {name: write_pretrained(root / name, m.config, random_params(m)) for name, m in models.items()}


@pytest.fixture(params=["clip", "siglip", "blip", "blip2"])
def name(request) -> str:
    return request.param


@pytest.fixture
def folder(folders, name, tmp_path) -> Path:
    """A copy that a test may change."""
    import shutil

    return Path(shutil.copytree(folders[name], tmp_path / name))
