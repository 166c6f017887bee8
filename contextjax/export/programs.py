"""The programs of an export: functions of a system's parameters, and the inputs that they are traced with."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from contextjax import programs
from contextjax.pretrained import towers
from contextjax.pretrained.names import flatten, own_table, unflatten, write
from contextjax.pretrained.read import change_towers
from contextjax.system import System
from contextjax.types import UserError

# The types of an export's parameters, and what a model computes in. int8: see contextjax.export.quantized.
DTYPES: Mapping[str, Any] = {"float32": None, "bfloat16": jnp.bfloat16, "float16": jnp.float16, "int8": None}


@dataclasses.dataclass(frozen=True)
class Input:
    """An input of a program; each axis is a size, or the name of one that is free."""

    name: str
    axes: tuple[int | str, ...]
    dtype: str


@dataclasses.dataclass(frozen=True)
class Program:
    """A function `call(params, *inputs)` that returns one array float32 of the axes `output`.

    `limits` are the largest sizes of its free axes, where there are such.
    """

    name: str
    call: Callable[..., Any]
    inputs: tuple[Input, ...]
    output: tuple[int | str, ...]
    limits: Mapping[str, int]

    def trace_inputs(self) -> list[jax.ShapeDtypeStruct]:
        """Returns abstract inputs with symbolic sizes."""
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
    """Returns the model as it is exported, and its parameters float32 by their names, with "." between the levels.

    Stacked layers are split into single ones, so that an export does not depend on how they were stored.

    Raises:
      UserError: an unknown dtype.
    """
    if dtype not in DTYPES:
        raise UserError(f"dtype is '{dtype}'; expected one of {', '.join(DTYPES)}.")
    config = change_towers(system.model.config, lambda tower: dataclasses.replace(tower, scan=False, remat="none"))
    flat = flatten(system.params)
    return type(system.model)(config, DTYPES[dtype]), write(own_table(flat), flat)


def tree_of(tensors: Mapping[str, Any]) -> Any:
    """Returns named parameters as the tree that a model takes."""
    return unflatten({name.replace(".", "/"): x for name, x in tensors.items()})


def make_programs(system: System, model: Any) -> list[Program]:
    """Returns the programs of a system, computed by `model`: the system's own, or the one that is exported."""
    size, config = system.image_size, towers(model.config)
    limits = {"tokens": config.text.positions}
    pictures = Input("pictures", ("batch", size, size, 3), "uint8")
    text = Input("ids", ("batch", "tokens"), "int32"), Input("mask", ("batch", "tokens"), "bool")
    embedding = ("batch", config.projection)
    query = functools.partial(programs.embed_query, model, mode=system.query)
    return [
        Program("query", query, (pictures, *text), embedding, limits),
        Program("gallery", functools.partial(programs.embed_gallery, model), (pictures,), embedding, limits),
        Program("text", functools.partial(programs.embed_text, model), text, embedding, limits),
        _scorer(system, model, limits),
    ]


def _scorer(system: System, model: Any, limits: Mapping[str, int]) -> Program:
    """Returns the program that scores K candidates by one text, [K].

    It has the text's propositions and the candidates' order as inputs where they are read.
    """
    size, config = system.image_size, model.config
    program: Callable[..., Any] = programs.score_sets
    score = functools.partial(program, model, mode=system.score)
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
        pictures, ids, mask, *short, ordered = (jnp.asarray(x)[None] for x in (pictures, ids, mask, *short, ordered))
        return score(params, pictures, ids, mask, *short, ordered, jnp.zeros(1, jnp.int32))[0]

    return Program("score", call, tuple(inputs), ("candidates",), limits)
