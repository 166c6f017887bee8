"""Tiny systems of both kinds with random parameters, and their exports in all formats."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jaxtyping
import numpy as np
import pytest

import contextjax
from configs.base import base
from contextjax.export.write import write_export
from contextjax.loading import read_propositions
from contextjax.tokenizers import train_tokenizer
from contextjax.variants import make_model, resolve
from tests.pretrained.conftest import random_params

TEXTS = ["remove the dog", "swap the dog and the small cat; a bus is left of it", "make it large"]
FORMATS = ("safetensors", "stablehlo", "onnx")
SIZES = {
    "vision": {"image_size": 16, "patch_size": 8, "width": 16, "layers": 2, "stem": (4, 8), "heads": 2, "mlp": 24},
    "text": {"width": 8, "layers": 1, "positions": 32, "heads": 2, "mlp": 12},
    "projection": 8,
}
OWN = {
    "context_cir": {"variant": "S16", "fusion_heads": 4, "fusion_layers": 1, "fusion_self_attention": True},
    "context_blip": {
        "variant": "BLIP-S16", "selection": "both", "masking": "none", "propositions": True, "pooling_heads": 2,
        "context_layers": 1, "context_heads": 2, "context_positions": 5, "fused_token": None,
    },
}  # fmt: skip


@pytest.fixture(scope="package", autouse=True)
def no_shape_checks():
    """jaxtyping takes no symbolic sizes; with numbers, the other tests check the same functions."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@dataclasses.dataclass(frozen=True)
class Case:
    """A live system, its config, and an export of it."""

    system: Any
    config: dict[str, Any]
    export: Path


def make_system(kind: str, **model: Any) -> tuple[Any, dict[str, Any]]:
    """A system and the config that describes it."""
    config = base(kind)
    config.model.update({**SIZES, **OWN[kind], **model})
    if kind == "context_blip":
        config.model.vision["taps"] = (1, 2)
        config.data.update({"propositions": 3, "proposition_length": 12, "text_length": 24})
    config.data.vocabulary = 280
    tokenizer = train_tokenizer(TEXTS, vocabulary=280, length=24)
    module = make_model(config.model, vocabulary=tokenizer.vocabulary)
    params = jax.tree.map(lambda x: np.float32(0.3) * x, random_params(module))
    described = json.loads(config.to_json()) | {"model": json.loads(json.dumps(resolve(config.model)))}
    propositions = read_propositions(config)
    return contextjax.System(module, params, tokenizer, propositions=propositions, fingerprint="abc-7"), described


@pytest.fixture(scope="package", params=["context_cir", "context_blip"])
def case(request, tmp_path_factory, no_shape_checks) -> Case:
    """Read only."""
    system, config = make_system(request.param)
    target = tmp_path_factory.mktemp("exports") / request.param
    write_export(system, target, formats=FORMATS, config=config)
    return Case(system, config, target)


@pytest.fixture(scope="session")
def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((16, 16), (20, 31), (40, 17))]
