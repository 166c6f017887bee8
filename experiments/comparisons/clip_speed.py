"""CLIP ViT-B/32 beside PyTorch: images/s, forward and training step, in alternating rounds of one run.

python -m experiments.comparisons.clip_speed [--pairs=7] [--rows=forward-8-float32,...] [--threads=2] [--output=FILE.json]

Both get the same random weights and inputs; outputs are compared first. Needs the extra `[torch]`.
"""

import tempfile
from pathlib import Path

from absl import flags

from contextjax.types import UserError
from experiments.shared import cli

ROWS_ = [f"{name}-{dtype}" for dtype in ("float32", "bfloat16") for name in ("forward-8", "forward-32", "step-16")]
PAIRS = flags.DEFINE_integer("pairs", 7, "Rounds: a timing of each library and of a large matmul.", lower_bound=1)
ROWS = flags.DEFINE_list("rows", ROWS_, "What is timed: {forward,step}-BATCH-{float32,bfloat16}.")
SECONDS = flags.DEFINE_float("seconds", 1.5, "The least time of one timing.", lower_bound=0.0)
THREADS = flags.DEFINE_integer("threads", 2, "Threads of both.", lower_bound=1)
KEEP_MEMORY = flags.DEFINE_bool("keep_memory", True, "Have glibc keep freed memory, for both; see measure.keep_memory.")
OUTPUT = flags.DEFINE_string("output", None, "A JSON file of every timing.")


def main() -> None:
    """Rows -> timings -> a table, and a JSON file."""
    from experiments.comparisons import measure

    wanted = [_parse(row) for row in ROWS.value]
    measure.limit_threads(THREADS.value)
    kept = KEEP_MEMORY.value and measure.keep_memory()
    try:
        import torch
        import transformers  # noqa: F401
    except ImportError as error:
        raise UserError(f"{error.name} is not installed; pip install '.[torch]' has it.") from error
    torch.set_num_threads(THREADS.value)
    from experiments.comparisons import clip_compare

    about = clip_compare.about(THREADS.value) | {"freed memory": "kept" if kept else "given back"}
    print("\n".join(f"{key}: {value}" for key, value in about.items()), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        rows = clip_compare.compare(Path(folder), wanted, pairs=PAIRS.value, seconds=SECONDS.value)
    print(measure.table(rows))
    if OUTPUT.value:
        clip_compare.write(Path(OUTPUT.value), about, rows)


def _parse(row: str) -> tuple[str, int, str]:
    name, _, rest = row.partition("-")
    batch, _, dtype = rest.partition("-")
    if name not in ("forward", "step") or not batch.isdigit() or dtype not in ("float32", "bfloat16"):
        raise UserError(
            f"--rows has '{row}'; expected {{forward,step}}-BATCH-{{float32,bfloat16}}, as forward-8-float32."
        )
    return name, int(batch), dtype


if __name__ == "__main__":
    cli.run(main)
