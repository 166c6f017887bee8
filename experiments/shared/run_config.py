"""The config of a run: its file in the workdir, and what must stay the same from one start to the next."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from contextjax.files import write_whole
from contextjax.json_files import read_json
from contextjax.sharding import is_first_process
from contextjax.types import UserError

# Files that the first start of a run makes of its config and its data, and what else it may leave.
OF_CONFIG = ("config.json", "system.json", "tokenizer.json", "features.safetensors")
OF_START = {*OF_CONFIG, ".lock", "metrics.jsonl", "goodput.jsonl", "tensorboard", "checkpoints", "profile"}
# Keys that say where a run is computed, not what: its starts may differ.
ELSEWHERE = ("mesh", "data.workers", "data.cache_mb", "data.prepared")


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """Returns a config's values by their whole names, "data.folder"."""
    values = {}
    for name, value in config.items():
        if isinstance(value, ConfigDict) and len(value):
            values |= flat(value, f"{prefix}{name}.")
        else:
            values[prefix + name] = value
    return values


def computed(config: Any) -> dict[str, Any]:
    """Returns the values of a config that say what is computed, and not where."""
    return {name: value for name, value in flat(config).items() if name not in ELSEWHERE}


def has_checkpoint(workdir: Path) -> bool:
    """Returns whether a run has saved a state here, damaged or not. Without one a workdir is no run yet."""
    places = (workdir / "checkpoints", workdir / "checkpoints.damaged")
    return any(path.name.partition("-")[0].isdigit() for place in places if place.is_dir() for path in place.iterdir())


def _is_failed_start(workdir: Path) -> bool:
    """Returns whether all that is in a workdir was left by a start that ended before it saved a state."""
    if not (workdir / "config.json").is_file() or has_checkpoint(workdir):
        return False
    names = {path.name for path in workdir.iterdir() if not path.name.endswith((".partial", ".damaged"))}
    return names <= OF_START


def write_config(workdir: Path, config: Any) -> None:
    """Writes config.json, or checks that a resumed run has the same one apart from where it is computed.

    Files of a start that saved no state are written again: that is no run yet.

    Raises:
      UserError: the workdir is of another config.
    """
    path, text = workdir / "config.json", config.to_json(indent=2)
    if is_first_process() and _is_failed_start(workdir):
        is_same = path.read_text(encoding="utf-8", errors="replace") == text
        for name in OF_CONFIG[1:3] if is_same else OF_CONFIG:
            if (workdir / name).exists():
                (workdir / name).unlink()
    if path.exists():
        remedy = "remove it, and it is written again, if the config is the one that the run was started with"
        before = computed(_parsed(path, remedy=remedy))
        now = computed(ConfigDict(json.loads(text)))
        differing = [k for k in {**before, **now} if before.get(k) != now.get(k)]
        if differing:
            key = differing[0]
            raise UserError(
                f"{workdir} is of another config: {key} was {before.get(key)} and is now {now.get(key)}"
                f"{f' (and {len(differing) - 1} more keys)' if len(differing) > 1 else ''}; "
                "give another --workdir, or the config it was started with."
            )
        return
    write_whole(path, text)


def read_config(workdir: Path, trained_with: str = "") -> Any:
    """Returns the config of a workdir; `trained_with` is the hash of the one that its checkpoint was trained with.

    Raises:
      UserError: the file is missing, is damaged, or is of another config.
    """
    path, remedy = workdir / "config.json", "put the run's own back, or copy the run again"
    config = _parsed(path, remedy=remedy)
    if trained_with and (own := config_hash(config)) != trained_with:
        raise UserError(f"{path} is of config {own}, and the checkpoint was trained with {trained_with}; {remedy}.")
    return config


def _parsed(path: Path, *, remedy: str) -> Any:
    """Returns the config in a file.

    Raises:
      UserError: the file is missing or damaged, or holds something else than the config of a run.
    """
    content = read_json(path, layout="a run", remedy=remedy)
    sections = ("data", "loss", "model", "optimizer", "training")
    if odd := [name for name in sections if not isinstance(content.get(name), dict)]:
        raise UserError(f"{path} has no section '{odd[0]}', so it is no run's config; {remedy}.")
    return ConfigDict(content)


def read_evaluation(path: Path, *, remedy: str) -> dict[str, Any]:
    """Returns an evaluation that experiments.evaluate wrote.

    Raises:
      UserError: the file is missing or damaged; `remedy` says what to do.
    """
    content = read_json(path, layout="an evaluation", remedy=remedy)
    kinds = {"config_hash": str, "step": int, "protocol": str, "split": str, "metrics": dict, "baselines": dict}
    for name, kind in kinds.items():
        if not isinstance(content.get(name), kind):
            raise UserError(f"{path} has no '{name}', so it is no evaluation; {remedy}.")
    for row in (content["metrics"], *content["baselines"].values()):
        if not isinstance(row, dict) or not all(x is None or type(x) in (int, float) for x in row.values()):
            raise UserError(f"{path} has metrics that are no numbers; {remedy}.")
    return content


def config_hash(config: Any) -> str:
    """Returns twelve hex digits of the whole resolved config, but for where it is computed."""
    text = json.dumps(computed(config), sort_keys=True, default=dict)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
