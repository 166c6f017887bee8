"""Writes and checks the files of an export: names, versions, checksums. Importing this module imports no JAX."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from contextjax import spec
from contextjax.checkpoints import integrity
from contextjax.files import is_remote
from contextjax.json_files import read_json
from contextjax.types import UserError

VERSION = 1  # of the folder's form; a reader takes its own only
MANIFEST = "export.json"
FORMATS = ("safetensors", "stablehlo", "onnx")


def check_formats(names: list[str]) -> tuple[str, ...]:
    """Returns the formats of --format, each once.

    Raises:
      UserError: one is unknown, or there is none.
    """
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        raise UserError(
            f"--format is '{','.join(names)}'; expected some of {', '.join(FORMATS)}, with commas between them."
        )
    return tuple(name for name in FORMATS if name in names)


def write_manifest(folder: Path, facts: dict[str, Any]) -> None:
    """Writes export.json, which holds the facts, and then the checksums of all files."""
    (folder / MANIFEST).write_text(json.dumps({"export": VERSION, **facts}, indent=2) + "\n", encoding="utf-8")
    integrity.write(folder)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Returns what export.json says, after all files were compared with their checksums.

    Raises:
      UserError: it is no such file, of another version, or a file is missing or not what was written.
    """
    if is_remote(folder):
        raise UserError(f"{folder} is in an object store; copy the export to this machine, and load it there.")
    path = folder / MANIFEST
    manifest = read_json(path, layout="an export", remedy="copy what experiments.export wrote again")
    version = manifest.get("export")
    if version is None:
        raise UserError(f"{path} can't be read (it names no version); copy what experiments.export wrote again.")
    if version != VERSION:
        raise UserError(
            f"{folder} is an export of version {version}, and this contextjax reads version {VERSION}; export the run "
            "again, or use the contextjax that wrote it."
        )
    try:
        named = {name for program in manifest["programs"].values() for name in program["files"].values()} | {spec.FILE}
        _ = (manifest["formats"], manifest["fingerprint"], manifest["tokenizer"]["specials"], manifest["limits"])
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not whole ({error!r}); copy the export again.") from error
    if odd := sorted(name for name in named if Path(name).name != name):
        raise UserError(f"{path} names {odd[0]}, which is not beside it; copy the export again.")
    if damage := integrity.damage(folder, allow_more=True):
        raise UserError(f"{folder} is not what was written: {damage}; copy the export again.")
    if lost := sorted(named - integrity.Manifest.read(folder).files.keys()):
        raise UserError(f"{path} names {lost[0]}, which has no checksum; copy the export again.")
    return manifest
