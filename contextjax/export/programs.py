"""The programs of a system: plain functions of its parameters, and the inputs that they are traced with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from contextjax.pretrained import towers
from contextjax.pretrained.names import flatten, own_table, unflatten, write
from contextjax.pretrained.read import change_towers
from contextjax.system import System, program
from contextjax.types import UserError

DTYPES: Mapping[str, Any] = {"float32": None, "bfloat16": jnp.bfloat16}


@dataclasses.dataclass(frozen=True)
class Input:
    """An input's name, axes (a size, or the name of one that is free) and type."""

    name: str
    axes: tuple[int | str, ...]
    dtype: str


@dataclasses.dataclass(frozen=True)
class Program:
    """`call(params, *inputs)` -> one array float32 of the axes `output`; `limits` of its free axes."""

    name: str
    call: Callable[..., Any]
    inputs: tuple[Input, ...]
    output: tuple[int | str, ...]
    limits: Mapping[str, int]

    def trace_inputs(self) -> list[jax.ShapeDtypeStruct]:
        """Abstract inputs with symbolic sizes."""
        free = list(dict.fromkeys(axis for x in self.inputs for axis in x.axes if isinstance(axis, str)))
        limits = [f"{axis} <= {limit}" for axis, limit in self.limits.items() if axis in free]
        sizes: dict[Any, Any] = dict(
            zip(free, jax.export.symbolic_shape(", ".join(free), constraints=limits), strict=True)
        )
        return [
            jax.ShapeDtypeStruct(tuple(sizes.get(axis, axis) for axis in x.axes), np.dtype(x.dtype))
            for x in self.inputs
        ]  # fmt: skip


def portable(system: System, dtype: str) -> tuple[Any, dict[str, np.ndarray]]:
    """The model as it is exported, and its parameters by our own names ("." between the parts), float32.

    Layers are one by one, whether they were stacked or not, so that an export says the same of both.
    """
    if dtype not in DTYPES:
        raise UserError(f"dtype is '{dtype}'; expected one of {', '.join(DTYPES)}.")
    config = change_towers(system.model.config, lambda tower: dataclasses.replace(tower, scan=False, remat="none"))
    flat = flatten(system.params)
    return type(system.model)(config, DTYPES[dtype]), write(own_table(flat), flat)


def tree_of(tensors: Mapping[str, Any]) -> Any:
    """The parameters as a model takes them."""
    return unflatten({name.replace(".", "/"): x for name, x in tensors.items()})


def make_programs(system: System, model: Any) -> list[Program]:
    """What a system can do, with `model` (the system's own, or the one that is exported)."""
    size, config = system.image_size, towers(model.config)
    limits = {"tokens": config.text.positions}
    pictures = Input("pictures", ("batch", size, size, 3), "uint8")
    text = Input("ids", ("batch", "tokens"), "int32"), Input("mask", ("batch", "tokens"), "bool")
    embedding = ("batch", config.projection)
    run = lambda name: lambda params, *inputs: program(model, name)(params, *inputs)
    return [
        Program("query", run(f"query:{system.query}"), (pictures, *text), embedding, limits),
        Program("gallery", run("gallery"), (pictures,), embedding, limits),
        Program("text", run("text"), text, embedding, limits),
        _scorer(system, model, limits),
    ]


def _scorer(system: System, model: Any, limits: Mapping[str, int]) -> Program:
    """K candidates and one text -> [K]; with the text's propositions and the candidates' order where they are read."""
    size, config, score = system.image_size, model.config, program(model, f"score:{system.score}")
    reads_order = system.score == "selection" and config.selection != "itc" and config.context_layers
    reads_propositions = system.score in ("selection", "itc") and bool(system.propositions[0])
    inputs = [
        Input("pictures", ("candidates", size, size, 3), "uint8"),
        Input("ids", ("tokens",), "int32"),
        Input("mask", ("tokens",), "bool"),
    ]
    if reads_propositions:
        length = system.propositions[1]
        inputs += [
            Input("proposition_ids", ("propositions", length), "int32"),
            Input("proposition_mask", ("propositions", length), "bool"),
        ]
    if reads_order:
        inputs.append(Input("ordered", (), "bool"))
        limits = {**limits, "candidates": config.context_positions}

    def call(params: Any, pictures: Any, ids: Any, mask: Any, *more: Any) -> Any:
        short = more[:2] if reads_propositions else (ids[None], mask[None])
        ordered = more[-1] if reads_order else jnp.zeros((), bool)
        one = (jnp.asarray(x)[None] for x in (pictures, ids, mask, *short, ordered))
        return score(params, *one, jnp.zeros(1, jnp.int32))[0]

    return Program("score", call, tuple(inputs), ("candidates",), limits)
