"""The fields of a section of config.json, by their names there and in our configs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contextjax.models.layers import ACTIVATIONS
from contextjax.types import UserError


class Fields:
    """The fields of a transformer tower: rows of (key in config.json, our field, transformers' default)."""

    def __init__(
        self, *rows: tuple[str, str, Any], width: int, heads: int, mlp: int, activation: str, epsilon: float = 1e-5,
        layers: int = 12,
    ):  # fmt: skip
        """Adds `rows` to the fields that all towers have, whose defaults are the other arguments."""
        self._rows = (
            *rows,
            ("hidden_size", "width", width),
            ("num_hidden_layers", "layers", layers),
            ("num_attention_heads", "heads", heads),
            ("intermediate_size", "mlp", mlp),
            ("hidden_act", "activation", activation),
            ("layer_norm_eps", "epsilon", epsilon),
        )

    def read(self, section: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Returns our fields of a section; `where` names it in messages.

        Raises:
          UserError: a value of another type than expected, an unknown activation, or heads that do not divide.
        """
        fields = {}
        for key, ours, default in self._rows:
            value = section.get(key, default)
            if key in ("image_size", "patch_size") and isinstance(value, list) and value:
                if value != [value[0]] * 2:
                    raise UserError(f"{where}.{key} is {value!r}; expected a number, or two equal ones.")
                value = value[0]
            if isinstance(default, float) and isinstance(value, int):
                value = float(value)
            if type(value) is not type(default):
                raise UserError(f"{where}.{key} is {value!r}; expected a value like {default!r}: check config.json.")
            fields[ours] = value
        if fields["activation"] not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise UserError(f"{where}.hidden_act is '{fields['activation']}', which is not known; known are {known}.")
        if min(v for v in fields.values() if isinstance(v, int)) < 1 or fields["width"] % fields["heads"]:
            raise UserError(f"{where} has sizes that make no model ({fields}); check config.json.")
        return fields

    def write(self, config: Any) -> dict[str, Any]:
        """Returns the section of config.json of one of our configs, every key written out."""
        return {key: getattr(config, ours) for key, ours, _ in self._rows if getattr(config, ours) is not None}
