"""Names of CLIP4Cir's published Combiner, which is a file beside its CLIP's weights."""

from __future__ import annotations

import dataclasses

from contextjax.models.clip import CLIPConfig
from contextjax.models.context_cir import ContextCIRConfig
from contextjax.pretrained.names import NameTable, linear

FILE = "combiner.safetensors"
MARK = "dynamic_scalar."  # a tensor's name begins so
NAMES = {
    "text_layer": "text_projection_layer", "image_layer": "image_projection_layer", "vector_layer": "combiner_layer",
    "output": "output_layer", "share_layer": "dynamic_scalar.0", "share": "dynamic_scalar.3",
}  # fmt: skip
PREFIX = "combiner."  # before these names, among those of a CLIP


def config_of(clip: CLIPConfig) -> ContextCIRConfig:
    """Returns the config of a CLIP with a Combiner, which sees pictures as it was trained to."""
    vision = dataclasses.replace(clip.vision, fit="targetpad")
    return ContextCIRConfig(dataclasses.replace(clip, vision=vision), query="combiner")


def table_of(clip: NameTable) -> NameTable:
    """Returns the table of a CLIP's names with those of the Combiner."""
    table = {f"clip/{ours}": source for ours, source in clip.items()}
    for ours, theirs in NAMES.items():
        table |= linear(f"combiner/{ours}", f"{PREFIX}{theirs}")
    return table
