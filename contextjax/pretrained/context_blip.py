"""Names and config of the published implementation of ContextBLIP, for each of its stages."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from contextjax.models.context_blip import ContextBLIPConfig
from contextjax.pretrained import blip
from contextjax.pretrained.names import SAME, ForeignTensors, NameTable, linear
from contextjax.pretrained.tensors import Tensor

MARK = "vision_adapter.up.fc.0.weight"  # a tensor's name ends so in every stage
TAPS = (3, 6, 9, 12)


def published_config(tensors: Mapping[str, Tensor], pixels: Mapping[str, Any]) -> ContextBLIPConfig:
    """Returns the paper's settings, with sizes read from the tensors."""
    own = {stage_one_name(name): tensor for name, tensor in tensors.items()}
    towers = blip.original_config(
        {name.removeprefix("pretrained_blip."): x for name, x in own.items() if name.startswith("pretrained_blip.")},
        pixels,
    )
    towers = dataclasses.replace(towers, vision=dataclasses.replace(towers.vision, taps=TAPS))
    count = lambda prefix: len({name.split(prefix)[1].split(".")[0] for name in own if name.startswith(prefix)})
    reduced, width = own["vision_adapter.down.0.fc.0.weight"].shape
    table = own.get("positional_emb.weight")
    return ContextBLIPConfig(
        towers,
        adapter_reduction=width // reduced,
        masking="pixels" if "mask_embed" in own else "none",
        selection="head" if "prediction_layer.weight" in own else "none",
        decoder_layers=count("visual_decoder.encoder.layer.") or 4,
        context_layers=count("transformer."),
        context_positions=10 if table is None else table.shape[0],
        fused_token=towers.text.vocabulary - 1,  # [ENC] was added last
    )


def published_table(config: ContextBLIPConfig) -> NameTable:
    """Returns the table of the published names of stage 1, and of what stages 2a and 2b add."""
    table: dict[str, ForeignTensors] = {}
    for ours, source in blip.original_table(config.blip).items():
        table[f"blip/{ours}"] = ForeignTensors(tuple(f"pretrained_blip.{name}" for name in source.names), source.layout)
    for i in range(len(config.blip.vision.taps)):
        table |= linear(f"adapter/down_{i}", f"vision_adapter.down.{i}.fc.0", bias=False)
    table |= linear("adapter/up", "vision_adapter.up.fc.0", bias=False)
    table["decoder/mask_embedding"] = ForeignTensors(("mask_embed",), SAME)
    table["decoder/position_embedding"] = ForeignTensors(("decoder_pos_embed.weight",), SAME)
    table |= blip.bert_layer("decoder/layer_{}", "visual_decoder.encoder.layer.{}")
    table |= linear("decoder/text_adapter/down", "text_adapter.fc.0", bias=False)
    table |= linear("decoder/text_adapter/up", "text_adapter.fc.2", bias=False)
    table |= linear("decoder/pixels", "recon_head") | linear("head", "prediction_layer")
    table["context/position_embedding"] = ForeignTensors(("positional_emb.weight",), SAME)
    return table | blip.bert_layer("context/layer_{}", "transformer.{}")


def stage_one_name(name: str) -> str:
    """Returns the name that a tensor of stage 2a ("blip.…") or 2b ("blip.blip.…") has in stage 1."""
    return re.sub(r"^(blip\.)+", "", name)
