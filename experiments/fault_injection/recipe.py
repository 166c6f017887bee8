"""Small recipes of both systems on a few pictograms: --config=experiments/fault_injection/recipe.py:NAME.

NAME is context_cir, context_blip (each with all its losses), or interrupted, which starts fast and keeps its best.
--config.data.folder names a folder that `write_data` wrote.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from configs import pictogram_sets, pictograms

SYSTEMS = ("context_cir", "context_blip")


def get_config(name: str) -> Any:
    """Returns the shipped recipe of a system with its argument `tiny`, on pictures of 32 pixels."""
    if name == "context_blip":
        config = pictogram_sets.get_config("1,tiny")
        config.data.val_reader, config.data.val_folder = "cirr_captions", ""
    else:
        config = pictograms.get_config("tiny" if name == "context_cir" else "sum,tiny")
        config.data.modifications = 2
    config.model.vision.image_size = 32
    if name == "interrupted":
        config.loss.weights.captions, config.loss.lead_steps = 0.0, 0
        config.optimizer.name = "adamw"
        config.training.best["val/R@5"] = 1.0
    return config


def flags_of(name: str, data: Path) -> list[str]:
    """Returns the flags of a recipe on a data folder."""
    return [f"--config={__file__}:{name}", f"--config.data.folder={data}"]


def write_data(folder: Path) -> Path:
    """Writes a few pictograms in CIRR's layout: 48 samples, 96 triplets."""
    from data_pipelines.datasets.pictograms.cirr_layout import write_cirr

    return write_cirr(folder, train_groups=4, val_groups=2, test_groups=1, unseen_groups=1, canvas=32, processes=1)
