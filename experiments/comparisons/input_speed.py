"""The speed of the input: files to uint8 batches beside Pillow's bare decoding and resizing, and what a step waits.

python -m experiments.comparisons.input_speed [--rounds=5] [--pictures=64] [--steps=20] [--output=results/input_speed.json]

All pictures are synthetic: smoothed noise with grain, as large and about as large in bytes as photographs. Bare Pillow
opens, converts to RGB and resizes the same bytes from memory, on the same single core and in the same rounds.
"""

import datetime
import json
from pathlib import Path

from absl import flags

from experiments.shared import cli

ROUNDS = flags.DEFINE_integer("rounds", 5, "Timings of each.", lower_bound=1)
PICTURES = flags.DEFINE_integer("pictures", 64, "Pictures of each kind.", lower_bound=8)
BATCH = flags.DEFINE_integer("batch", 16, "References in a batch, each with its target.", lower_bound=1)
STEPS = flags.DEFINE_integer("steps", 20, "Training steps timed; 0: none.", lower_bound=0)
OUTPUT = flags.DEFINE_string("output", None, "A JSON file of every timing.")


def main() -> None:
    """Pictures -> timings -> a table, and a JSON file."""
    import jax
    import PIL

    from experiments.comparisons import input_case, measure

    about = {
        "cpu": measure.cpu_model(),
        "versions": f"pillow {PIL.__version__}, jax {jax.__version__}",
        "pictures": f"{PICTURES.value} synthetic ones of each kind; batches of {BATCH.value} x 2",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
    }
    print("\n".join(f"{key}: {value}" for key, value in about.items()), flush=True)
    found = input_case.compare(
        pictures=PICTURES.value, batch=BATCH.value, rounds=ROUNDS.value, training_steps=STEPS.value
    )
    print(input_case.table(found))
    if OUTPUT.value:
        Path(OUTPUT.value).parent.mkdir(parents=True, exist_ok=True)
        Path(OUTPUT.value).write_text(json.dumps({**about, **found}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    cli.run(main)
