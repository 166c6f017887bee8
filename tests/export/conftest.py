"""Tiny systems of both kinds with random parameters, and their exports in all formats."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import contextjax
from configs.base import base
from contextjax.export import parity
from contextjax.export.write import write_export
from contextjax.pretrained import write_own
from contextjax.tokenizers import train_tokenizer
from contextjax.variants import make_model
from experiments.shared import models
from experiments.shared.run_config import config_hash
from tests.pretrained.conftest import random_params
from tests.shape_checks import no_shape_checks

TEXTS = ["remove the dog", "swap the dog and the small cat; a bus is left of it", "make it large"]
FORMATS = ("safetensors", "stablehlo", "onnx")
SIZES = {
    "vision": {"image_size": 16, "patch_size": 8, "width": 16, "layers": 2, "stem": (4, 8), "heads": 2, "mlp": 24},
    "text": {"width": 8, "layers": 1, "positions": 32, "heads": 2, "mlp": 12},
    "projection": 8,
}
OWN = {
    "context_cir": {"variant": "S16", "fusion_heads": 4, "fusion_layers": 1, "fusion_self_attention": True},
    "composed_blip": {"variant": "BLIP-S16"},
    "context_blip": {
        "variant": "BLIP-S16", "selection": "both", "masking": "none", "propositions": True, "pooling_heads": 2,
        "context_layers": 1, "context_heads": 2, "context_positions": 5, "fused_token": None,
    },
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def symbolic_sizes():
    """jaxtyping takes no symbolic sizes; with numbers, the other tests check the same functions."""
    with no_shape_checks():
        yield


@dataclasses.dataclass(frozen=True)
class Case:
    """A live system, its config, and an export of it."""

    system: Any
    config: str
    export: Path


def write_run(folder: Path, system: Any, config: str) -> None:
    """Writes a folder that loads as the system, as `convert` writes a run's."""
    write_own(folder, system.spec, system.params)
    system.tokenizer.save(folder / "tokenizer.json")
    (folder / "config.json").write_text(config)


def make_system(kind: str, **model: Any) -> tuple[Any, str]:
    """Returns a system and the text of the config.json of its run."""
    config = base(kind)
    config.model.update({**SIZES, **OWN[kind], **model})
    if kind == "context_blip":
        config.model.vision["taps"] = (1, 2)
        config.data.update({"propositions": 3, "proposition_length": 12, "text_length": 24})
    config.data.vocabulary = 280
    tokenizer = train_tokenizer(TEXTS, vocabulary=280, length=24)
    spec = models.make_spec(config, vocabulary=tokenizer.vocabulary)
    module = make_model(spec)
    params = jax.tree.map(lambda x: np.float32(0.3) * x, random_params(module))
    config.model = models.resolve_model(config)
    fingerprint = f"{config_hash(config)}-7"  # trained to step 7
    system = contextjax.System(module, params, tokenizer, propositions=spec.propositions, fingerprint=fingerprint,
                               template=spec.template)  # fmt: skip
    return system, config.to_json()


@pytest.fixture(scope="session", params=["context_cir", pytest.param("context_blip", marks=pytest.mark.long)])
def case(request, made_once) -> Case:
    """Read only."""
    system, config = make_system(request.param)
    options = {"formats": FORMATS, "config": config, "recipe": {"Started from": "random weights"}}
    with no_shape_checks():
        target = made_once(f"export_{request.param}", lambda folder: write_export(system, folder, **options))
    return Case(system, config, target)


@pytest.fixture
def short_certificate(monkeypatch):
    """Certifies with 9 inputs, 3 at a time: `case` has the full certificate, and each size compiles every program."""
    monkeypatch.setattr(parity, "BATCHES", (3,))
    monkeypatch.setattr(parity, "INPUTS", 9)


@pytest.fixture(scope="session")
def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((16, 16), (20, 31), (40, 17))]
