"""The fields of a config.json section, by their names there and here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contextjax.models.layers import ACTIVATIONS
from contextjax.types import UserError


class Fields:
    """Rows of (key in config.json, our field, what its own library takes where the key is left out)."""

    def __init__(self, *rows: tuple[str, str, Any]):
        self._rows = rows

    def read(self, section: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Our fields of a section.

        Raises:
          UserError: a value of another type than expected, an unknown activation, or heads that do not divide.
        """
        found = {}
        for key, ours, default in self._rows:
            value = section.get(key, default)
            if isinstance(default, float) and isinstance(value, int):
                value = float(value)
            if type(value) is not type(default):
                raise UserError(f"{where}.{key} is {value!r}; expected a value like {default!r}: check config.json.")
            found[ours] = value
        if found["activation"] not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise UserError(f"{where}.hidden_act is '{found['activation']}', which is not known; known are {known}.")
        if min(v for v in found.values() if isinstance(v, int)) < 1 or found["width"] % found["heads"]:
            raise UserError(f"{where} has sizes that make no model ({found}); check config.json.")
        return found

    def write(self, config: Any) -> dict[str, Any]:
        """The section of our config, every key written out."""
        return {key: getattr(config, ours) for key, ours, _ in self._rows if getattr(config, ours) is not None}
