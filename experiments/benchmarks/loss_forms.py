"""Costs of the forms of the contrastive loss, from programs that are compiled for simulated devices and never run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from contextjax.analysis.collectives import bytes_sent, collectives
from contextjax.sharding import make_mesh, place_abstract
from experiments.shared.loss_form import contrastive_form

TIMES = {"gathered": 3, "chunked": 2, "ring": 3}  # how often a device's embeddings go to every other device
HEAD = (
    "| devices | batch | form | temporary MB | sent MB | formula MB | ratio |\n"
    "|---:|---:|---|---:|---:|---:|---:|"
)  # fmt: skip


def cost_rows(devices: Sequence[int], batches: Sequence[int], *, width: int, chunk: int) -> Iterator[dict[str, Any]]:
    """Yields the costs of every form at every number of devices and batch that it divides, in bytes of one device."""
    for count in devices:
        mesh = make_mesh("data:-1", devices=count)
        for batch in (batch for batch in batches if batch % count == 0):
            for name, times in TIMES.items():
                form = contrastive_form(name, chunk if name != "gathered" else 0, mesh)
                formula = times * (count - 1) * 2 * batch // count * width * 4
                about = {"devices": count, "batch": batch, "form": name}
                yield about | cost_of_form(form, mesh, batch, width) | {"formula": formula}


def cost_of_form(
    form: Callable[..., Any], mesh: Any, batch: int, width: int, options: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Returns bytes of a device: "temporary", "sent", and "kinds", the bytes sent by kind of collective.

    `options` are those of the compiler.
    """

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
    lowered = jax.jit(jax.value_and_grad(mean, argnums=(0, 1)), out_shardings=outputs).lower(*inputs)
    program: Any = lowered.compile(compiler_options=options)
    kinds = bytes_sent(collectives(program.as_text()))
    used = {name: size for name, size in kinds.items() if size}
    return {"temporary": program.memory_analysis().temp_size_in_bytes, "sent": sum(kinds.values()), "kinds": used}


def table_row(row: dict[str, Any]) -> str:
    """Returns the Markdown row of one form."""
    figures = " | ".join(f"{row[key] / 1e6:,.1f}" for key in ("temporary", "sent", "formula"))
    ratio = row["sent"] / row["formula"]
    return f"| {row['devices']} | {row['batch']} | {row['form']} | {figures} | {ratio:.3f} |"


def ring_growth(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Returns a line on the ring's memory for each batch per device that has several numbers of devices."""
    sizes: dict[int, dict[int, int]] = {}
    for row in rows:
        if row["form"] == "ring":
            sizes.setdefault(row["batch"] // row["devices"], {})[row["devices"]] = row["temporary"]
    spread = lambda temporary: max(temporary.values()) / min(temporary.values()) - 1
    return [
        f"ring, {each} queries a device: {temporary} temporary bytes over devices, {spread(temporary):.2%} apart"
        for each, temporary in sorted(sizes.items())
        if len(temporary) > 1
    ]
