"""Names and config of the published implementation of ConText-CIR (2026 revision)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from contextjax.models.context_cir import ContextCIRConfig
from contextjax.pretrained import clip
from contextjax.pretrained.names import ForeignTensors, Layout, NameTable, leading_ones, linear, norm

MARK = "vision_encoder.model."  # a tensor's name begins so


def published_config(
    names: Mapping[str, Any], config: Mapping[str, Any], pixels: Mapping[str, Any]
) -> ContextCIRConfig:
    """Returns the paper's settings; `config` is the CLIP's config.json, which is beside the weights."""
    blocks = {name.split(".")[1] for name in names if name.startswith("fusion_attn_norms.")}
    return ContextCIRConfig(clip.hf_config(config, pixels), fusion_layers=len(blocks))


def published_table(config: ContextCIRConfig) -> NameTable:
    """Returns the table of the published names. Zeros stand for CLIP's text projection and temperature."""
    table: dict[str, ForeignTensors] = {}
    for ours, source in clip.hf_table(config.clip).items():
        names = (name.replace("_model.", "_encoder.model.", 1) for name in source.names)
        table[f"clip/{ours}"] = ForeignTensors(tuple(names), source.layout)
    table["clip/logit_scale"] = _absent(())
    table["clip/text_projection/kernel"] = _absent((config.clip.text.width, config.clip.projection))
    for i in range(config.fusion_layers):
        ours = f"fusion_{i}"
        table |= norm(f"{ours}/cross_attention_norm", f"fusion_attn_norms.{i}")
        table |= _attention(f"{ours}/cross_attention", f"cross_attn_layers.{i}")
        table |= norm(f"{ours}/mlp_norm", f"fusion_ffn_norms.{i}")
        table |= linear(f"{ours}/mlp/up", f"fusion_ffns.{i}.0") | linear(f"{ours}/mlp/down", f"fusion_ffns.{i}.3")
    table["pooling/query"] = ForeignTensors(("attn_pooler.queries",), leading_ones(1))
    table |= _attention("pooling/attention", "attn_pooler.attention") | norm("pooling/norm", "attn_pooler.norm")
    return table | linear("query_projection", "query_projection")


def _attention(ours: str, theirs: str) -> dict[str, ForeignTensors]:
    rows: dict[str, ForeignTensors] = {}
    for name, their_name in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), ("out", "out_proj")):
        rows |= linear(f"{ours}/{name}", f"{theirs}.{their_name}")
    return rows


def _absent(shape: tuple[int, ...]) -> ForeignTensors:
    return ForeignTensors((), Layout(lambda: np.zeros(shape, np.float32), lambda x: []))
