"""Foreign checkpoints in and out: one name table per family, nothing left over, nothing missing."""

from contextjax.pretrained.read import Pretrained, abstract_params, locate, read_own, read_pretrained, towers
from contextjax.pretrained.write import write_own, write_pretrained

__all__ = [
    "Pretrained", "abstract_params", "locate", "read_own", "read_pretrained", "towers", "write_own", "write_pretrained",
]  # fmt: skip
