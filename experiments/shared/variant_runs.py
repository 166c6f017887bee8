"""Runs of a recipe's variants, several seeds each, side by side: what `compare` trains, evaluates and prints."""

from __future__ import annotations

import dataclasses
import datetime
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from contextjax.files import write_whole
from contextjax.json_files import read_json, read_lines, set_aside_lines
from contextjax.training.metrics_log import read_metrics
from contextjax.types import UserError
from experiments.shared.recipes import load_recipe, run_recipe
from experiments.shared.run_config import read_config, read_evaluation
from experiments.shared.stage_runs import stages_of

TRIAL_STEPS, TRIAL_EVERY = 60, 5


@dataclasses.dataclass(frozen=True)
class VariantRuns:
    """The runs of one recipe's variants in one workdir. A variant is an argument of the recipe; "recipe" is none."""

    recipe: str  # a file, without an argument
    workdir: Path
    seconds: float  # of training, for each run; 0: the recipe's own steps
    stages: Sequence[str] | None  # of a recipe in stages, those to train of each variant that has them; None: all
    overrides: Sequence[str]  # KEY=VALUE, in which {seed} becomes the run's
    kind: str = ""  # of queries, to which a row's metrics are limited; "": all
    splits: Sequence[str] = ()  # further ones to evaluate; a row has their metrics as "SPLIT/R@1"
    baselines: bool = False  # a row has the figures of queries that no single modality answers, as "rest/R@1"

    def __post_init__(self):
        """Raises UserError where an override is no setting, before anything is trained."""
        if odd := [item for item in self.overrides if not item.partition("=")[0].strip() or "=" not in item]:
            raise UserError(
                f"--overrides has '{odd[0]}', which is no setting; expected KEY=VALUE, as training.steps=9."
            )

    def complete(self, path: Path, *, variants: Sequence[str], seeds: Sequence[str]) -> list[dict[str, Any]]:
        """Trains and evaluates what a file of finished runs lacks; returns its rows. An interrupted run goes on.

        Raises:
          UserError: a run failed, or a variant has none of the stages that are asked for.
        """
        rows = read_rows(path)
        for variant in variants:
            self._stages(variant)  # refuses before anything is trained
        for variant in variants if self.seconds else ():
            self._steps(variant)
        finished = {(row["variant"], row["seed"]) for row in rows}
        for variant, seed in ((variant, seed) for seed in seeds for variant in variants):
            if (variant, seed) not in finished:
                rows.append(self._run(variant, seed))
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
        return rows

    def _run(self, variant: str, seed: str) -> dict[str, Any]:
        """Trains and evaluates a run; returns its row."""
        settings = {"seed": seed, **self._overrides(seed)}
        if self.seconds:
            settings |= self._steps(variant)
        place = self.workdir / f"{variant}-{seed}"
        self._train(variant, place, settings)
        stages = [place / stage for stage in self._stages(variant)] or [place]
        evaluation = self._evaluate(stages[-1])
        ends = [read_metrics(stage)[-1] for stage in stages]
        more = {name: value for name, value in evaluation.items() if name.startswith(("accuracy/", "grounding/"))}
        more |= _costs(stages[-1])
        row: dict[str, Any] = {"variant": variant, "seed": seed, "metrics": self._metrics(evaluation) | more}
        row["metrics"] |= self._rest(evaluation)
        row |= {"gallery": evaluation["n_gallery"], "queries": evaluation["n_queries"], "split": evaluation["split"]}
        row |= _detail(evaluation)
        for split in self.splits:
            further = self._evaluate(stages[-1], split)
            values = further["metrics"] | self._rest(further)
            row["metrics"] |= {f"{split}/{name}": value for name, value in values.items()}
            row.setdefault("splits", {})[split] = {"queries": further["n_queries"], **_detail(further)}
        if self.kind:
            row |= {"kind": self.kind, "by kind": evaluation["by_kind"], "queries": row["metrics"].pop("n_queries")}
            row["truths"] = row["metrics"].pop("n_truths", 1.0)
            if row["truths"] > 1 and "R@1" in row["metrics"]:
                row["metrics"]["P@1"] = row["metrics"]["R@1"]  # of several right pictures, any counts for both
        if "Rs@1" in evaluation["metrics"]:
            by_kind = evaluation["by_kind"].items()
            row["Rs@1 by kind"] = {kind: metrics["Rs@1"] for kind, metrics in by_kind if "Rs@1" in metrics}
        if len(stages) > 1:
            others = "texts of other sets"
            row |= {others: evaluation["baselines"][others]["accuracy"]} if others in evaluation["baselines"] else {}
            row["accuracy by stage"] = {
                stage.name: end["val/accuracy"] for stage, end in zip(stages, ends, strict=True)
                if "val/accuracy" in end
            }  # fmt: skip
        return row | {
            "steps": sum(end["step"] for end in ends),
            "checkpoint": evaluation["step"],  # the best one, where the recipe has a rule of what that is
            "config_hash": evaluation["config_hash"],
            "seconds": round(sum(end["seconds"] for end in ends), 3),
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        }

    def _evaluate(self, place: Path, split: str = "") -> dict[str, Any]:
        """Evaluates the run in a workdir on a split, or on the config's own; returns what evaluation.json says."""
        command = [sys.executable, "-m", "experiments.evaluate", f"--workdir={place}"]
        command += [f"--split={split}"] if split else []
        command += [] if self.baselines else ["--nobaselines"]
        if subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode:
            raise UserError(f"The run in {place} can't be evaluated; what was said of it stands above.")
        file = f"evaluation.{split}.json" if split and split != read_config(place).data.val_split else "evaluation.json"
        return read_evaluation(place / file, remedy="give the same command again")

    def _rest(self, evaluation: Any) -> dict[str, float]:
        """Returns the figures of the queries that no single modality answers, where they are asked for."""
        shares = evaluation.get("single_modality", {}).items() if self.baselines else ()
        return {f"rest/{name}": values["rest"] for name, values in shares if values["rest"] is not None}

    def _metrics(self, evaluation: Any) -> dict[str, Any]:
        if not self.kind:
            return evaluation["metrics"]
        if self.kind not in evaluation["by_kind"]:
            known = ", ".join(evaluation["by_kind"]) or "none"
            raise UserError(f"There are no queries of the kind '{self.kind}'; the evaluation has {known}.")
        return dict(evaluation["by_kind"][self.kind])

    def _stages(self, variant: str) -> Sequence[str]:
        """Returns the stages of a run: of those that were asked for, the ones that this variant has.

        Raises:
          UserError: it has none of them.
        """
        own, known = stages_of(self.recipe, _argument(variant)), run_recipe(self.recipe).get("STAGES", ())
        asked = [stage for stage in self.stages or own if stage in own or stage not in known]
        if self.stages and not asked:
            raise UserError(f"--stages has none of the stages of '{variant}', which are {', '.join(own)}.")
        return asked

    def _overrides(self, seed: str) -> dict[str, str]:
        return dict(item.replace("{seed}", seed).split("=", 1) for item in self.overrides)

    def _steps(self, variant: str) -> dict[str, int]:
        """Returns the steps that take `seconds`, by a short trial; a quarter leads where the recipe has a lead."""
        place = self.workdir / "trials" / variant
        file = place / "steps.json"
        if not file.exists():
            argument = _argument(variant)
            recipe = load_recipe(f"{self.recipe}{f':{argument}' if argument else ''}")
            has_lead = recipe.loss.get("lead_steps", 0) > 0
            trial = {"training.steps": TRIAL_STEPS, "training.log_every": TRIAL_EVERY}
            trial |= {"loss.lead_steps": TRIAL_STEPS // 2} if has_lead else {}
            self._train(variant, place, {**trial, **self._overrides("0")})
            at = {line["step"]: line["seconds"] for line in read_metrics(place) if "loss" in line}
            steps = steps_within(self.seconds, at)
            settings = {"training.steps": steps} | ({"loss.lead_steps": steps // 4} if has_lead else {})
            file.write_text(json.dumps(settings))
        return read_json(file, layout="a trial", remedy="remove it, and the trial is made again")

    def _train(self, variant: str, place: Path, settings: dict[str, Any]) -> None:
        argument = _argument(variant)
        pairs = [f"{key}={value}" for key, value in settings.items()]
        if stages := self._stages(variant):
            command = ["experiments.stages", f"--config={self.recipe}", f"--argument={argument}"]
            command += [f"--stages={','.join(stages)}", *(f"--set={pair}" for pair in pairs)]
        else:
            command = ["experiments.train", f"--config={self.recipe}{f':{argument}' if argument else ''}"]
            command += [f"--config.{pair}" for pair in pairs]
        if subprocess.run([sys.executable, "-m", *command, f"--workdir={place}"], check=False).returncode:
            raise UserError(f"The run in {place} failed; its messages stand above. The same command continues it.")


def _argument(variant: str) -> str:
    return "" if variant == "recipe" else variant


def steps_within(seconds: float, at: Mapping[int, float]) -> int:
    """Returns how many steps take so many seconds of training, a quarter of them lead steps, by a trial's times.

    The first half of the trial are lead steps. The speed of each half is the median over its last four stretches of
    TRIAL_EVERY steps, so that a stall of a second counts for little.

    Args:
      seconds: the training time.
      at: step of the trial -> seconds since its start, for every multiple of TRIAL_EVERY.
    """
    halves = ([end - TRIAL_EVERY * i for i in range(4)] for end in (TRIAL_STEPS // 2, TRIAL_STEPS))
    lead, rest = (statistics.median(at[end] - at[end - TRIAL_EVERY] for end in ends) for ends in halves)
    return int(seconds * TRIAL_EVERY / (0.25 * lead + 0.75 * rest))


def _detail(evaluation: Any) -> dict[str, Any]:
    """Returns what a row says of an evaluation beside its metrics."""
    return {name: evaluation[name] for name in ("by_phrases", "single_modality") if evaluation.get(name)}


def _costs(workdir: Path) -> dict[str, float]:
    """Returns what a run's system is: the parameters that it reads and that were trained, and the FLOPs of a query."""
    from experiments.shared.inference_costs import inference_costs

    cost = inference_costs(read_config(workdir))[0]
    return {"parameters": cost.parameters, "trained_parameters": cost.trained, "flops_query": cost.query_flops}


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Returns the finished runs of a file, a JSON line each; none where it is not there.

    Damaged lines are set aside and printed, and the file is written without them: their runs are evaluated again.

    Raises:
      UserError: it is not a file of finished runs.
    """
    rows, damaged = read_lines(path, _is_row)
    if damaged and not rows:
        raise UserError(f"{path} holds no row of compare; give another file as --rows, or remove it.")
    if path.exists() and (damaged or not path.read_bytes().endswith(b"\n")):
        set_aside_lines(path, damaged)
        write_whole(path, "".join(json.dumps(row) + "\n" for row in rows), is_kept=True)
    return rows


def _is_row(row: Any) -> bool:
    """Returns whether a line is such as `_run` makes."""
    texts, numbers = ("variant", "seed"), ("steps", "seconds")
    return (
        isinstance(row, dict)
        and all(isinstance(row.get(name), str) for name in texts)
        and all(type(row.get(name)) in (int, float) for name in numbers)
        and isinstance(metrics := row.get("metrics"), dict)
        and all(type(value) in (int, float) for value in metrics.values())
    )
