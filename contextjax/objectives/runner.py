"""Applies a model's methods by their names."""

from __future__ import annotations

from typing import Any


def runner(model: Any, params: Any, dropout: Any = None) -> Any:
    """Returns a function (method, *inputs) that applies a method of the model, given by name or as a function.

    `dropout` is the key of what is dropped; None: nothing is.
    """
    rngs = {} if dropout is None else {"rngs": {"dropout": dropout}}

    def run(method: Any, *inputs: Any) -> Any:
        return model.apply({"params": params}, *inputs, method=method, **rngs)

    return run
