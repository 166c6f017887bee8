"""The cost of concepts: a ConText-CIR step (CLIP ViT-B/32) with and without the consistency loss, here and in PyTorch.

python -m experiments.comparisons.concepts_cost [--pairs=5] [--batch=16] [--phrases=3] [--naive=together,one_by_one]
    [--threads=2] [--output=FILE.json]

Here a picture is encoded once; the naive form, in PyTorch, runs the vision tower again for each phrase. Same random
weights and inputs, losses compared first, then alternating rounds. Needs the extra `[torch]`.
"""

import json
import tempfile
from pathlib import Path

from absl import flags

from contextjax.types import UserError
from experiments.shared import cli

PAIRS = flags.DEFINE_integer("pairs", 5, "Rounds: a timing of each step.", lower_bound=1)
BATCH = flags.DEFINE_integer("batch", 16, "References, with one modification each.", lower_bound=1)
PHRASES = flags.DEFINE_integer("phrases", 3, "Phrases of each modification.", lower_bound=1, upper_bound=6)
NAIVE = flags.DEFINE_multi_enum(
    "naive", ["together", "one_by_one"], ["together", "one_by_one"], "All phrases in one pass, or a pass for each."
)
THREADS = flags.DEFINE_integer("threads", 2, "Threads of both.", lower_bound=1)
OUTPUT = flags.DEFINE_string("output", None, "A JSON file of every timing.")


def main() -> None:
    """Weights and batch -> losses compared -> timings -> tables, and a JSON file."""
    from experiments.comparisons import measure

    measure.limit_threads(THREADS.value)
    kept = measure.keep_memory()
    try:
        import torch
        import transformers  # noqa: F401
    except ImportError as error:
        raise UserError(f"{error.name} is not installed; pip install '.[torch]' has it.") from error
    torch.set_num_threads(THREADS.value)
    from experiments.comparisons import clip_compare, concepts_compare

    about = clip_compare.about(THREADS.value) | {"freed memory": "kept" if kept else "given back"}
    about |= {"batch": f"{BATCH.value} references, {PHRASES.value} phrases a text"} | concepts_compare.NOTES
    print("\n".join(f"{key}: {value}" for key, value in about.items()), flush=True)
    names = {"together": concepts_compare.TOGETHER, "one_by_one": concepts_compare.ONE_BY_ONE}
    with tempfile.TemporaryDirectory() as folder:
        found = concepts_compare.compare(
            Path(folder),
            batch=BATCH.value,
            phrases=PHRASES.value,
            pairs=PAIRS.value,
            naive=[names[name] for name in names if name in NAIVE.value],
        )
    print(concepts_compare.table(found))
    if OUTPUT.value:
        Path(OUTPUT.value).parent.mkdir(parents=True, exist_ok=True)
        Path(OUTPUT.value).write_text(json.dumps({**about, **found}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    cli.run(main)
