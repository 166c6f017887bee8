"""Shows a run on a page: python -m experiments.report --workdir=DIR [--split=val]. Writes DIR/report/index.html."""

import json
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from contextjax.files import is_remote, path_of, write_whole
from contextjax.types import UserError
from experiments.shared import cli

WORKDIR = flags.DEFINE_string("workdir", None, "The workdir of a training run that experiments.evaluate has evaluated.")
SPLIT = flags.DEFINE_string("split", None, "The split; default: the config's val_split.")

TOLERANCE = 1.0  # points of a metric that another device's rounding may move


def main() -> None:
    """Workdir -> report/index.html."""
    print(f"Report: {report(path_of(cli.required(WORKDIR)), split=SPLIT.value)}")


def report(workdir: Path, *, split: str | None = None) -> Path:
    """Evaluates what `load` takes and writes the page (other splits: report/SPLIT.html); returns its path."""
    import shlex

    import contextjax
    from contextjax.reports import build_report, render
    from contextjax.training.metrics_log import read_metrics
    from data_pipelines import protocols
    from data_pipelines.concepts import find_phrases
    from experiments.shared import assembly
    from experiments.shared.data import load_evaluated
    from experiments.shared.evaluations import evaluated

    system, config = contextjax.load(workdir), assembly.read_config(workdir)
    flag, split = [f"--split={split}"] if split else [], str(split or config.data.val_split)
    command = [f"--workdir={workdir}", *flag]
    is_default = split == config.data.val_split
    evaluation_file = workdir / ("evaluation.json" if is_default else f"evaluation.{split}.json")
    remedy = f"run python -m experiments.evaluate {shlex.join(command)}"
    before = read_evaluation(evaluation_file, system.fingerprint, remedy=remedy)
    reader, folder = evaluated(config)
    data = load_evaluated(config, split)
    found = assembly.evaluate(system, protocols.of_reader(reader), data)
    check_unchanged(before["metrics"], found.metrics(), evaluation_file, remedy=remedy)
    page = build_report(
        system,
        found,
        data.pictures,
        title=(workdir if is_remote(workdir) else workdir.resolve()).name,
        protocol=before["protocol"],
        split=split,
        baselines=before["baselines"],
        metric_lines=read_metrics(workdir),
        loss_weights=assembly.parts(config).loss_weights(config),
        phrases_of=lambda text: find_phrases([text])[0],
        captions=data.captions,
        facts=made_by(command) | time_spent(workdir),
        credit="\n".join(path.read_text(encoding="utf-8").strip() for path in sorted(Path(folder).glob("LICENSE*"))),
    )
    path = workdir / "report" / ("index.html" if is_default else f"{split}.html")
    write_whole(path, render(page))
    return path


def time_spent(workdir: Path) -> dict[str, str]:
    """Where the time of the run's training went; nothing of a run that kept no ledger."""
    from contextjax.training.ledger import read_ledger, summary

    if not (lines := read_ledger(workdir)):
        return {}
    *parts, (_, total, _) = summary(lines)
    shown = ", ".join(f"{what} {share:.1%}" for what, _, share in parts if round(share, 3))
    return {"Time": f"{total:,.0f} s of training in {len(lines)} start{'s' * (len(lines) != 1)}: {shown}"}


def made_by(command: Sequence[str]) -> dict[str, str]:
    """How the page came about: command, versions, date."""
    import datetime
    import platform
    import shlex

    import jax

    import contextjax

    versions = {"contextjax": contextjax.__version__, "jax": jax.__version__, "Python": platform.python_version()}
    return {
        "Made by": shlex.join(["python", "-m", "experiments.report", *command]),
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "Date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
    }


def read_evaluation(path: Path, fingerprint: str, *, remedy: str) -> dict:
    """What experiments.evaluate wrote of the same checkpoint; UserError where it has not."""
    if not path.exists():
        raise UserError(f"There is no {path}, which holds the baselines; {remedy} first.")
    found = json.loads(path.read_text(encoding="utf-8"))
    if (of := f"{found['config_hash']}-{found['step']}") != fingerprint:
        raise UserError(f"{path} is of checkpoint {of}, but the one that is shown is {fingerprint}; {remedy} again.")
    return found


def check_unchanged(before: dict, now: dict, path: Path, *, remedy: str) -> None:
    """The same checkpoint must score the same: else its baselines belong to other code or data than the page."""
    changed = [name for name in now if abs(now[name] - before.get(name, -100)) > TOLERANCE]
    if changed:
        name = changed[0]
        raise UserError(
            f"{path} says {name} {before.get(name)} and the same checkpoint now scores {now[name]:.2f}: "
            f"the model's code or the data changed since; undo that, or {remedy} again."
        )


if __name__ == "__main__":
    cli.run(main)
