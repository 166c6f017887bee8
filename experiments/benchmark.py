"""How fast a recipe runs here: steps/s, samples/s, FLOPs, MFU, data wait, time to the first step, memory.

python -m experiments.benchmark --config=configs/context_cir.py:B32 --mode=training --batch=16 --dtype=float32
    [--data=real] [--steps=5] [--sweep=256] [--output=FILE.json]
python -m experiments.benchmark --compare=BEFORE.json,AFTER.json

Weights are random (training on real data starts as the recipe does). Synthetic data are random pictures and texts in
the recipe's shapes; real ones come from its folder.
Training goes through `fit`, embedding through System.encode_gallery, evaluation through the evaluators. Utilisation is
of matrix products as they are written, beside the chip's data sheet and the fastest product in this very process.
"""

import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path

from absl import flags

from contextjax.files import write_whole
from experiments.shared import cli, machine
from experiments.shared.paths import Place, define_path

BEGAN = time.perf_counter()
CONFIG = cli.define_config()
MODE = flags.DEFINE_enum("mode", "training", ["training", "embedding", "evaluation"], "The part that is run.")
DATA = flags.DEFINE_enum("data", "synthetic", ["synthetic", "real"], "The source of its inputs.")
STEPS = flags.DEFINE_integer("steps", 5, "Steps that count.", lower_bound=0)
BATCH = flags.DEFINE_integer("batch", None, "The global batch; default: the config's.", lower_bound=1)
DTYPE = flags.DEFINE_enum(
    "dtype", None, ["float32", "bfloat16"], "Number type of the computation; default: the config's."
)
COMPILE = flags.DEFINE_bool(
    "compile", True, "Time the first step in two further processes: nothing compiled, then all."
)
SWEEP = flags.DEFINE_integer("sweep", 0, "Double the batch up to this, or to the largest that fits.", lower_bound=0)
COMPARE = flags.DEFINE_list("compare", [], "Two result files to compare instead.")
KEEP_MEMORY = flags.DEFINE_bool("keep_memory", True, "Have glibc keep freed memory; see experiments.shared.machine.")
OUTPUT = define_path("output", Place.NEW_FILE, "A JSON file of the result; of a sweep, of its results.")
KEEPS_MEMORY = True


def main() -> None:
    """Runs the recipe, or a sweep of batches, and prints a table; with --compare it prints two results side by side."""
    from experiments.benchmarks import processes

    if COMPARE.value:
        from experiments.benchmarks.results import compare

        return print(compare(COMPARE.value))
    config = cli.required(CONFIG)
    config.data.batch_size = BATCH.value or config.data.batch_size
    config.model.dtype = DTYPE.value or config.model.dtype
    if SWEEP.value:
        records = list(processes.sweep(sys.argv[1:], batch=config.data.batch_size, largest=SWEEP.value))
    else:
        kept = KEEP_MEMORY.value and machine.keep_memory()  # before threads start
        from experiments.benchmarks.recorded_run import recorded_run

        about = {"config": flags.FLAGS["config"].config_filename, "freed_memory": "kept" if kept else "given back"}
        options = {"mode": MODE.value, "data": DATA.value, "steps": STEPS.value, "began": BEGAN}
        with processes.first_steps(sys.argv[1:]) if COMPILE.value else nullcontext({}) as first:
            records = [recorded_run(config, **options, **about) | first]
    from experiments.benchmarks.results import table

    print(table(records))
    if OUTPUT.value:
        text = json.dumps(records if SWEEP.value else records[0], indent=2)
        write_whole(Path(OUTPUT.value), text + "\n")
    return None


if __name__ == "__main__":
    cli.run(main)
