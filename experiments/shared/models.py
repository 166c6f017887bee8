"""The model and the tokenizer of a config, and the parameters that a run starts from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from contextjax import variants
from contextjax.files import path_of
from contextjax.lora import Lora, split
from contextjax.pretrained import Pretrained, locate, read_pretrained, towers
from contextjax.pretrained.names import flatten, unflatten
from contextjax.sharding import place
from contextjax.spec import SystemSpec
from contextjax.starts import params_of_run, published_leaves
from contextjax.tokenizers import TextTokenizer, train_tokenizer
from contextjax.types import UserError
from contextjax.variants import FAMILIES, SYSTEMS, Family, resolve, spec_of
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


def lora_of(config: Any) -> Lora | None:
    """Returns the adapters that a config trains; None where it trains the parameters themselves."""
    section = config.model.lora
    return Lora(section.rank, section.alpha, tuple(section.paths)) if section.rank else None


def lora_record(config: Any) -> dict[str, Any]:
    """Returns what a checkpoint with adapters keeps of them and their base: {"lora": ...}; {} without adapters."""
    if not config.model.lora.rank:
        return {}
    place = lambda source: str(Path(source).absolute()) if source and Path(source).exists() else source
    start, pretrained = config.model.start, "" if config.model.start else config.model.pretrained
    base = {"family": config.model.system, "start": place(start), "pretrained": place(pretrained)}
    return {"lora": {**config.model.lora.to_dict(), **base}}


def make_start(config: Any) -> Callable[[Any], Any] | None:
    """Returns a function that puts model.start's or model.pretrained's parameters into fresh ones; None without."""
    if not config.model.start and not config.model.pretrained:
        return None
    return lambda params: _from_run(config, params) if config.model.start else _from_published(config, params)


def _start_family(config: Any) -> Family:
    return FAMILIES[SystemSpec.read(path_of(config.model.start)).family]


def _from_published(config: Any, params: Any) -> Any:
    """Returns `params`, with those replaced that model.pretrained has."""
    family, flat = SYSTEMS[config.model.system], flatten(params)
    leaves = published_leaves(_read_towers(config.model), family)
    scale = f"{family.towers}/logit_scale".lstrip("/")
    _check_base(config, params, leaves)
    read = {path: place(leaf.read(), flat[path].sharding) for path, leaf in leaves.items()}
    if config.loss.learned_temperature and scale in read and not config.loss.get("sigmoid"):
        # A CLIP has learned to its floor, where nothing moves it: another system starts at 0.07, a CLIP just above.
        start = place(np.asarray(START, np.float32), flat[scale].sharding)
        read[scale] = start if family.towers else jnp.minimum(read[scale], MOVING)
    return unflatten({**flat, **read})


def _from_run(config: Any, params: Any) -> Any:
    """Returns `params`, with those replaced that model.start has under the same path and in the same shape.

    Raises:
      UserError: the run shares none.
    """
    start, family, own = path_of(config.model.start), _start_family(config), SYSTEMS[config.model.system]
    flat = flatten(params)
    theirs = params_of_run(start, own, {path: x.shape for path, x in flat.items()})
    if family is not own and own.towers and config.loss.learned_temperature:
        theirs.pop(f"{own.towers}/logit_scale", None)  # it starts at 0.07, as from a pretrained CLIP
    taken = {path: theirs[path] for path, x in flat.items() if path in theirs and theirs[path].shape == x.shape}
    if not taken:
        raise UserError(f"model.start, {start}, shares no parameter with this model; give a run with such towers.")
    _check_base(config, params, taken)
    print(f"{len(taken)} of {len(flat)} parameters start from {start}; the others are new.", flush=True)
    return unflatten({path: place(taken[path], x.sharding) if path in taken else x for path, x in flat.items()})


def _check_base(config: Any, params: Any, given: Mapping[str, Any]) -> None:
    """Raises a UserError where parameters are frozen under adapters, but are not those of a base."""
    base = flatten(split(params, config.optimizer.freeze)[1]) if config.model.lora.rank else {}
    if odd := sorted(path for path in base if path not in given):
        raise UserError(
            f"optimizer.freeze names {odd[0]}, which {config.model.start or config.model.pretrained} does not give in "
            "this shape; with adapters (model.lora) what is frozen is their base: start from a run that has it, or "
            "train it."
        )


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
    published_leaves(pretrained, SYSTEMS[model.system])  # which checks the kind
    return pretrained


def make_init(model: Any, lora: Lora | None = None) -> Callable[[jax.Array], Any]:
    """Returns a function: key -> parameters of a model, and of adapters, boxed with logical axes."""
    size, positions = towers(model.config).vision.image_size, 4
    images = jnp.zeros((2, size, size, 3), jnp.uint8)
    ids, mask = jnp.zeros((2, positions), jnp.int32), jnp.ones((2, positions), bool)
    init = lambda key: model.init(key, images, ids, mask)["params"]
    return init if lora is None else lambda key: lora.add(init(key), jax.random.fold_in(key, 2))
