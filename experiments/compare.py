"""Trains variants of a recipe for the same time, several seeds each, and prints their table; the same command goes on.

python -m experiments.compare --config=configs/pictograms.py --variants=recipe,no_consistency,sum --minutes=3 \\
  --workdir=runs/compare
"""

import datetime
import json
import runpy
import subprocess
import sys
from pathlib import Path

from absl import flags

from contextjax.json_files import parse_json, read_json, read_text
from contextjax.training.metrics_log import read_metrics
from contextjax.types import UserError
from experiments.shared import cli

CONFIG = flags.DEFINE_string("config", None, "The recipe's file, without an argument.")
VARIANTS = flags.DEFINE_list("variants", ["recipe"], "Arguments of the recipe; 'recipe' is the recipe without one.")
SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds of each variant; none: only the trials.")
MINUTES = flags.DEFINE_float(
    "minutes", 0.0, "Training time of a run (its steps follow from a short trial); 0: the recipe's."
)
WORKDIR = flags.DEFINE_string("workdir", None, "Where the runs go.")
STAGES = flags.DEFINE_list("stages", None, "Of a recipe in stages: those to train; default: all.")
ROWS = flags.DEFINE_string("rows", None, "The file of finished runs, a JSON line each; default: WORKDIR/rows.jsonl.")
OVERRIDES = flags.DEFINE_list(
    "overrides",
    [],
    "Further settings of every run, data.folder=DIR or (of a stage) 1:model.start=RUN; {seed} becomes the run's.",
)
TRIAL_STEPS = 60


def main() -> None:
    """Rows that are there are kept; a run that was interrupted goes on."""
    workdir = Path(cli.required(WORKDIR))
    path = Path(ROWS.value) if ROWS.value else workdir / "rows.jsonl"
    rows = _read_rows(path) if path.exists() else []
    for variant in VARIANTS.value if MINUTES.value else ():
        _steps_for(variant, workdir / "trials" / variant, MINUTES.value * 60)
    for seed in SEEDS.value:
        for variant in VARIANTS.value:
            if not any(row["variant"] == variant and row["seed"] == seed for row in rows):
                rows.append(_run(variant, seed, workdir))
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    if rows:
        _print_table(rows)


def _read_rows(path: Path) -> list[dict]:
    """Returns the finished runs of a file, a JSON line each.

    Raises:
      UserError: a line is damaged.
    """
    rows = []
    for number, line in enumerate(read_text(path, layout="compare", remedy="give another --rows").splitlines(), 1):
        try:
            rows.append(parse_json(line))
        except ValueError as error:
            raise UserError(f"{path}, line {number} is not JSON ({error}); remove that line and try again.") from error
    return rows


def _run(variant: str, seed: str, workdir: Path) -> dict:
    settings = {"seed": seed, **_overrides(seed)}
    if MINUTES.value:
        settings |= _steps_for(variant, workdir / "trials" / variant, MINUTES.value * 60)
    place = workdir / f"{variant}-{seed}"
    _train(variant, place, settings)
    stages = [place / stage for stage in _stages()] or [place]
    module = [sys.executable, "-m", "experiments.evaluate", f"--workdir={stages[-1]}", "--nobaselines"]
    subprocess.run(module, check=True, stdout=subprocess.DEVNULL)
    evaluation = read_json(stages[-1] / "evaluation.json", layout="an evaluation", remedy="evaluate the run again")
    ends = [read_metrics(stage)[-1] for stage in stages]
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    kept = {"metrics": evaluation["metrics"]}
    if "Rs@1" in evaluation["metrics"]:
        kept["Rs@1 by kind"] = {kind: metrics["Rs@1"] for kind, metrics in evaluation["by_kind"].items()}
    if len(stages) > 1:
        kept |= {
            name: row["accuracy"] for name, row in evaluation["baselines"].items() if name == "texts of other sets"
        }
        kept["accuracy by stage"] = {
            stage.name: end["val/accuracy"] for stage, end in zip(stages, ends, strict=True) if "val/accuracy" in end
        }
    kept |= {"steps": sum(end["step"] for end in ends), "config_hash": evaluation["config_hash"]}
    seconds = round(sum(end["seconds"] for end in ends), 3)
    return {"variant": variant, "seed": seed, **kept, "seconds": seconds, "date": date}


def _stages() -> list[str]:
    """The stages to train of a recipe that has such."""
    return STAGES.value or list(runpy.run_path(cli.required(CONFIG)).get("STAGES", ()))


def _steps_for(variant: str, place: Path, seconds: float) -> dict[str, int]:
    """Steps that take `seconds`, by the speed of a short trial; where the recipe has leading ones, a quarter leads."""
    kept = place / "steps.json"
    if not kept.exists():
        recipe = runpy.run_path(cli.required(CONFIG))["get_config"]("" if variant == "recipe" else variant)
        has_lead = recipe.loss.lead_steps > 0
        trial = {"training.steps": TRIAL_STEPS, "training.log_every": 5}
        trial |= {"loss.lead_steps": TRIAL_STEPS // 2} if has_lead else {}
        _train(variant, place, {**trial, **_overrides("0")})
        at = {line["step"]: line["seconds"] for line in read_metrics(place) if "loss" in line}
        lead, rest = ((at[end] - at[end - 20]) / 20 for end in (TRIAL_STEPS // 2, TRIAL_STEPS))
        steps = int(seconds / (0.25 * lead + 0.75 * rest))
        found = {"training.steps": steps} | ({"loss.lead_steps": steps // 4} if has_lead else {})
        kept.write_text(json.dumps(found))
    return read_json(kept, layout="a trial", remedy="remove it, and the trial is made again")


def _overrides(seed: str) -> dict[str, str]:
    return dict(item.replace("{seed}", seed).split("=", 1) for item in OVERRIDES.value)


def _train(variant: str, place: Path, settings: dict) -> None:
    recipe, argument = cli.required(CONFIG), "" if variant == "recipe" else variant
    pairs = [f"{key}={value}" for key, value in settings.items()]
    if stages := _stages():
        command = ["experiments.stages", f"--config={recipe}", f"--argument={argument}", f"--stages={','.join(stages)}"]
        command += [f"--set={pair}" for pair in pairs]
    else:
        command = ["experiments.train", f"--config={recipe}:{argument}" if argument else f"--config={recipe}"]
        command += [f"--config.{pair}" for pair in pairs]
    if subprocess.run([sys.executable, "-m", *command, f"--workdir={place}"], check=False).returncode:
        raise UserError(f"The run in {place} failed; what it said stands above. The same command goes on with it.")


def _print_table(rows: list[dict]) -> None:
    """A Markdown table: mean and standard deviation over the seeds."""
    import numpy as np

    columns = [name for name in rows[0]["metrics"] if name in ("R@1", "R@5", "R@10", "Rs@1", "Rs@2", "Avg", "accuracy")]
    print(f"| variant | seeds | steps | seconds | {' | '.join(columns)} |\n|{'---|' * (4 + len(columns))}")
    for variant in dict.fromkeys(row["variant"] for row in rows):
        own = [row for row in rows if row["variant"] == variant]
        table = np.asarray([[row["metrics"][name] for name in columns] for row in own])
        cells = [
            f"{mean:.1f} ± {std:.1f}"
            for mean, std in zip(table.mean(0), table.std(0, ddof=min(1, len(own) - 1)), strict=True)
        ]
        seconds = f"{min(r['seconds'] for r in own):.0f}–{max(r['seconds'] for r in own):.0f}"
        print(f"| {variant} | {len(own)} | {own[0]['steps']} | {seconds} | {' | '.join(cells)} |")


if __name__ == "__main__":
    cli.run(main)
