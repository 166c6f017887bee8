"""Evaluates a run: python -m experiments.evaluate --workdir=DIR [--split=val] [--data=DIR]. Writes evaluation.json."""

from pathlib import Path

from absl import flags

from experiments import cli

WORKDIR = flags.DEFINE_string("workdir", None, "The workdir of a training run.")
SPLIT = flags.DEFINE_string("split", None, "The split; default: the config's val_split.")
DATA = flags.DEFINE_string("data", "", "Another folder of the same layout; default: the config's.")
BASELINES = flags.DEFINE_bool(
    "baselines", True, "Score image only, text only and their sum by the run's own towers too."
)


def main() -> None:
    """Workdir -> ranks -> evaluation.json and a table."""
    workdir = Path(cli.required(WORKDIR))
    evaluate(workdir, split=SPLIT.value, folder=DATA.value, baselines=BASELINES.value)


def evaluate(workdir: Path, *, split: str | None = None, folder: str = "", baselines: bool = True) -> dict:
    """Evaluates the newest checkpoint; writes evaluation.json (other splits: evaluation.SPLIT.json) and returns it."""
    import json

    import contextjax
    from contextjax.evaluation import evaluate_retrieval
    from data_pipelines.tables import write_atomically
    from experiments import assembly

    system = contextjax.load(workdir)
    config = assembly.read_config(workdir)
    split = str(split or config.data.val_split)
    data = assembly.load_data(config, split, folder=folder)
    protocol = assembly.PROTOCOLS[config.data.reader]
    main_query = system.model.config.query
    queries = [main_query, *(("image", "text", "sum") if baselines and main_query == "fusion" else ())]
    found = {q: evaluate_retrieval(system.with_query(q), protocol, data.records, data.pictures) for q in queries}
    config_hash, _, step = system.fingerprint.rpartition("-")
    result = {
        "protocol": protocol.name,
        "split": split,
        "n_queries": len(data.records),
        "n_gallery": len(data.pictures),
        "query": main_query,
        "metrics": found[main_query].metrics(),
        "by_kind": found[main_query].by_kind(),
        "baselines": {q: found[q].metrics() for q in queries[1:]},
        "step": int(step),
        "config_hash": config_hash,
    }
    name = "evaluation.json" if split == config.data.val_split else f"evaluation.{split}.json"
    write_atomically(workdir / name, json.dumps(result, indent=2) + "\n")
    print_tables(result)
    return result


def print_tables(result: dict) -> None:
    """The metrics, beside the baselines, then by kind of edit."""
    rows = {result["query"]: result["metrics"], **{f"{q} (same towers)": m for q, m in result["baselines"].items()}}
    columns = list(result["metrics"])
    print(f"{result['protocol']}, {result['split']}: {result['n_queries']} queries, gallery {result['n_gallery']}")
    for name, values in {"": dict.fromkeys(columns), **rows, **result["by_kind"]}.items():
        cells = "".join(f"{(c if values[c] is None else f'{values[c]:.1f}'):>7}" for c in columns)
        print(f"{name:<20}{cells}")


if __name__ == "__main__":
    cli.run(main, doc=__doc__)
