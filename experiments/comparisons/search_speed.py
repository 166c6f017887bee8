"""The speed of exact search beside FAISS (IndexFlatIP), one query beside the memory's read bandwidth, and recall.

python -m experiments.comparisons.search_speed [--rows=200000] [--dimension=512] [--batch=256] [--rounds=5] [--threads=2]
    [--output=results/search_speed.json]

Random unit vectors: no neighbour is near, so the best of them lie close together, which is hard on int8. All timings
are of one run, in turn. FAISS comes with the extra [peers].
"""

import datetime
import json
from pathlib import Path

from absl import flags

from experiments.shared import cli

ROWS = flags.DEFINE_integer("rows", 200_000, "Vectors in the index.", lower_bound=1000)
DIMENSION = flags.DEFINE_integer("dimension", 512, "Of the vectors.", lower_bound=1)
BATCH = flags.DEFINE_integer("batch", 256, "Queries of a batch.", lower_bound=1)
TOP = flags.DEFINE_integer("top", 10, "Neighbours that are asked for.", lower_bound=1)
ROUNDS = flags.DEFINE_integer("rounds", 5, "Timings of each.", lower_bound=1)
THREADS = flags.DEFINE_integer("threads", 2, "Threads of both.", lower_bound=1)
SECONDS = flags.DEFINE_float("seconds", 1.5, "That a timing takes at least.", lower_bound=0)
OUTPUT = flags.DEFINE_string("output", None, "A JSON file of every timing.")


def main() -> None:
    """Vectors -> answers compared -> timings -> a table, and a JSON file."""
    from experiments.comparisons import measure

    measure.limit_threads(THREADS.value)
    import faiss
    import jax

    from experiments.comparisons import search_case

    faiss.omp_set_num_threads(THREADS.value)
    sizes = {"rows": ROWS.value, "dimension": DIMENSION.value, "batch": BATCH.value, "top": TOP.value}
    about = {
        "cpu": measure.cpu_model(),
        "threads": THREADS.value,
        "versions": f"jax {jax.__version__}, faiss {faiss.__version__}",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        **sizes,
    }
    print("\n".join(f"{key}: {value}" for key, value in about.items()), flush=True)
    found = search_case.compare(**sizes, rounds=ROUNDS.value, seconds=SECONDS.value, threads=THREADS.value)
    print(search_case.table(found))
    if OUTPUT.value:
        Path(OUTPUT.value).parent.mkdir(parents=True, exist_ok=True)
        Path(OUTPUT.value).write_text(json.dumps({**about, **found}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    cli.run(main)
