"""What the forms of the contrastive loss hold and send on several devices: a table of compiled programs.

python -m experiments.contrastive [--devices=2,4,8] [--batches=1024,32768] [--width=512] [--chunk=512] [--output=FILE]

Value and gradients (of queries, targets, negatives and temperature) of a global batch with as many negatives as
queries are compiled for simulated CPU devices, and never run. Figures are of one device: the program's temporary memory
(the embeddings themselves are its arguments), and the bytes it sends. The formula is what targets and negatives take:
all of them from every other device, 3 times (the ring: forward, backward, and their gradients; gathered: an all-gather
and, of the gradients, an all-reduce, which backends with reduce-scatters make 2) or 2 times (chunked).
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags

from contextjax.files import write_whole
from experiments.shared import cli, simulation

DEVICES = flags.DEFINE_list("devices", ["2", "4", "8"], "Numbers of devices.")
BATCHES = flags.DEFINE_list("batches", [str(2**i) for i in range(10, 16)], "Queries in a global batch.")
WIDTH = flags.DEFINE_integer("width", 512, "Of the embeddings.", lower_bound=1)
CHUNK = flags.DEFINE_integer(
    "chunk", 512, "Side of the blocks of logits of the chunked and the ring form.", lower_bound=1
)
OUTPUT = flags.DEFINE_string("output", None, "A JSON file of all figures.")
TIMES = {"gathered": 3, "chunked": 2, "ring": 3}  # that the embeddings of a device go to every other


def main() -> None:
    """A row for every number of devices, batch and form."""
    devices, batches = ([_number(x) for x in flag.value] for flag in (DEVICES, BATCHES))
    simulation.simulate_devices(max(devices))
    from contextjax.sharding import make_mesh
    from experiments.shared.contrastive import contrastive_form

    rows = []
    print(
        "| devices | batch | form | temporary MB | sent MB | formula MB | ratio |\n"
        + "|---:|---:|---|---:|---:|---:|---:|"
    )
    for count in devices:
        mesh = make_mesh("data:-1", devices=count)
        for batch in (batch for batch in batches if batch % count == 0):
            for name in TIMES:
                form = contrastive_form(name, CHUNK.value if name != "gathered" else 0, mesh)
                row = {"devices": count, "batch": batch, "form": name, **measure(form, mesh, batch, WIDTH.value)}
                row["formula"] = TIMES[name] * (count - 1) * 2 * batch // count * WIDTH.value * 4
                rows.append(row)
                figures = " | ".join(f"{row[key] / 1e6:,.1f}" for key in ("temporary", "sent", "formula"))
                print(f"| {count} | {batch} | {name} | {figures} | {row['sent'] / row['formula']:.3f} |", flush=True)
    _print_growth(rows)
    if OUTPUT.value:
        found = {"width": WIDTH.value, "chunk": CHUNK.value, "rows": rows}
        write_whole(Path(OUTPUT.value), json.dumps(found, indent=2) + "\n")


def measure(form: Callable[..., Any], mesh: Any, batch: int, width: int) -> dict[str, Any]:
    """Bytes of a device: "temporary", "sent", and what is sent by kind of collective."""
    import jax
    import jax.numpy as jnp

    from contextjax.analysis.collectives import bytes_sent, collectives
    from contextjax.sharding import place_abstract

    def mean(embeddings, temperature, valid, ids):
        query, target, negatives = embeddings
        total, count = form(
            query, target, temperature=temperature, valid=valid, target_ids=ids, negatives=negatives, negative_ids=ids,
            mask_false_negatives=True,
        )  # fmt: skip
        return total / count

    shape = jax.ShapeDtypeStruct
    rows = place_abstract(
        [*[shape((batch, width), jnp.float32)] * 3, shape((batch,), bool), shape((batch,), jnp.int32)], mesh
    )
    inputs = tuple(rows[:3]), shape((), jnp.float32), *rows[3:]
    outputs = None, (tuple(x.sharding for x in rows[:3]), None)
    program: Any = jax.jit(jax.value_and_grad(mean, argnums=(0, 1)), out_shardings=outputs).lower(*inputs).compile()
    kinds = bytes_sent(collectives(program.as_text()))
    found = {name: size for name, size in kinds.items() if size}
    return {"temporary": program.memory_analysis().temp_size_in_bytes, "sent": sum(kinds.values()), "kinds": found}


def _print_growth(rows: list[dict[str, Any]]) -> None:
    """The ring's memory at the same batch per device, over numbers of devices."""
    sizes: dict[int, dict[int, int]] = {}
    for row in rows:
        if row["form"] == "ring":
            sizes.setdefault(row["batch"] // row["devices"], {})[row["devices"]] = row["temporary"]
    for each, found in sorted(sizes.items()):
        if len(found) > 1:
            spread = max(found.values()) / min(found.values()) - 1
            print(f"ring, {each} queries a device: {found} temporary bytes over devices, {spread:.2%} apart")


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        from contextjax.types import UserError

        raise UserError(f"'{text}' is no number of devices or queries; give numbers above 1, as --devices=2,4.")
    return int(text)


if __name__ == "__main__":
    cli.run(main)
