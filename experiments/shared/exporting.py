"""An export of a run, or of a CLIP or BLIP, as experiments.export writes it."""

from __future__ import annotations

import json
from pathlib import Path

import contextjax
from contextjax.export.folder import check_formats
from contextjax.export.write import write_export
from contextjax.files import check_absent, path_of
from contextjax.json_files import read_json
from contextjax.types import UserError


def export(source: str, target: Path, *, formats: list[str], dtype: str = "float32", checkpoint: str = "") -> None:
    """Writes an export of a run, or of a CLIP or BLIP, and prints what is in it."""
    folder, chosen = path_of(source), check_formats(formats)
    check_absent(target)
    if (folder / "export.json").exists():
        raise UserError(f"{source} is an export itself; give the --workdir of the run it was made of.")
    system = contextjax.load(source, checkpoint=checkpoint)
    path = folder / "config.json"
    config = read_json(path, layout="a run", remedy="copy the run again") if path.exists() else {}
    own, evaluation = config if "model" in config else None, None
    if own and (folder / "evaluation.json").exists():
        found = read_json(folder / "evaluation.json", layout="an evaluation", remedy="evaluate the run again")
        if f"{found.get('config_hash')}-{found.get('step')}" == system.fingerprint:
            evaluation = found
        else:
            print(f"{source}/evaluation.json is of another checkpoint; the card goes without metrics.")
    write_export(system, target, formats=chosen, dtype=dtype, config=own, evaluation=evaluation)
    _report(target)


def _report(target: Path) -> None:
    sizes = {path.name: path.stat().st_size / 1e6 for path in sorted(target.iterdir())}
    print(f"wrote {target}: " + ", ".join(f"{name} ({size:.2f} MB)" for name, size in sizes.items()))
    if (target / "parity.json").exists():
        parity = json.loads((target / "parity.json").read_text(encoding="utf-8"))
        for form, programs in parity["largest_difference"].items():
            worst = ", ".join(f"{name} {max(batches.values()):.1e}" for name, batches in programs.items())
            print(f"largest difference from the live model, {form}: {worst} (at most {parity['tolerance']:g})")
        trained = parity["trained"]
        if apart := [max(batches.values()) for batches in trained["largest_difference"].values()]:
            print(
                f"trained in {trained['dtype']}: the live model as trained is up to {max(apart):.1e} from itself in "
                f"{parity['dtype']}"
            )
