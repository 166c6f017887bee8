"""A stage-1 step of ContextBLIP (BLIP-B at 224, 30 tokens, BLIP frozen, AdamW on the rest), here and in PyTorch.

python -m experiments.comparisons.stage1_speed [--batch=8] [--pairs=5] [--threads=2] [--size=BLIP-B] [--output=FILE.json]

PyTorch's is the published recipe, written plainly on the BLIP modules of `transformers`; it projects keys and values of
a picture anew for each text that reads it, and ours once for all of them. Both have the same random weights, inputs and
draws (one negative picture and text each, masked position, noise), float32, no dropout; losses and gradient norms are
compared first, then alternating rounds, a process for each. Needs the extra `[torch]`.
"""

import json
import tempfile
from pathlib import Path

from absl import flags

from contextjax.types import UserError
from experiments.shared import cli

BATCH = flags.DEFINE_integer("batch", 8, "Captions, a picture each.", lower_bound=2)
PAIRS = flags.DEFINE_integer("pairs", 5, "Rounds: a timing of each step.", lower_bound=1)
SIZE = flags.DEFINE_enum("size", "BLIP-B", ["BLIP-B", "tiny"], "The model; tiny: to see that everything works.")
THREADS = flags.DEFINE_integer("threads", 2, "Threads of both.", lower_bound=1)
OUTPUT = flags.DEFINE_string("output", None, "A JSON file of every timing.")


def main() -> None:
    """Weights and batch -> losses compared -> timings -> tables, and a JSON file."""
    from experiments.comparisons import measure

    measure.limit_threads(THREADS.value)  # before the processes start, which inherit it
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise UserError(f"{error.name} is not installed; pip install '.[torch]' has it.") from error
    from experiments.comparisons import clip_compare, stage1_compare

    about = clip_compare.about(THREADS.value) | {"model": SIZE.value, "batch": f"{BATCH.value} captions"}
    about |= stage1_compare.NOTES
    print("\n".join(f"{key}: {value}" for key, value in about.items()), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        found = stage1_compare.compare(
            Path(folder), size=SIZE.value, batch=BATCH.value, pairs=PAIRS.value, threads=THREADS.value
        )
    print(stage1_compare.table(found))
    if OUTPUT.value:
        Path(OUTPUT.value).parent.mkdir(parents=True, exist_ok=True)
        Path(OUTPUT.value).write_text(json.dumps({**about, **found}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    cli.run(main)
