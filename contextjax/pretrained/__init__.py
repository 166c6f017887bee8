"""Reads and writes published checkpoints: one name table for each family, no tensor left over, none missing."""

from contextjax.pretrained.read import Pretrained, abstract_params, locate, read_own, read_pretrained, towers
from contextjax.pretrained.write import write_own, write_pretrained

__all__ = [
    "Pretrained", "abstract_params", "locate", "read_own", "read_pretrained", "towers", "write_own", "write_pretrained",
]  # fmt: skip
