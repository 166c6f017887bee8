"""Zero-shot classification and the linear probe of a system on a folder of classes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import contextjax
from contextjax.evaluation.classification import class_embeddings, classification_metrics, fit_probe
from contextjax.files import write_whole
from contextjax.types import UserError
from data_pipelines.classes import class_names, find_splits, read_classes

CHUNK = 1024  # pictures whose files are decoded at a time


def classify(
    source: str, folder: Path, *, split: str, templates: Sequence[str], names: Path | None = None, probe: bool = False,
    result: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Classifies the pictures of a split, prints the accuracies and returns them.

    Args:
      source: what `contextjax.load` takes.
      folder: the folder of classes.
      split: which of its splits; "": test, else val, else the folder, where it has none.
      templates: texts around the names of the classes.
      names: a file {folder: words}; None: the folders' names.
      probe: whether a linear probe is trained on the split train, too.
      result: a JSON file for the result; None: none is written.

    Raises:
      UserError: the folder is not in its layout, or train does not have the same classes.
    """
    splits = find_splits(folder)
    split = split or next((name for name in ("test", "val") if name in splits), "")
    pictures = read_classes(folder, split)
    words = class_names(pictures.classes, names)
    if probe and ("train" not in splits or split == "train"):
        raise UserError(f"--probe trains on {folder / 'train'} and tests on another split; give a folder with both.")
    training = read_classes(folder, "train") if probe else None
    if training and training.classes != pictures.classes:
        odd = sorted({*training.classes} ^ {*pictures.classes})
        raise UserError(f"{folder}: train and {split} do not have the same classes ({odd[0]} is in one of them alone).")
    system = contextjax.load(source)
    embeddings = _embed(system, pictures.files)
    scores = embeddings @ class_embeddings(system, words, templates).T
    values = {"zero_shot": classification_metrics(scores, pictures.labels)}
    summary: dict[str, Any] = {"source": str(source), "data": folder.resolve().name, "split": split}
    summary |= {"n_pictures": len(pictures.files), "n_classes": len(words), "templates": list(templates)}
    if training:
        fitted = fit_probe(_embed(system, training.files), training.labels, classes=len(words))
        values["linear_probe"] = classification_metrics(fitted.scores(embeddings), pictures.labels)
        summary |= {"n_training": len(training.files), "probe_strength": fitted.strength}
    print(f"{folder}{f', {split}' if split else ''}: {len(pictures.files)} pictures of {len(words)} classes")
    for name, of in values.items():
        shown = ", ".join(f"{key} {value:.1f}" for key, value in of.items() if key not in ("low95", "high95"))
        print(f"{name:<14}{shown} (top1, 95 %: {of['low95']:.1f} to {of['high95']:.1f})")
    if result:
        write_whole(result, json.dumps(summary | values, indent=2) + "\n")
    return summary | values


def _embed(system: Any, files: Sequence[Path]) -> np.ndarray:
    """Returns the embeddings [N, D] of picture files."""
    parts = [system.encode_gallery(files[begin : begin + CHUNK]) for begin in range(0, len(files), CHUNK)]
    return np.concatenate(parts)
