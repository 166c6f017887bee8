"""The config of a run: its file in the workdir, and what must stay the same from one start to the next."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from contextjax.files import write_whole
from contextjax.json_files import read_json
from contextjax.types import UserError

ELSEWHERE = (
    "mesh",
    "data.workers",
    "data.cache_mb",
    "data.prepared",
)  # where a run is computed, not what: its starts may differ


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


def write_config(workdir: Path, config: Any) -> None:
    """Writes config.json, or checks that a resumed run has the same one, wherever it goes on.

    Raises:
      UserError: the workdir is of another config.
    """
    path, text = workdir / "config.json", config.to_json(indent=2)
    if path.exists():
        before = computed(ConfigDict(read_json(path, layout="a run", remedy="give another --workdir")))
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


def read_config(workdir: Path) -> Any:
    """Returns the config of a workdir."""
    return ConfigDict(read_json(workdir / "config.json", layout="a run", remedy="copy the run again"))


def config_hash(config: Any) -> str:
    """Returns twelve hex digits of the whole resolved config, but for where it is computed."""
    text = json.dumps(computed(config), sort_keys=True, default=dict)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
