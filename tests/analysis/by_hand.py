"""FLOPs of CLIP's matrix products by hand, from its sizes: two for each multiply-add, nothing else counted."""

from contextjax.models.clip import CLIPConfig
from contextjax.models.text import TextConfig
from contextjax.models.vision import VisionConfig


def image_flops(c: VisionConfig, projection: int) -> float:
    """FLOPs of one picture's embedding."""
    patches = (c.image_size // c.patch_size) ** 2
    return _blocks(c, patches + 1) + _patch_embedding(c) + 2 * c.width * projection


def text_flops(c: TextConfig, projection: int, *, length: int) -> float:
    """FLOPs of one text's embedding; attention is counted whole, though causal."""
    return _blocks(c, length) + 2 * c.width * projection


def step_flops(c: CLIPConfig, batch: int, *, length: int) -> float:
    """FLOPs of a training step: the forward pass three times, less the gradient by the pixels, which nobody needs."""
    forward = image_flops(c.vision, c.projection) + text_flops(c.text, c.projection, length=length)
    return batch * (3 * forward - _patch_embedding(c.vision) + 3 * 2 * batch * c.projection)


def _blocks(c: VisionConfig | TextConfig, tokens: int) -> float:
    dense = 2 * tokens * (4 * c.width**2 + 2 * c.width * c.mlp)
    return c.layers * (dense + 2 * 2 * tokens**2 * c.width)


def _patch_embedding(c: VisionConfig) -> float:
    return 2 * (c.image_size // c.patch_size) ** 2 * 3 * c.patch_size**2 * c.width
