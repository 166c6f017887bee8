"""Evaluates a run, or a published CLIP or BLIP as it is, on composed queries or candidate sets.

python -m experiments.evaluate --workdir=RUN [--split=unseen]
python -m experiments.evaluate --workdir=DIR --source=CLIP_OR_BLIP --data=FOLDER --protocol=cirr|imagecode [--split=val]
"""

from pathlib import Path

from absl import flags

from experiments import cli

WORKDIR = flags.DEFINE_string("workdir", None, "The workdir of a training run; evaluation.json goes there.")
SOURCE = flags.DEFINE_string("source", "", "What to evaluate: a folder or hub id of CLIP or BLIP; default: the run.")
SPLIT = flags.DEFINE_string("split", None, "The split; default: the config's val_split, or val.")
DATA = flags.DEFINE_string("data", "", "The data set's folder; default: the config's.")
PROTOCOL = flags.DEFINE_string(
    "protocol", "", "The data set's layout and protocol, cirr or imagecode; default: the config's."
)
CHECKPOINT = flags.DEFINE_string(
    "checkpoint",
    "",
    "best, newest or a step; default: the best where the run's training.best names one, else the newest.",
)
BASELINES = flags.DEFINE_bool("baselines", True, "Score image only, text only and their sum (or itc and itm) too.")


def main() -> None:
    """System and data -> ranks -> evaluation.json and a table."""
    evaluate(
        Path(cli.required(WORKDIR)), source=SOURCE.value, split=SPLIT.value, folder=DATA.value, protocol=PROTOCOL.value,
        baselines=BASELINES.value, checkpoint=CHECKPOINT.value,
    )  # fmt: skip


def evaluate(workdir: Path, *, source: str = "", split: str | None = None, folder: str = "", protocol: str = "",
             baselines: bool = True, checkpoint: str = "") -> dict:  # fmt: skip
    """Evaluates and returns what it writes: evaluation.json, for other splits and data evaluation.*.json."""
    import json

    import contextjax
    from contextjax.types import UserError
    from data_pipelines.candidate_ops import cleaned
    from data_pipelines.tables import write_atomically
    from experiments import assembly

    if source and not (folder and protocol):
        raise UserError("--data or --protocol is missing; a --source needs both, as --data=FOLDER --protocol=cirr.")
    system = contextjax.load(source or workdir, checkpoint=checkpoint)
    own = {"data": {"reader": "", "folder": "", "val_split": "val"}} if source else assembly.read_config(workdir)
    own_name, own_folder = ("", "") if source else assembly.evaluated(own)
    own = own["data"]
    name, chosen = protocol or own_name, str(split or own["val_split"])
    data = assembly.load_folder(name, folder or own_folder, chosen, size=system.image_size, fit=system.fit)
    if own.get("clean"):
        data = cleaned(data)
    is_default = name == own_name and chosen == own["val_split"]
    result = {"protocol": name, "split": chosen, "n_queries": len(data.records), "n_gallery": len(data.pictures)}
    result |= assembly.score(system, name, data, baselines=baselines)
    result["config_hash"], _, step = system.fingerprint.rpartition("-")
    result["step"] = int(step)
    file = (
        "evaluation.json"
        if is_default
        else f"evaluation.{name}.{chosen}.json"
        if protocol
        else f"evaluation.{chosen}.json"
    )
    write_atomically(workdir / file, json.dumps(result, indent=2) + "\n")
    print_tables(result)
    return result


def print_tables(result: dict) -> None:
    """The metrics, beside the baselines, then by kind."""
    ways = ("image", "text", "sum", "itc", "itm")
    beside = {f"{name} (same towers)" if name in ways else name: row for name, row in result["baselines"].items()}
    rows = {result["query"]: result["metrics"], **beside}
    columns = list(result["metrics"])
    print(
        f"{result['protocol']}, {result['split']}: {result['n_queries']} queries, {result['n_gallery']} pictures"
        + (f", step {result['step']}" if result["step"] else "")
    )
    for name, values in {"": dict.fromkeys(columns), **rows, **result["by_kind"]}.items():
        cells = (c if values.get(c, 0) is None else f"{values[c]:.1f}" if c in values else "" for c in columns)
        print(f"{name:<28}{''.join(f'{cell:>9}' for cell in cells)}")


if __name__ == "__main__":
    cli.run(main, doc=__doc__)
