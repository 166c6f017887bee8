"""The memory and bytes sent of each form of the contrastive loss on several devices, from compiled programs.

python -m experiments.contrastive [--devices=2,4,8] [--batches=1024,32768] [--width=512] [--chunk=512] [--output=FILE]

Value and gradients (of queries, targets, negatives and temperature) of a global batch with as many negatives as
queries are compiled for simulated CPU devices, and never run. Figures are of one device: the program's temporary memory
(the embeddings themselves are its arguments), and the bytes it sends. The formula counts the sends of targets and
negatives: all of them from every other device, 3 times (the ring: forward, backward, and their gradients; gathered: an
all-gather and, of the gradients, an all-reduce, which backends with reduce-scatters make 2) or 2 times (chunked).
"""

import json
from pathlib import Path

from absl import flags

from contextjax.files import write_whole
from contextjax.types import UserError
from experiments.shared import cli, simulation
from experiments.shared.paths import Place, define_path

DEVICES = flags.DEFINE_list("devices", ["2", "4", "8"], "Numbers of devices.")
BATCHES = flags.DEFINE_list("batches", [str(2**i) for i in range(10, 16)], "Queries in a global batch.")
WIDTH = flags.DEFINE_integer("width", 512, "Width of the embeddings.", lower_bound=1)
CHUNK = flags.DEFINE_integer(
    "chunk", 512, "Side of the blocks of logits of the chunked and the ring form.", lower_bound=1
)
OUTPUT = define_path("output", Place.NEW_FILE, "A JSON file of all figures.")


def main() -> None:
    """Prints a row for every number of devices, batch and form."""
    devices, batches = ([_number(x) for x in flag.value] for flag in (DEVICES, BATCHES))
    simulation.simulate_devices(max(devices))
    from experiments.benchmarks import loss_forms

    rows = []
    print(loss_forms.HEAD)
    for row in loss_forms.cost_rows(devices, batches, width=WIDTH.value, chunk=CHUNK.value):
        rows.append(row)
        print(loss_forms.table_row(row), flush=True)
    print("\n".join(loss_forms.ring_growth(rows)))
    if OUTPUT.value:
        figures = {"width": WIDTH.value, "chunk": CHUNK.value, "rows": rows}
        write_whole(Path(OUTPUT.value), json.dumps(figures, indent=2) + "\n")


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise UserError(f"'{text}' is no number of devices or queries; give numbers above 1, as --devices=2,4.")
    return int(text)


if __name__ == "__main__":
    cli.run(main)
