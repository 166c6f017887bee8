"""The model and the tokenizer of a config, and the parameters that a run starts from."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from contextjax import variants
from contextjax.checkpoints.reader import CheckpointReader
from contextjax.export.folder import MANIFEST, read_manifest
from contextjax.files import path_of
from contextjax.pretrained import Pretrained, abstract_params, locate, read_own, read_pretrained, towers
from contextjax.pretrained.names import flatten, restack, unflatten
from contextjax.sharding import place, place_like
from contextjax.spec import SystemSpec
from contextjax.tokenizers import TextTokenizer, train_tokenizer
from contextjax.types import UserError
from contextjax.variants import FAMILIES, SYSTEMS, Family, make_model, resolve, spec_of
from data_pipelines.tables import SplitData, all_texts
from experiments.shared import systems
from experiments.shared.data import load_evaluated

START = math.log(1 / 0.07)  # the log of the inverse of a learned temperature at the start
MOVING = math.log(100.0) - 1e-3  # a log of the inverse temperature that still learns, see dual_encoder
TOWER_OPTIONS = ("scan", "remat", "attention")  # of a tower's config: they change no number


def make_tokenizer(config: Any, workdir: Path, data: SplitData) -> TextTokenizer:
    """Returns the workdir's tokenizer.

    At the first start it is that of the run or the weights to begin with, or it is trained on the texts of `data`.

    Raises:
      UserError: there is nothing to train or read.
    """
    path, length = workdir / "tokenizer.json", make_spec(config).text_length
    if path.exists():
        return TextTokenizer.read(path, length=length)
    if config.model.start and _start_family(config).tower_config is SYSTEMS[config.model.system].tower_config:
        tokenizer = TextTokenizer.read(path_of(config.model.start) / "tokenizer.json", length=length)
    elif config.model.pretrained:
        tokenizer = TextTokenizer.read(locate(config.model.pretrained), length=length)
    elif config.data.vocabulary:
        texts = all_texts(data)
        if config.data.val_folder:
            texts += all_texts(load_evaluated(config, config.data.train_split))
        first = config.model.text.get("pad_token") is None  # a SigLIP's texts have none
        tokenizer = train_tokenizer(texts, vocabulary=config.data.vocabulary, length=length, first=first)
    else:
        raise UserError(
            "data.vocabulary is 0; give the size of the tokenizer to train, as --config.data.vocabulary=800."
        )
    tokenizer.save(path)
    return tokenizer


def resolve_model(config: Any) -> dict[str, Any]:
    """Returns the `model` section with every size in it: the variant's, or those of the towers to start from."""
    model = config.model
    if not model.pretrained:
        return resolve(model)
    published = spec_of(_read_towers(model).model)
    own = lambda name: {key: model[name][key] for key in ("taps", "fit", *TOWER_OPTIONS) if key in model[name]}
    sizes = {name: {**getattr(published, name), **own(name)} for name in ("vision", "text")}
    return {**model, "variant": "", **sizes, "projection": published.projection}


def make_spec(config: Any, *, vocabulary: int | None = None) -> SystemSpec:
    """Returns what the config's system needs to be loaded; `vocabulary` is that of a tokenizer that is trained here."""
    return variants.make_spec(config.model, vocabulary=vocabulary, **systems.of(config).text_limits(config))


def make_start(config: Any) -> Callable[[Any], Any] | None:
    """Returns a function that puts model.start's or model.pretrained's parameters into fresh ones; None without."""
    if config.model.start:
        return lambda params: _from_run(config, params)
    if not config.model.pretrained:
        return None
    family = SYSTEMS[config.model.system]
    name = family.towers

    def begin(params: Any) -> Any:
        own = params[name] if name else params
        read = place_like(_read_towers(config.model).params, own)
        if config.loss.learned_temperature and "logit_scale" in read and not config.loss.get("sigmoid"):
            # A CLIP has learned to its floor, where nothing moves it: another system starts at 0.07, a CLIP just above.
            scale = read["logit_scale"]
            read["logit_scale"] = jnp.full_like(scale, START) if name else jnp.minimum(scale, MOVING)
        copies = {part: jax.tree.map(jnp.copy, read[theirs]) for part, theirs in family.copies.items()}
        return {**params, name: read, **copies} if name else read

    return begin


def _start_family(config: Any) -> Family:
    return FAMILIES[SystemSpec.read(path_of(config.model.start)).family]


def _from_run(config: Any, params: Any) -> Any:
    """Returns `params`, with those replaced that model.start has under the same path and in the same shape.

    From a run of another system the towers are taken, of CLIP and BLIP each to its own; from one to the other the image
    tower alone. Layers are the same ones, stacked or one by one.

    Raises:
      UserError: the run shares none.
    """
    start, family, own = path_of(config.model.start), _start_family(config), SYSTEMS[config.model.system]
    theirs = _read_start(start)
    if family is not own:
        before, after = (f"{each.towers}/" if each.towers else "" for each in (family, own))
        shared = ("",) if family.tower_config is own.tower_config else ("vision/", "visual_projection/")
        kept = tuple(before + name for name in shared)
        theirs = {after + path.removeprefix(before): x for path, x in theirs.items() if path.startswith(kept)}
        if after and config.loss.learned_temperature:  # it starts at 0.07, as from a pretrained CLIP
            theirs.pop(f"{after}logit_scale", None)
    flat = flatten(params)
    theirs = restack(theirs, {path: x.shape for path, x in flat.items()})
    taken = {path: theirs[path] for path, x in flat.items() if path in theirs and theirs[path].shape == x.shape}
    if not taken:
        raise UserError(f"model.start, {start}, shares no parameter with this model; give a run with such towers.")
    print(f"{len(taken)} of {len(flat)} parameters start from {start}; the others are new.", flush=True)
    return unflatten({path: place(taken[path], x.sharding) if path in taken else x for path, x in flat.items()})


def _read_start(folder: Path) -> dict[str, Any]:
    """Returns the flat parameters of a run's checkpoint (the one `load` takes), or of an export."""
    if (folder / "model.safetensors").exists():
        if (folder / MANIFEST).exists():
            read_manifest(folder)  # which compares the files with their checksums
        abstract = abstract_params(make_model(SystemSpec.read(folder)))
        return {path: leaf.read() for path, leaf in flatten(read_own(folder, abstract)).items()}
    checkpoints = CheckpointReader(folder / "checkpoints")
    try:
        return flatten(checkpoints.restore_params()[0])
    finally:
        checkpoints.close()


def _read_towers(model: Any) -> Pretrained:
    """Reads the CLIP or BLIP to start from, of the image size and with the stacked layers that its towers ask for."""
    known = ("image_size", "fit", *TOWER_OPTIONS, "taps")
    odd = [key for key in (*model.vision, *model.text) if model.variant and key not in known]
    if odd:
        raise UserError(
            f"model.pretrained fixes the sizes, but {odd[0]} is given; with it only {', '.join(known)} are."
        )
    stacked: Any = {name: {"scan": model[name].get("scan", False)} for name in ("vision", "text")}
    pretrained = read_pretrained(model.pretrained, image_size=model.vision.get("image_size"), **stacked)
    expected = SYSTEMS[model.system].tower_config
    if not isinstance(pretrained.model.config, expected):
        name = expected.__name__.removesuffix("Config")
        raise UserError(f"model.pretrained is a {pretrained.family}; expected a {name}.")
    return pretrained


def make_init(model: Any) -> Callable[[jax.Array], Any]:
    """Returns a function: key -> parameters of a model, boxed with logical axes."""
    size, positions = towers(model.config).vision.image_size, 4
    images = jnp.zeros((2, size, size, 3), jnp.uint8)
    ids, mask = jnp.zeros((2, positions), jnp.int32), jnp.ones((2, positions), bool)
    return lambda key: model.init(key, images, ids, mask)["params"]
