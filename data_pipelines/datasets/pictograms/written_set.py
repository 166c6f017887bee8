"""Writing a generated set: whole or not at all, and once for given settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from contextjax.files import whole_folder
from contextjax.json_files import read_json

SETTINGS_FILE = "pictograms.json"
LICENSE_FILE = "LICENSE-pictograms.txt"


def write_once(folder: Path, settings: Mapping[str, Any], write: Callable[[Path], None]) -> Path:
    """Writes a set into a folder and returns the folder; does nothing if the folder holds the same set already.

    Args:
      folder: absent, empty, or written by this function.
      settings: everything that decides the files; kept beside them in SETTINGS_FILE.
      write: writes the set into the empty folder that it is given, which gets its name when `write` has returned.

    Raises:
      ValueError: the folder holds something else, or a set of other settings.
    """
    if _is_written(folder, settings):
        return folder
    with whole_folder(folder) as partial:
        write(partial)
        (partial / SETTINGS_FILE).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    return folder


def _is_written(folder: Path, settings: Mapping[str, Any]) -> bool:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    path = folder / SETTINGS_FILE
    if not path.exists():
        raise ValueError(
            f"Got the folder {folder} with files in it but without {SETTINGS_FILE}, which is no pictograms data set; "
            "expected an empty or absent folder: choose another one."
        )
    kept = read_json(path, layout="the pictograms", remedy="choose another folder")
    if kept == settings:
        return True
    differing = [key for key in settings if kept.get(key) != settings[key]]
    got, expected = ({key: values[key] for key in differing if key in values} for values in (kept, settings))
    raise ValueError(
        f"Got a pictograms data set in {folder} written with {_short(got)}, expected {_short(expected)}: "
        "use those settings, remove the folder, or choose another one."
    )


def _short(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{k}={v if len(str(v)) < 100 else str(v)[:97] + '…'}" for k, v in values.items()) or "nothing"


def fingerprint(art: Mapping[str, Image.Image], *, end: str = "") -> str:
    """Returns 16 hex digits that tell one set of pictures from another with the same names.

    `end` stands after each size; the two layouts differ in it.
    """
    digest = hashlib.blake2b(digest_size=8)
    for name, picture in art.items():
        digest.update(f"{name} {picture.size}{end}".encode() + picture.tobytes())
    return digest.hexdigest()
