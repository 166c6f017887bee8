"""Stage 2b of ContextBLIP: an epoch over ImageCoDe from cached features, and one that encodes the pictures again.

python -m experiments.comparisons.cached_speed [--pairs=3] [--batch=36] [--steps=20] [--sets=2] [--threads=2] [--size=BLIP-B]
    [--output=results/stage2b_cached.json]

A few steps of each are timed in turn and scaled to 16,594 descriptions: encoding them all takes hours on a CPU. Random
weights, pictures and vectors; the losses of both are compared first. No PyTorch here: both sides are this library's.
"""

import datetime
import json
from pathlib import Path

from absl import flags

from experiments.shared import cli

PAIRS = flags.DEFINE_integer("pairs", 3, "Rounds: a timing of each.", lower_bound=1)
BATCH = flags.DEFINE_integer("batch", 36, "Descriptions in a step on cached features.", lower_bound=1)
STEPS = flags.DEFINE_integer("steps", 20, "Steps on cached features in a timing.", lower_bound=1)
SETS = flags.DEFINE_integer("sets", 2, "Descriptions in a step on pictures, ten pictures each.", lower_bound=1)
SIZE = flags.DEFINE_enum("size", "BLIP-B", ["BLIP-B", "tiny"], "The model; tiny: to see that everything works.")
THREADS = flags.DEFINE_integer("threads", 2, "Threads.", lower_bound=1)
OUTPUT = flags.DEFINE_string("output", None, "A JSON file of every timing.")


def main() -> None:
    """Weights and data -> losses compared -> timings -> a table, and a JSON file."""
    from experiments.comparisons import measure

    measure.limit_threads(THREADS.value)
    kept = measure.keep_memory()
    import jax

    from experiments.comparisons import cached_compare

    sizes = {"batch": BATCH.value, "sets": SETS.value, "steps": STEPS.value}
    about = {
        "cpu": measure.cpu_model(),
        "threads": str(THREADS.value),
        "versions": f"jax {jax.__version__}",
        "model": SIZE.value,
        **cached_compare.notes(**sizes),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "freed memory": "kept" if kept else "given back",
    }
    print("\n".join(f"{key}: {value}" for key, value in about.items()), flush=True)
    found = cached_compare.compare(size=SIZE.value, pairs=PAIRS.value, **sizes)
    print(cached_compare.table(found))
    if OUTPUT.value:
        Path(OUTPUT.value).parent.mkdir(parents=True, exist_ok=True)
        Path(OUTPUT.value).write_text(json.dumps({**about, **found}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    cli.run(main)
