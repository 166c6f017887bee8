"""The loss that a config asks for: the weights of its terms, and the form of the contrastive one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from contextjax.losses.contrastive import contrastive_loss
from contextjax.losses.sigmoid import sigmoid_loss
from contextjax.pretrained import towers
from contextjax.sharding import make_mesh, map_over_devices
from contextjax.types import UserError

FORMS = ("gathered", "chunked", "ring")


def loss_weights(config: Any) -> dict[str, float]:
    """Returns the weights of the loss terms that take part: those that are not zero."""
    return {name: weight for name, weight in config.loss.weights.items() if weight}


def pair_loss(config: Any, model: Any, mesh: Any = None) -> Callable[..., Any]:
    """Returns the loss of pairs that a config asks for, InfoNCE or SigLIP's, in its form.

    `mesh` is that of the step; None: the config's, of this machine's devices.

    Raises:
      UserError: see `contrastive_form`; or the model has no bias for SigLIP's loss, or only one direction is wanted.
    """
    loss = config.loss
    if loss.sigmoid and not getattr(towers(model.config), "is_siglip", False):
        raise UserError(
            "loss.sigmoid is True, but only a SigLIP's towers have the learned bias that it needs; set it to False, or "
            "choose a SigLIP, as the variant SigLIP-B16."
        )
    if loss.sigmoid and loss.get("one_direction"):
        raise UserError("loss.one_direction is for InfoNCE; a pair of SigLIP's loss has no direction: set it to False.")
    own = sigmoid_loss if loss.sigmoid else contrastive_loss
    return contrastive_form(loss.contrastive, loss.chunk, mesh or config.mesh, loss=own)


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
