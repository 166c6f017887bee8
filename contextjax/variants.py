"""The size table of named towers, and the way from a recipe's `model` section to a SystemSpec and a module."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from contextjax.models import context_blip, context_cir
from contextjax.models.blip import BLIP, BLIPConfig
from contextjax.models.blip2 import BLIP2, BLIP2Config
from contextjax.models.clip import CLIP, CLIPConfig, check_towers
from contextjax.models.composed_blip import ComposedBLIP, ComposedBLIPConfig
from contextjax.models.context_blip import ContextBLIP, ContextBLIPConfig
from contextjax.models.context_cir import ContextCIR, ContextCIRConfig
from contextjax.models.covr2 import COPIES, CoVR2, CoVR2Config
from contextjax.models.layers import ACTIVATIONS, ATTENTIONS, REMATS
from contextjax.models.multimodal import BertConfig
from contextjax.models.qformer import QFormerConfig
from contextjax.models.text import TextConfig
from contextjax.models.vision import VisionConfig, check_image_size
from contextjax.spec import FITS, TOKEN_QUERIES, QueryMode, ScoreMode, SystemSpec, check_template, queries_of, scores_of
from contextjax.types import UserError

_TEXT_B = TextConfig(vocabulary=49408, positions=77, width=512, layers=12, heads=8, mlp=2048)
_TEXT_L = dataclasses.replace(_TEXT_B, width=768, heads=12, mlp=3072)
_TEXT_H = TextConfig(49408, 77, width=1024, layers=24, heads=16, mlp=4096, activation="gelu")
_BLIP_VISION = VisionConfig(
    224, 16, 768, 12, 12, 3072, activation="gelu", epsilon=1e-6, pre_norm=False, patch_bias=True, fit="squash",
    taps=(3, 6, 9, 12),
)  # fmt: skip
# EVA-CLIP's ViT-g. LAVIS's files have a LayerNorm with the epsilon 1e-5 behind it, config.json says 1e-6.
_EVA_G = VisionConfig(
    364, 14, 1408, 39, 16, 6144, activation="gelu", epsilon=1e-6, pre_norm=False, patch_bias=True, fit="squash"
)
# Small enough for two CPU cores, trained from scratch.
_VISION_S = VisionConfig(
    64, 16, 128, 3, 4, 512, stem=(4, 32), pooling="grid", position_std=0.7, mean=(1.0, 1.0, 1.0), std=(0.3, 0.3, 0.3)
)
_HALF = (0.5, 0.5, 0.5)


def _siglip(
    image_size: int, patch_size: int, width: int, layers: int, heads: int, mlp: int, *, vocabulary: int = 32_000,
    positions: int = 64, pad: int = 1, fit: str = "squash",
) -> CLIPConfig:  # fmt: skip
    """Returns a SigLIP whose two towers have the same sizes, as all published ones up to So400m have."""
    sizes: Any = {"width": width, "layers": layers, "heads": heads, "mlp": mlp, "activation": "gelu_pytorch_tanh"}
    return CLIPConfig(
        VisionConfig(
            image_size, patch_size, **sizes, epsilon=1e-6, pre_norm=False, patch_bias=True, pooling="attention",
            mean=_HALF, std=_HALF, fit=fit,
        ),
        TextConfig(vocabulary, positions, **sizes, epsilon=1e-6, pad_token=pad),
        width,
    )  # fmt: skip


_SIGLIP: Mapping[str, tuple[int, ...]] = {
    "B16": (224, 16, 768, 12, 12, 3072),
    "L16": (256, 16, 1024, 24, 16, 4096),
    "So400m14": (224, 14, 1152, 27, 16, 4304),
}
_POSITIONS = {"So400m14": 16}  # as published at 224 pixels
_SIGLIP_2: Any = {"vocabulary": 256_000, "pad": 0, "fit": "squash_bilinear"}  # Gemma's tokenizer

VARIANTS: Mapping[str, CLIPConfig | BLIPConfig | BLIP2Config] = {
    "B32": CLIPConfig(VisionConfig(224, 32, 768, 12, 12, 3072), _TEXT_B, 512),
    "B16": CLIPConfig(VisionConfig(224, 16, 768, 12, 12, 3072), _TEXT_B, 512),
    "L14": CLIPConfig(VisionConfig(224, 14, 1024, 24, 16, 4096), _TEXT_L, 768),
    "L14-336": CLIPConfig(VisionConfig(336, 14, 1024, 24, 16, 4096), _TEXT_L, 768),
    "H14": CLIPConfig(VisionConfig(224, 14, 1280, 32, 16, 5120, activation="gelu"), _TEXT_H, 1024),
    "S16": CLIPConfig(_VISION_S, TextConfig(vocabulary=1024, positions=36, width=128, layers=2, heads=4, mlp=512), 128),
    **{f"SigLIP-{name}": _siglip(*sizes, positions=_POSITIONS.get(name, 64)) for name, sizes in _SIGLIP.items()},
    **{f"SigLIP2-{name}": _siglip(*sizes, **_SIGLIP_2) for name, sizes in _SIGLIP.items()},
    "SigLIP-S16": _siglip(64, 16, 128, 3, 4, 512, vocabulary=1024, positions=36),
    "BLIP-B": BLIPConfig(_BLIP_VISION, BertConfig(30524, 512, 768, 12, 12, 3072), 256),
    "BLIP-S16": BLIPConfig(
        dataclasses.replace(_VISION_S, taps=(1, 2, 3)),
        BertConfig(vocabulary=1024, positions=64, width=128, layers=2, heads=4, mlp=512),
        128,
    ),
    "BLIP2-G": BLIP2Config(_EVA_G, QFormerConfig(30523, 512, 768, 12, 12, 3072), 256),
    "BLIP2-S16": BLIP2Config(
        _VISION_S, QFormerConfig(1024, 64, width=128, layers=4, heads=4, mlp=512, query_tokens=8), 128
    ),
}


@dataclasses.dataclass(frozen=True)
class Family:
    """A family of systems: its module, the classes of its config, and the allowed values of some fields."""

    module: Any
    config: Any
    towers: str  # the field of the config that holds the towers' config; "" where the config is that itself
    tower_config: Any
    text_config: Any
    choices: Mapping[str, tuple[str, ...]]
    copies: Mapping[str, str] = dataclasses.field(
        default_factory=dict
    )  # parameters -> those of the towers that they begin as

    @property
    def options(self) -> tuple[str, ...]:
        """The fields of the config beside the towers."""
        return tuple(f.name for f in dataclasses.fields(self.config) if f.name != self.towers) if self.towers else ()


FAMILIES: Mapping[str, Family] = {
    "context_cir": Family(
        ContextCIR, ContextCIRConfig, "clip", CLIPConfig, TextConfig,
        {"query": context_cir.QUERIES, "fusion_head": context_cir.HEADS, "fusion_activation": tuple(ACTIVATIONS)},
    ),
    "context_blip": Family(
        ContextBLIP, ContextBLIPConfig, "blip", BLIPConfig, BertConfig,
        {
            "adapter": context_blip.ADAPTERS,
            "masking": context_blip.MASKINGS,
            "selection": context_blip.SELECTIONS,
        },
    ),
    "composed_blip": Family(ComposedBLIP, ComposedBLIPConfig, "blip", BLIPConfig, BertConfig, {"query": ("composed",)}),
    "covr2": Family(CoVR2, CoVR2Config, "blip2", BLIP2Config, QFormerConfig, {"query": TOKEN_QUERIES}, COPIES),
    "clip": Family(CLIP, CLIPConfig, "", CLIPConfig, TextConfig, {}),
    "blip": Family(BLIP, BLIPConfig, "", BLIPConfig, BertConfig, {}),
    "blip2": Family(BLIP2, BLIP2Config, "", BLIP2Config, QFormerConfig, {}),
}  # fmt: skip
SYSTEMS: Mapping[str, Family] = {  # that are trained
    name: family for name, family in FAMILIES.items() if family.towers or name == "clip"
}
# The fields of towers that are at least 1.
SIZES = (
    "image_size", "patch_size", "width", "layers", "mlp", "vocabulary", "positions", "query_tokens", "cross_every",
)  # fmt: skip
LARGEST, DEEPEST = 1 << 24, 512  # of any size, and of a number of blocks; a larger one is a mistake


def resolve(section: Any) -> dict[str, Any]:
    """Returns a recipe's `model` section with every size of its towers, looked up by the variant's name.

    Args:
      section: `system` and `variant` (a name of VARIANTS; "" where all sizes are given), `vision`, `text` and
        `projection` (what to replace in the variant), and the options of the system's config.

    Raises:
      UserError: an unknown variant, one of the other system, or an unknown field of a tower.
    """
    if not section.variant:  # all sizes are given
        return {**section, "vision": _tuples(section.vision), "text": _tuples(section.text)}
    family = _choose("model.system", section.system, SYSTEMS)
    fitting = {name: towers for name, towers in VARIANTS.items() if isinstance(towers, family.tower_config)}
    variant = _choose("model.variant", section.variant, fitting)
    towers = {name: dataclasses.asdict(getattr(variant, name)) for name in ("vision", "text")}
    for name in towers:
        for key in section[name]:
            _choose(f"a field of model.{name}", key, towers[name])
        towers[name] |= _tuples(section[name])
    sizes = towers["vision"]["image_size"], towers["vision"]["patch_size"]
    if all(type(size) is int and size > 0 for size in sizes):  # `make_model` reports what is no size
        check_image_size(*sizes, "model.vision.image_size")
    return {**section, **towers, "projection": section.projection or variant.projection}


def make_spec(section: Any, *, vocabulary: int | None = None, text_length: int | None = None,
              propositions: tuple[int, int] = (0, 0)) -> SystemSpec:  # fmt: skip
    """Returns the spec of a recipe's `model` section, whether it is resolved already or not.

    Args:
      section: see `resolve`.
      vocabulary: the number of token ids, where the tokenizer was trained with the model.
      text_length: the most tokens that are read of a text; default: as many as the text tower has positions.
      propositions: see SystemSpec.

    Raises:
      UserError: see `resolve`.
    """
    sizes, family = resolve(section), _choose("model.system", section.system, SYSTEMS)
    text, options = sizes["text"], {name: sizes[name] for name in family.options}
    if vocabulary:
        text["vocabulary"] = vocabulary
    return SystemSpec(
        section.system, sizes["vision"], text, sizes["projection"], options,
        dtype=section.dtype, text_length=min(text_length or text["positions"], text["positions"]),
        propositions=propositions, query=options.get("query", "sum"), template=sizes.get("template", "{}"),
        score=scores_of(section.system, options, vocabulary=text["vocabulary"])[-1],
    )  # fmt: skip


def spec_of(
    model: Any, *, text_length: int | None = None, propositions: tuple[int, int] = (0, 0),
    query: QueryMode | None = None, score: ScoreMode | None = None, fingerprint: str = "", template: str = "{}",
) -> SystemSpec:  # fmt: skip
    """Returns the spec of a module, one of FAMILIES; see SystemSpec for the arguments.

    By default texts have as many tokens as the text tower has positions, and the system queries and scores as it is
    meant to.
    """
    name, family = next((name, each) for name, each in FAMILIES.items() if isinstance(model, each.module))
    towers = getattr(model.config, family.towers) if family.towers else model.config
    options = {option: getattr(model.config, option) for option in family.options}
    return SystemSpec(
        name, dataclasses.asdict(towers.vision), dataclasses.asdict(towers.text), towers.projection, options,
        dtype=np.dtype(model.dtype or np.float32).name, text_length=text_length or towers.text.positions,
        propositions=propositions, query=query or options.get("query", "sum"),
        score=score or scores_of(name, options, vocabulary=towers.text.vocabulary)[-1], fingerprint=fingerprint,
        template=template,
    )  # fmt: skip


def make_model(spec: SystemSpec) -> Any:
    """Returns the module of a spec, one of FAMILIES.

    Raises:
      UserError: a field is missing, unknown or of another type; an unknown choice; or sizes that make no model. Fields
        are called by their names in a recipe's `model` section.
    """
    family, options = FAMILIES[spec.family], spec.options
    vision = _make_tower(VisionConfig, spec.vision, "vision")
    text = _make_tower(family.text_config, spec.text, "text")
    if family.towers:
        _check_fields(family.config, {**options, family.towers: None}, "model", skipped=family.towers)
    for field, known in family.choices.items():
        _choose(f"model.{field}", options[field], dict.fromkeys(known))
    dtype = _choose("model.dtype", spec.dtype, {"float32": jnp.float32, "bfloat16": jnp.bfloat16})
    _check_sizes(spec, vision, text)
    towers = family.tower_config(vision, text, spec.projection)
    if isinstance(towers, CLIPConfig):
        check_towers(towers, "model.")
        if towers.is_siglip and options.get("query") == "pseudo_word":
            raise UserError(
                "model.query is 'pseudo_word', whose place in a text, *, SigLIP's tokenizer removes; choose another."
            )
    elif vision.pooling == "attention":
        raise UserError("model.vision.pooling is 'attention', which only a SigLIP has; choose 'cls' or 'grid'.")
    return family.module(family.config(**{family.towers: towers}, **options) if family.towers else towers, dtype)


def _check_sizes(spec: SystemSpec, vision: VisionConfig, text: Any) -> None:
    """Raises a UserError where the sizes of a spec do not fit each other."""
    options = spec.options
    if options.get("pooling_heads") and options["selection"] not in ("itc", "both"):
        raise UserError(
            f"model.pooling_heads is {options['pooling_heads']}, but model.selection is '{options['selection']}', "
            "which has no base score; set it to 0, or the selection to 'itc' or 'both'."
        )
    if options.get("pooling_heads") and spec.projection % options["pooling_heads"]:
        raise UserError(
            f"model.projection is {spec.projection}, which model.pooling_heads, {options['pooling_heads']}, does not "
            "divide; choose a multiple."
        )
    if (
        options.get("selection") == "adapted"
        and options["context_layers"]
        and spec.projection % options["context_heads"]
    ):
        raise UserError(
            f"model.projection is {spec.projection}, which model.context_heads, {options['context_heads']}, does not "
            "divide; choose a multiple: with model.selection 'adapted', embeddings attend to each other."
        )
    heads = [value for name, value in options.items() if name.endswith("_heads") and name != "pooling_heads"]
    for name, width, count in (
        ("vision", vision.width, vision.heads),
        ("text", text.width, text.heads),
        *(("vision", vision.width, count) for count in heads),
    ):
        if count < 1 or width % count:
            raise UserError(f"model.{name}.width is {width}, which {count} heads do not divide; choose a multiple.")
    if vision.stem and (vision.stem[0] < 1 or vision.patch_size % vision.stem[0]):
        raise UserError(
            f"model.vision.stem has blocks of {vision.stem[0]}, which do not fill patches of {vision.patch_size}; "
            "choose a divisor of model.vision.patch_size."
        )
    if options.get("adapter") == "taps" and not vision.taps:
        raise UserError("model.adapter is 'taps', but model.vision.taps names no block; give some, or another adapter.")
    if options.get("adapter", "none") != "none" and not 1 <= options["adapter_reduction"] <= vision.width:
        raise UserError(
            f"model.adapter_reduction is {options['adapter_reduction']}, and model.vision.width {vision.width}; "
            "expected a number from 1 to that."
        )
    if options.get("masking") == "pixels" and not options["decoder_layers"]:
        raise UserError(
            "model.masking is 'pixels', but model.decoder_layers is 0; give at least 1, or another masking."
        )
    for name in ("fused_token", "reverse_token"):
        if (options.get(name) or 0) >= text.vocabulary:
            raise UserError(
                f"model.{name} is {options[name]}, but the vocabulary has {text.vocabulary} ids; give one of them, or "
                "None."
            )
    if beyond := [tap for tap in vision.taps if not 1 <= tap <= vision.layers]:
        raise UserError(f"model.vision.taps names block {beyond[0]}, but there are {vision.layers}; choose among them.")
    if spec.query not in (*context_cir.BASELINES, *queries_of(options.get("query", "sum"))):
        raise UserError(
            f"The query is '{spec.query}', but model.query is {options.get('query', 'sum')!r}; choose that."
        )
    check_template(spec.query, spec.template)
    if spec.score not in (known := spec.scores):
        raise UserError(f"The score is '{spec.score}'; expected one of {', '.join(known)}.")


def _make_tower(config: Any, section: Mapping[str, Any], name: str) -> Any:
    """Returns the config of a tower.

    Raises:
      UserError: see make_model.
    """
    section = {"pad_token": None, **section} if config is TextConfig else section  # older runs have none
    _check_fields(config, section, f"model.{name}")
    for key, known in {
        "remat": tuple(REMATS), "attention": ATTENTIONS, "activation": tuple(ACTIVATIONS), "fit": FITS,
        "pooling": ("cls", "grid", "attention"),
    }.items():  # fmt: skip
        if key in section:
            _choose(f"model.{name}.{key}", section[key], dict.fromkeys(known))
    return config(**section)


def _check_fields(config: Any, section: Mapping[str, Any], where: str, *, skipped: str = "") -> None:
    """Raises a UserError where a section lacks a field of a config's class, has another, or one of another type."""
    hints = typing.get_type_hints(config)
    if odd := sorted(section.keys() ^ hints.keys()):
        problem = "is missing" if odd[0] in hints else "is no such field"
        raise UserError(f"{where}.{odd[0]} {problem}; expected {', '.join(hints)}.")
    for name, hint in hints.items():
        value = section[name]
        if name != skipped and not _fits(value, hint):
            kind = getattr(hint, "__name__", str(hint))
            raise UserError(f"{where}.{name} is {value!r}; expected a value of type {kind}, within bounds.")
        if name.endswith("layers") and value > DEEPEST:
            raise UserError(f"{where}.{name} is {value}; expected at most {DEEPEST}.")
        if name in SIZES and value < 1:
            raise UserError(f"{where}.{name} is {value}; expected at least 1.")
        if name in ("epsilon", "std") and min(value if isinstance(value, tuple) else (value,)) <= 0:
            raise UserError(f"{where}.{name} is {value}; expected more than 0.")


def _fits(value: Any, hint: Any) -> bool:
    """Returns whether a value is of a type that configs are annotated with. Numbers are finite, counts not negative."""
    if isinstance(hint, types.UnionType):
        return any(_fits(value, each) for each in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        members = typing.get_args(hint)
        if not isinstance(value, tuple):
            return False
        members = members[:1] * len(value) if members[-1] is ... else members
        return len(value) == len(members) and all(map(_fits, value, members))
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    if hint is int:
        return type(value) is int and 0 <= value <= LARGEST
    return isinstance(value, hint)


def _tuples(section: Any) -> dict[str, Any]:
    """Returns a tower's section with tuples where config.json or a recipe has lists."""
    return {key: tuple(value) if isinstance(value, list | tuple) else value for key, value in dict(section).items()}


def _choose(key: str, name: Any, table: Mapping[str, Any]) -> Any:
    if not isinstance(name, str) or name not in table:
        raise UserError(f"{key} is '{name}'; known are {', '.join(table)}.")
    return table[name]
