"""Measures how fast a recipe runs here: steps/s, samples/s, FLOPs, MFU, data wait, time to the first step, memory.

python -m experiments.benchmark --config=configs/context_cir.py:B32 --mode=training --batch=16 --dtype=float32
    [--data=real] [--steps=5] [--sweep=256] [--output=FILE.json]
python -m experiments.benchmark --compare=BEFORE.json,AFTER.json
python -m experiments.benchmark --suite=accelerator --output=DIR

Weights are random (training on real data starts as the recipe does). Synthetic data are random pictures and texts in
the recipe's shapes; real ones come from its folder.
Training goes through `fit`, embedding through System.encode_gallery, evaluation through the evaluators. Utilisation is
of matrix products as they are written, beside the chip's data sheet and the fastest product in this very process.
--suite=accelerator runs a set of measurements on a GPU within --minutes; the same command continues it.
"""

import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path

from absl import flags

from contextjax.files import write_whole
from experiments.shared import cli, machine
from experiments.shared.paths import Place, check_path, define_path

BEGAN = time.perf_counter()
CONFIG = cli.define_config()
MODE = flags.DEFINE_enum("mode", "training", ["training", "embedding", "evaluation"], "The part that is run.")
DATA = flags.DEFINE_enum("data", "synthetic", ["synthetic", "real"], "The source of its inputs.")
STEPS = flags.DEFINE_integer("steps", 5, "Steps that count.", lower_bound=0)
BATCH = flags.DEFINE_integer("batch", None, "The global batch; default: the config's.", lower_bound=1)
DTYPE = flags.DEFINE_enum("dtype", None, ["float32", "bfloat16"], "Type of the computation; default: the config's.")
COMPILE = flags.DEFINE_bool("compile", True, "Time the first step in two more processes: nothing compiled, then all.")
SWEEP = flags.DEFINE_integer("sweep", 0, "Double the batch up to this, or to the largest that fits.", lower_bound=0)
COMPARE = flags.DEFINE_list("compare", [], "Two result files to compare instead.")
KEEP_MEMORY = flags.DEFINE_bool("keep_memory", True, "Have glibc keep freed memory; see experiments.shared.machine.")
SUITE = flags.DEFINE_enum("suite", None, ["accelerator", "accelerator_tiny"], "A list of cases; see DIR/suite.json.")
MINUTES = flags.DEFINE_float("minutes", 8.0, "The longest that a suite takes.", lower_bound=0.0)
OUTPUT = define_path("output", Place.NEW_PLACE, "A JSON file of the result or of a sweep's; a folder of a suite's.")
KEEPS_MEMORY = True


def main() -> None:
    """Runs the recipe, or a sweep of batches, and prints a table; with --compare it prints two results side by side."""
    from experiments.benchmarks import processes

    if COMPARE.value:
        from experiments.benchmarks.results import compare

        return print(compare(COMPARE.value))
    if OUTPUT.value:
        check_path(OUTPUT.value, Place.NEW_FOLDER if SUITE.value else Place.NEW_FILE, "--output")
    if SUITE.value:
        from experiments.benchmarks import suite

        return print(suite.run(SUITE.value, Path(cli.required(OUTPUT)), minutes=MINUTES.value))
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
        write_whole(Path(OUTPUT.value), json.dumps(records if SWEEP.value else records[0], indent=2) + "\n")
    return None


if __name__ == "__main__":
    cli.run(main)
