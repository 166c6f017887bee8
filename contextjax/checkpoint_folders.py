"""What a folder of checkpoints holds beside whole ones: what a kill has left, what is damaged; and their scores."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from contextjax import checksums
from contextjax.files import is_remote

UNFINISHED = ".orbax-checkpoint-tmp"  # in the name of a checkpoint's folder until it is whole
SCORED = ("meta/metadata", "metrics/metrics")  # Orbax's names of what has a score; the second: until 26 November 2026


def score_of(checkpoint: Path) -> float | None:
    """Its score; None: it has none, or the file that has it is not what was written, or not yet known to be."""
    for name in SCORED:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return float(json.loads(checksums.read(checkpoint, name))["score"])
    return None


def clear_unfinished(folder: Path) -> None:
    """Clears away the checkpoint that a kill has left without its checksums: the newest, for they are made in turn.

    Where it is the only one it is moved, not removed: it may be of a version that wrote no checksums.
    """
    steps = {int(path.name): path for path in folder.iterdir() if path.name.isdigit()} if folder.exists() else {}
    whole = [step for step, path in steps.items() if (path / checksums.NAME).exists()]
    for step in steps.keys() - whole:
        if whole and step > max(whole):
            print(f"The checkpoint of step {step} was not finished ({checksums.MISSING}): it is removed.",
                  file=sys.stderr, flush=True)  # fmt: skip
            remove(steps[step])
        elif len(steps) == 1:
            print(f"The checkpoint of step {step} is not whole: {checksums.MISSING}.", file=sys.stderr, flush=True)
            move_aside(steps[step])


def move_aside(checkpoint: Path) -> None:
    """Moves a damaged checkpoint into FOLDER.damaged, beside the folder it is in."""
    step, place = checkpoint.name, checkpoint.parent.with_name(f"{checkpoint.parent.name}.damaged")
    number = len({path.relative_to(place).parts[0] for path in place.glob(f"{step}-*")}) if place.exists() else 0
    target = place / f"{step}-{number}"
    if not is_remote(checkpoint):
        place.mkdir(exist_ok=True)
        checkpoint.rename(target)
        return
    for name in checksums.files_under(checkpoint):  # a store renames files alone
        (target / name).write_bytes((checkpoint / name).read_bytes())
    remove(checkpoint)


def remove(folder: Any) -> None:
    """What is there of a folder; what can't be removed stays."""
    if not is_remote(folder):
        shutil.rmtree(folder, ignore_errors=True)
    elif folder.exists():
        folder.rmtree()
