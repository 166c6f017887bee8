"""Reads published checkpoints (CLIP, SigLIP, BLIP, BERT, the papers' own) into a module and unread parameters."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from contextjax.json_files import read_json
from contextjax.models.blip import BLIP
from contextjax.models.blip2 import BLIP2
from contextjax.models.clip import CLIP, CLIPConfig
from contextjax.models.context_blip import ContextBLIP
from contextjax.models.context_cir import ContextCIR
from contextjax.models.multimodal import BertConfig, BertEncoder
from contextjax.models.vision import VisionConfig, check_image_size
from contextjax.pretrained import blip, blip2, clip, clip4cir, context_blip, context_cir, preprocessing, siglip
from contextjax.pretrained.names import Leaf, NameTable, flatten, match, own_table, unflatten
from contextjax.pretrained.positions import resize_positions
from contextjax.pretrained.tensors import Tensor, tensors_of, weights_of
from contextjax.types import UserError

EMPTY: Mapping[str, Any] = {}
LARGEST, DEEPEST = 1 << 24, 512  # of any size, and of a number of blocks; a larger one is a mistake
TOWERS = ("clip", "blip", "blip2")  # the fields of systems' configs that hold the towers' config
BUFFERS = r"(^|\.)(position_ids|attn_mask)$"  # tensors that are never needed and not reported


@dataclasses.dataclass(frozen=True)
class Family:
    """A kind of checkpoint: its module, readers of its config, its name table, and tensors that are not needed."""

    name: str
    module: Callable[..., nn.Module]
    config: Callable[[Mapping[str, Any], Mapping[str, Any]], Any]
    table: Callable[[Any], NameTable]
    left_out: str = "$^"
    processor: str = "CLIP"  # a key of preprocessing.DEFAULTS
    rename: Callable[[str], str] = str  # name of a tensor in the file -> name in the table


CLIP_HF = Family("CLIP (Hugging Face)", CLIP, clip.hf_config, clip.hf_table)
CLIP_OPEN = Family("CLIP (OpenCLIP)", CLIP, clip.open_clip_config, clip.open_clip_table)
BLIP_HF = Family("BLIP (Hugging Face)", BLIP, blip.hf_config, blip.hf_table, processor="Blip")
SIGLIP_HF = Family("SigLIP (Hugging Face)", CLIP, siglip.hf_config, siglip.hf_table, processor="Siglip")
BLIP2_HF = Family(
    "BLIP-2 (Hugging Face)", BLIP2, blip2.hf_config, blip2.hf_table, left_out=blip2.LEFT_OUT, processor="Blip"
)
BERT = Family("BERT (Hugging Face)", BertEncoder, blip.bert_config, blip.bert_table, left_out=r"^pooler\.")
BY_MODEL_TYPE = {"clip": CLIP_HF, "siglip": SIGLIP_HF, "blip": BLIP_HF, "blip-2": BLIP2_HF, "bert": BERT}


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A checkpoint whose weights are not in memory yet."""

    family: str
    folder: Path
    model: Any
    params: Any  # tree of leaves with `shape` and `read()`
    abstract: Any  # tree of shapes with logical axes, by which sharding places the parameters
    left_out: list[str]  # names of tensors that retrieval does not need


def read_pretrained(source: str | Path, *, image_size: int | None = None, dtype: Any = None,
                    vision: Mapping[str, Any] = EMPTY, text: Mapping[str, Any] = EMPTY) -> Pretrained:  # fmt: skip
    """Reads the config and the names and shapes of a checkpoint; the weights are read later, one by one.

    Args:
      source: a folder with safetensors and config.json (or open_clip_config.json), a safetensors file of the original
        BLIP release, or a hub id, "owner/name".
      image_size: another resolution; position embeddings are resized.
      dtype: dtype of the computation; parameters are float32.
      vision: options of the image tower that change no number: scan, remat (see models.layers.run_blocks).
      text: those of the text tower.

    Raises:
      UserError: nothing is there, the family is unknown, or tensors do not fit the config (the message lists them).
    """
    place, troubles = locate(source), []
    for weights in weights_of(place):
        try:
            return _read(place, weights, image_size, dtype, vision, text)
        except UserError as error:  # a folder may hold the weights of several libraries, not all of which are read here
            troubles.append(str(error))
    raise UserError(" ".join(troubles))


def _read(place: Path, weights: Path, image_size: int | None, dtype: Any, vision: Mapping[str, Any],
          text: Mapping[str, Any]) -> Pretrained:  # fmt: skip
    """Reads one file of weights, see `read_pretrained`."""
    tensors = tensors_of(weights)
    family, config = _identify(place, tensors, image_size)
    if isinstance(config, CLIPConfig) and (file := weights.parent / clip4cir.FILE).is_file():
        tensors = tensors | {clip4cir.PREFIX + name: tensor for name, tensor in tensors_of(file).items()}
        family, config = _with_combiner(family), clip4cir.config_of(config)
    _check_sizes(place, config)
    tensors = {family.rename(name): tensor for name, tensor in tensors.items()}
    options = lambda tower: vision if isinstance(tower, VisionConfig) else text
    config = change_towers(config, lambda tower: dataclasses.replace(tower, **options(tower)))
    model = family.module(config, dtype)
    abstract = abstract_params(model)
    shapes = {path: x.shape for path, x in flatten(nn.unbox(abstract)).items()}
    left_out = f"{BUFFERS}|{family.left_out}"
    leaves, dropped = match(family.table(config), shapes, tensors, where=str(place), ignored=left_out)
    if image_size is not None:
        config, leaves = _at_resolution(config, leaves, image_size)
        model = family.module(config, dtype)
        abstract = abstract_params(model)
    dropped = [name for name in dropped if not re.search(BUFFERS, name)]
    folder = place if place.is_dir() else place.parent
    return Pretrained(family.name, folder, model, unflatten(leaves), abstract, dropped)


def _with_combiner(family: Family) -> Family:
    """Returns the family of a CLIP beside whose weights CLIP4Cir's Combiner lies."""
    return dataclasses.replace(
        family, name=f"{family.name} with CLIP4Cir's Combiner", module=ContextCIR,
        table=lambda config: clip4cir.table_of(family.table(config.clip)),
    )  # fmt: skip


def read_own(folder: Path, abstract: Any) -> Any:
    """Returns the unread parameters of a folder that `write_own` wrote; `abstract` is as `abstract_params` gives it."""
    shapes = {path: x.shape for path, x in flatten(nn.unbox(abstract)).items()}
    leaves, _ = match(own_table(shapes), shapes, tensors_of(weights_of(folder)[0]), where=str(folder))
    return unflatten(leaves)


def abstract_params(model: Any) -> Any:
    """Returns the tree of a module's parameter shapes with their logical axes; no array is allocated."""
    inputs: tuple[Any, ...] = (jax.ShapeDtypeStruct((1, 2), jnp.int32), jax.ShapeDtypeStruct((1, 2), jnp.bool_))
    if not isinstance(model, BertEncoder):
        size = towers(model.config).vision.image_size
        inputs = (jax.ShapeDtypeStruct((1, size, size, 3), jnp.uint8), *inputs)
    return jax.eval_shape(model.init, jax.random.key(0), *inputs)["params"]


def locate(source: str | Path) -> Path:
    """Returns the folder or file of `source`; a hub id is downloaded (safetensors, configs and tokenizers only).

    Raises:
      UserError: it is neither on this machine nor on the hub.
    """
    path = Path(source)
    if path.exists():
        return path
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)):
        raise UserError(
            f"There is nothing at {source}; expected a folder with safetensors and config.json, or a hub id."
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                str(source), allow_patterns=["*.json", "*.safetensors", "vocab.txt", "merges.txt", "spiece.model"]
            )
        )
    except Exception as error:  # the hub's client raises a dozen kinds
        raise UserError(
            f"{source} is no folder here, and could not be downloaded from the hub ({type(error).__name__}); "
            "check the name, or download it and give its folder."
        ) from error


def _identify(place: Path, tensors: Mapping[str, Tensor], image_size: int | None) -> tuple[Family, Any]:
    """Returns the family and the config of a checkpoint, by its tensors' names and its config.json."""
    if any(name.endswith(context_blip.MARK) for name in tensors):
        family = Family(
            "ContextBLIP (published implementation)", ContextBLIP,
            lambda c, p: context_blip.published_config(tensors, p), context_blip.published_table,
            left_out=rf"{blip.ORIGINAL_LEFT_OUT}|^positional_emb\.", rename=context_blip.stage_one_name,
        )  # fmt: skip
        return family, family.config({}, {"fit": "squash"})
    if any(name.startswith(clip4cir.MARK) for name in tensors):
        raise UserError(
            f"{place} is CLIP4Cir's Combiner alone; put it as combiner.pt beside its CLIP's model.safetensors, "
            "config.json and tokenizer, and convert their folder with `experiments.convert --allow_pickle`."
        )
    original = any(name.startswith("visual_encoder.") for name in tensors)
    if original:
        family = Family(
            "BLIP (original release)", BLIP, lambda c, p: blip.original_config(tensors, p), blip.original_table,
            left_out=blip.ORIGINAL_LEFT_OUT,
        )  # fmt: skip
        return family, family.config({}, {"fit": "squash"})
    folder = place if place.is_dir() else place.parent
    if any(name.startswith("visual.") for name in tensors):
        return CLIP_OPEN, _open_clip_config(folder / "open_clip_config.json", image_size)
    config = read_json(folder / "config.json", layout="a checkpoint")
    kind = config.get("model_type")
    if kind == "clip" and any(name.startswith(context_cir.MARK) for name in tensors):
        family = Family(
            "ConText-CIR (published implementation)", ContextCIR,
            lambda c, p: context_cir.published_config(tensors, c, p), context_cir.published_table,
        )  # fmt: skip
        return family, _config(family, config, folder, image_size)
    if kind == "siglip2":
        raise UserError(f"{folder} {siglip.NAFLEX}")
    if not isinstance(kind, str) or kind not in BY_MODEL_TYPE:
        raise UserError(
            f"{folder}/config.json is of the family {kind!r}; expected one of {', '.join(BY_MODEL_TYPE)} "
            "(CLIP or SigLIP, or BLIP or BLIP-2 for image-text retrieval)."
        )
    family = BY_MODEL_TYPE[kind]
    return family, _config(family, config, folder, image_size)


def _config(family: Family, config: Mapping[str, Any], folder: Path, image_size: int | None) -> Any:
    """Returns the config of a family, with the preprocessing that the folder asks for."""
    try:
        described = family.config(config, {})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / 'config.json'} lacks or misstates {error}; download it again.") from error
    if isinstance(described, BertConfig):
        return described
    own = towers(described).vision.image_size
    pixels = preprocessing.read_hf(folder, family.processor, sizes=(own, *([image_size] if image_size else [])))
    described = family.config(config, pixels)
    return siglip.with_pad_of(described, folder) if family is SIGLIP_HF else described


def _open_clip_config(file: Path, image_size: int | None) -> Any:
    settings = read_json(file, layout="a checkpoint")
    try:
        own = towers(CLIP_OPEN.config(settings, {})).vision.image_size
        section, sizes = settings.get("preprocess_cfg") or {}, (own, *([image_size] if image_size else []))
        return CLIP_OPEN.config(settings, preprocessing.read_open_clip(section, file=file, sizes=sizes))
    except (AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"{file} lacks or misstates {error}; download it again.") from error


def _check_sizes(place: Path, config: Any) -> None:
    """Raises a UserError if a size in a checkpoint's config makes no valid model, before one is built."""
    own = towers(config)
    for part in (own, *(getattr(own, name) for name in ("vision", "text") if hasattr(own, name))):
        for field in dataclasses.fields(part):
            value, most = getattr(part, field.name), DEEPEST if field.name == "layers" else LARGEST
            if field.type == "int" and (type(value) is not int or not 1 <= value <= most):
                raise UserError(
                    f"The config of {place} has {field.name}={value!r}; expected a number from 1 to {most}."
                )
        if hasattr(part, "heads") and part.width % part.heads:
            raise UserError(
                f"The config of {place} has a width of {part.width}, which {part.heads} heads don't divide."
            )


def towers(config: Any) -> Any:
    """Returns the CLIPConfig, BLIPConfig or BLIP2Config in a system's config, which may itself be one."""
    return next((getattr(config, name) for name in TOWERS if hasattr(config, name)), config)


def change_towers(config: Any, change: Callable[[Any], Any]) -> Any:
    """Returns a config with `change` applied to its vision and its text section."""
    if isinstance(config, BertConfig):
        return change(config)
    for name in TOWERS:
        if hasattr(config, name):
            return dataclasses.replace(config, **{name: change_towers(getattr(config, name), change)})
    return dataclasses.replace(config, vision=change(config.vision), text=change(config.text))


def _at_resolution(config: Any, leaves: Mapping[str, Leaf], image_size: int) -> tuple[Any, dict[str, Leaf]]:
    """Returns config and parameters for pictures of another size."""
    path = next(path for path in leaves if path.endswith("vision/position_embedding"))
    patch = towers(config).vision.patch_size
    if image_size == towers(config).vision.image_size:
        return config, dict(leaves)
    check_image_size(image_size, patch, "image_size")
    patches, leaf, first = (image_size // patch) ** 2, leaves[path], towers(config).vision.class_tokens
    resized = Leaf((first + patches, leaf.shape[1]), lambda: resize_positions(leaf.read(), patches, first=first))
    change = lambda tower: dataclasses.replace(tower, image_size=image_size) if hasattr(tower, "image_size") else tower
    return change_towers(config, change), {**leaves, path: resized}
