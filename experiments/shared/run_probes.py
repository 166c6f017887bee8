"""Probes a run, or published weights, on candidate sets, and writes probes.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import contextjax
from contextjax.evaluation import run_probes
from contextjax.files import write_whole
from contextjax.json_files import read_json
from contextjax.reports.report import probe_rows
from contextjax.types import UserError
from experiments.shared.run_config import read_config
from experiments.shared.run_evaluation import checkpoint_of, choose_split
from experiments.shared.scoring import has_candidates


def probes_file(evaluation_file: str) -> str:
    """Returns the name of the file of probes beside that of an evaluation of the same split."""
    return f"probes{evaluation_file.removeprefix('evaluation')}"


def probe_run(
    workdir: Path, *, source: str = "", checkpoint: str = "", count: int = 0, seed: int = 0, **choice: Any
) -> dict[str, Any]:
    """Probes, writes the result beside where the split's evaluation is written (probes_file), and prints it.

    Args:
      workdir: the run's, and where the result is written.
      source: a folder or hub id of CLIP or BLIP to probe instead of the run.
      checkpoint: best, newest or a step; see contextjax.load.
      count: only so many descriptions, evenly spread; 0: all.
      seed: of all draws.
      choice: see run_evaluation.choose_split.

    Raises:
      UserError: the choice fits neither the source nor the data, or names no candidate sets with published targets.
    """
    if source and not (choice.get("folder") and choice.get("protocol")):
        raise UserError("--data or --protocol is missing; a --source needs both: --data=FOLDER --protocol=imagecode.")
    system = contextjax.load(source or workdir, checkpoint=checkpoint)
    patch = system.vision.patch_size  # before the data are read: an export has none
    config = None if source else read_config(workdir, system.fingerprint.rpartition("-")[0])
    chosen = choose_split(system, config, **choice)
    if not has_candidates(chosen.protocol):
        raise UserError(
            f"'{chosen.protocol.name}' is a protocol of composed queries; probes are of candidate sets: give a run of "
            "ContextBLIP, or --data and --protocol=imagecode or mmvp."
        )
    if chosen.is_secret:
        raise UserError(f"The targets of split '{chosen.split}' are secret; probe one that publishes them.")
    ((_, data),) = chosen.parts.items()
    records, every = data.records, len(data.records)
    if 0 < count < every:
        records = tuple(records[i * every // count] for i in range(count))
    probes = run_probes(system, records, data.pictures, patch=patch, seed=seed)
    result = {
        "protocol": chosen.protocol.name, "split": chosen.split, "data": chosen.data, "n_queries": len(records),
        "seed": seed, "score": system.score, **checkpoint_of(system.fingerprint), "probes": probes,
    }  # fmt: skip
    path = workdir / probes_file(chosen.file)
    write_whole(path, json.dumps(result, indent=2) + "\n")
    print("\n".join((*describe(result), f"The result is {path}.")))
    return result


def describe(result: Mapping[str, Any]) -> list[str]:
    """Returns the lines of a result's table."""
    head = f"{result['protocol']}, {result['split']}: {result['n_queries']} queries; accuracy in percent by strength"
    return [head, *(f"{probe:<24}{words}" for probe, words in probe_rows(result["probes"]))]


def read_probes(file: Path, *, split: str, fingerprint: str, identity: str) -> dict[str, Any]:
    """Returns a result of probes where it is of this checkpoint, split and data; {} where there is none such.

    Args:
      file: what `probe_run` wrote.
      split, fingerprint, identity: of the split, the checkpoint and the data.
    """
    if not file.exists():
        return {}
    result = read_json(file, layout="a result of experiments.probe", remedy="remove it, or probe again")
    data = result.get("data") if isinstance(result.get("data"), dict) else {}
    of = f"{result.get('config_hash')}-{result.get('step')}", result.get("split"), data.get("identity")
    is_of_these = of == (fingerprint, split, identity) and isinstance(result.get("probes"), dict)
    return result if is_of_these else {}
