"""The loss that a config asks for: the weights of its terms, and the form of the contrastive one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from contextjax.losses.contrastive import contrastive_loss
from contextjax.sharding import make_mesh, map_over_devices
from contextjax.types import UserError

FORMS = ("gathered", "chunked", "ring")


def loss_weights(config: Any) -> dict[str, float]:
    """Returns the weights of the loss terms that take part: those that are not zero."""
    return {name: weight for name, weight in config.loss.weights.items() if weight}


def contrastive_form(
    name: str, chunk: int, mesh: Any, *, loss: Callable[..., Any] = contrastive_loss
) -> Callable[..., Any]:
    """Returns a loss of whole arrays in one of its forms, with its own signature; `mesh` is a mesh or its text.

    Raises:
      UserError: there is no such form, or it has no chunks of such a size.
    """
    if name not in FORMS:
        raise UserError(f"loss.contrastive is '{name}'; expected {', '.join(FORMS)}.")
    if chunk < 0 or (chunk and name == "gathered"):
        raise UserError(
            f"loss.chunk is {chunk} with loss.contrastive '{name}'; expected 0, or a positive number with 'chunked' or "
            "'ring'."
        )
    if name == "gathered":
        return loss
    return map_over_devices(
        functools.partial(loss, form=name, chunk=chunk), make_mesh(mesh) if isinstance(mesh, str) else mesh
    )
