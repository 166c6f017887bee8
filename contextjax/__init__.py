"""contextjax: composed and contextual image retrieval in JAX. Importing it does not import jax."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"
_PUBLIC = {"load": "loading", "System": "system", "UserError": "types"}
__all__ = ["System", "UserError", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"contextjax.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'contextjax' has no attribute '{name}'")
