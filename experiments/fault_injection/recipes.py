"""Small recipes to drill, and their data."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TOWERS = {
    "model.projection": 16,
    "model.vision.image_size": 32,
    **{f"model.{tower}.{key}": size for tower in ("vision", "text") for key, size in (("width", 16), ("mlp", 16))},
    "model.vision.layers": 1,
    "model.text.layers": 1,
    "data.vocabulary": 300,
    "data.text_length": 32,
}
# The shipped recipes, as small as they go: both systems with all their losses, and one that starts fast.
SMALL: Mapping[str, tuple[str, str, Mapping[str, Any]]] = {
    "context_cir": (
        "configs.pictograms",
        "",
        {**TOWERS, "data.caption_length": 36, "data.modifications": 2, "data.phrases_per_text": 6.0,
         "model.fusion_layers": 1, "loss.lead_steps": 4},
    ),
    "context_blip": (
        "configs.pictogram_sets", "1", {**TOWERS, "model.vision.taps": (1,), "data.val_reader": "cirr_captions"},
    ),
    "fast": (
        "configs.pictograms", "sum",
        {**TOWERS, "data.modifications": 2, "loss.lead_steps": 0, "loss.weights.captions": 0.0,
         "optimizer.name": "adamw", "training.best.val/R@5": 1.0},  # so that a checkpoint has a score
    ),
}  # fmt: skip
RECIPE = """# A recipe that is drilled; `config` beside it is all of it.
import json
from pathlib import Path
from ml_collections import ConfigDict

def get_config(argument=""):
    return ConfigDict(json.loads(Path({config!r}).read_text(encoding="utf-8")))
"""


def small_config(system: str, data: Path) -> Any:
    """The shipped recipe of a system, small, on a folder that `write_data` wrote."""
    module, argument, changes = SMALL[system]
    config = importlib.import_module(module).get_config(*filter(None, [argument]))
    with config.unlocked():
        config.update_from_flattened_dict({**changes, "data.folder": str(data), "data.batch_size": 8})
        if config.data.val_folder:
            config.data.val_folder = str(data)
    return config


def write_data(folder: Path) -> Path:
    """A few pictograms in CIRR's layout: 48 samples, 96 triplets."""
    from data_pipelines.datasets.pictograms.cirr_layout import write_cirr

    return write_cirr(folder, train_groups=4, val_groups=2, test_groups=1, unseen_groups=1, canvas=32, processes=1)


def write_recipe(path: Path, config: Any, *, steps: int, every: int, changes: Mapping[str, Any]) -> Path:
    """A recipe file of a config, of so many steps, each logged, with a checkpoint `every` so many."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.training.update({"steps": steps, "log_every": 1, "checkpoint_every": every, "evaluate_every": steps})
        config.training.diagnose_every = 0
        config.update_from_flattened_dict(changes)
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_suffix(".json")
    whole.write_text(json.dumps(config.to_dict()), encoding="utf-8")
    path.write_text(RECIPE.format(config=str(whole)), encoding="utf-8")
    return path
