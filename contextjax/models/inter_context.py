"""Inter-context encoder: the vectors of a set's candidates attend to each other (ContextBLIP, stage 2b)."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from contextjax.models.layers import dense, logical
from contextjax.models.linear import spread
from contextjax.models.multimodal import BertBlock
from contextjax.types import UserError


class InterContextEncoder(nn.Module):
    """Post-LN BERT blocks over the candidates of a set; positions are added where they follow each other in time.

    With `relative`, the difference of a candidate from the mean of its set is added to it by a Linear. With
    `reads_text`, the candidates attend to a token of the text too. Neither is in the paper.
    """

    layers: int = 2
    heads: int = 8
    positions: int = 10
    dropout: float = 0.1  # applies where `apply` is given a "dropout" key
    relative: bool = False
    reads_text: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "s k w"],
        valid: Bool[Array, "s k"],
        ordered: Bool[Array, " s"],
        text: Float[Array, "s w"],
    ) -> Float[Array, "s k w"]:
        """Returns states of the candidates.

        Args:
          features: the vector of each candidate that the selection reads, see `models.context_blip`.
          valid: False for padding, which no candidate attends to.
          ordered: True where the candidates follow each other in time.
          text: a state of each set's text.

        Raises:
          UserError: a set has more candidates than there are positions.
        """
        count, width = features.shape[1:]
        if count > self.positions:
            raise UserError(
                f"A set has {count} candidates and the inter-context encoder {self.positions} positions; "
                "train it with --config.model.context_positions as large as the largest set."
            )
        x = features
        if self.relative:
            real = valid[..., None]
            mean = (features * real).sum(1, keepdims=True) / jnp.maximum(real.sum(1, keepdims=True), 1)
            x = x + dense(width, ("embed", None), name="relative", dtype=self.dtype)(features - mean)
        normal = nn.initializers.normal(0.02)
        table = self.param("position_embedding", logical(normal, None, "embed"), (self.positions, width))
        x = x + ordered[:, None, None] * spread(table[:count], x)
        if self.reads_text:
            token = dense(width, ("embed", None), name="text", dtype=self.dtype)(text)
            x = jnp.concatenate([x, token[:, None]], axis=1)
            valid = jnp.concatenate([valid, jnp.ones((valid.shape[0], 1), bool)], axis=1)
        for i in range(self.layers):
            block = BertBlock(self.heads, 4 * width, "gelu", 1e-12, self.dtype, self.dropout, name=f"layer_{i}")
            x, *_ = block((x, None, None), valid[:, None, None, :])
        return x[:, :count]
