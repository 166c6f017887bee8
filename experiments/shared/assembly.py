"""From a config to the parts that fit and evaluate are handed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

import contextjax
from contextjax import variants
from contextjax.evaluation import mean_metrics
from contextjax.evaluation.shared import check_targets
from contextjax.files import path_of
from contextjax.json_files import read_json
from contextjax.optim import make_optimizer, make_schedule
from contextjax.pretrained import Pretrained, abstract_params, locate, read_own, read_pretrained, towers
from contextjax.pretrained.names import flatten, unflatten
from contextjax.sharding import first_process_first, gather, place, place_like
from contextjax.spec import SystemSpec
from contextjax.system import System
from contextjax.tokenizers import TextTokenizer, train_tokenizer
from contextjax.training.task import FitConfig, Task
from contextjax.types import UserError
from contextjax.variants import SYSTEMS, make_model, resolve, spec_of
from data_pipelines.mixtures import Mixture
from data_pipelines.tables import SplitData, all_texts
from experiments.shared import cli, context_blip, context_cir
from experiments.shared.data import load_evaluated, load_parts
from experiments.shared.evaluations import best_rule, evaluations
from experiments.shared.scoring import evaluate

PARTS: Mapping[str, Any] = {"context_cir": context_cir, "context_blip": context_blip}


def parts(config: Any) -> Any:
    """What the config's system has of its own: loss_weights, make_samples, make_phases."""
    return PARTS[config.model.system]


def make_tokenizer(config: Any, workdir: Path, data: SplitData) -> TextTokenizer:
    """The workdir's tokenizer; at the first start that of the run or the weights begun with, or one trained here."""
    path, length, positions = workdir / "tokenizer.json", make_spec(config).text_length, config.model.text["positions"]
    for key in parts(config).LENGTHS:
        if config.data[key] > positions:
            raise UserError(
                f"data.{key} is {config.data[key]}, but the text tower has {positions} positions; lower it."
            )
    if path.exists():
        return TextTokenizer.read(path, length=length)
    if config.model.start and _is_same_system(config):
        tokenizer = TextTokenizer.read(path_of(config.model.start) / "tokenizer.json", length=length)
    elif config.model.pretrained:
        tokenizer = TextTokenizer.read(locate(config.model.pretrained), length=length)
    elif config.data.vocabulary:
        texts = all_texts(data)
        if config.data.get("val_folder"):
            texts += all_texts(load_evaluated(config, config.data.train_split))
        tokenizer = train_tokenizer(texts, vocabulary=config.data.vocabulary, length=length)
    else:
        raise UserError(
            "data.vocabulary is 0; give the size of the tokenizer to train, as --config.data.vocabulary=800."
        )
    tokenizer.save(path)
    return tokenizer


def make_samples(config: Any, data: SplitData, tokenizer: TextTokenizer, workdir: Path, *, cuts: int = 1) -> Any:
    """The training samples. Texts longer than the config's lengths are counted and reported.

    `cuts`: into how many a mesh cuts a batch.
    """
    samples = parts(config).make_samples(config, data, tokenizer, workdir, cuts=cuts)
    for what, count, total, key in samples.truncations():
        if count:
            cut = config.data[key]
            print(f"{count} of {total} {what} are longer than {cut} tokens and were cut (data.{key}).", flush=True)
    if isinstance(data, Mixture):
        each = [f"{share.per_epoch} of {s.name}" for s, share in zip(data.sources, samples.shares, strict=True)]
        print(f"An epoch has {sum(s.per_epoch for s in samples.shares)} samples: {', '.join(each)}.", flush=True)
    return samples


def resolve_model(config: Any) -> dict[str, Any]:
    """Returns the `model` section with every size in it: the variant's, or those of the towers to start from."""
    model = config.model
    if not model.pretrained:
        return resolve(model)
    published = spec_of(_read_towers(model).model)
    own = lambda name: {key: model[name][key] for key in ("taps", "remat", "attention") if key in model[name]}
    sizes = {name: {**getattr(published, name), **own(name)} for name in ("vision", "text")}
    return {**model, "variant": "", **sizes, "projection": published.projection}


def make_spec(config: Any, *, vocabulary: int | None = None) -> SystemSpec:
    """Returns what the config's system needs to be loaded; `vocabulary` is that of a tokenizer that is trained here."""
    return variants.make_spec(config.model, vocabulary=vocabulary, **parts(config).text_limits(config))


def make_start(config: Any) -> Callable[[Any], Any] | None:
    """Fresh parameters -> the same with those of model.start or model.pretrained in them; None where neither is."""
    if config.model.start:
        return lambda params: _from_run(config, params)
    if not config.model.pretrained:
        return None
    name = SYSTEMS[config.model.system].towers

    def begin(params: Any) -> Any:
        found = place_like(_read_towers(config.model).params, params[name])
        if config.loss.learned_temperature and "logit_scale" in found:
            found["logit_scale"] = params[name][
                "logit_scale"
            ]  # a CLIP has learned to its floor, where nothing moves it
        return {**params, name: found}

    return begin


def _is_same_system(config: Any) -> bool:
    return SystemSpec.read(path_of(config.model.start)).family == config.model.system


def _from_run(config: Any, params: Any) -> Any:
    """`params`, each that model.start has under the same path and in the same shape taken from there.

    Of a run of the other system, the image tower is taken.

    Raises:
      UserError: the run shares none.
    """
    start = path_of(config.model.start)
    theirs = _read_start(start)
    if not _is_same_system(config):
        own = SYSTEMS[config.model.system].towers
        names = {path: re.sub(r"^(clip|blip)/", f"{own}/", path) for path in theirs}
        image = (f"{own}/vision/", f"{own}/visual_projection/")
        theirs = {names[path]: value for path, value in theirs.items() if names[path].startswith(image)}
    flat = flatten(params)
    taken = {path: theirs[path] for path, x in flat.items() if path in theirs and theirs[path].shape == x.shape}
    if not taken:
        raise UserError(f"model.start, {start}, shares no parameter with this model; give a run with such towers.")
    print(f"{len(taken)} of {len(flat)} parameters start from {start}; the others are new.", flush=True)
    return unflatten({path: place(taken[path], x.sharding) if path in taken else x for path, x in flat.items()})


def _read_start(folder: Path) -> dict[str, Any]:
    """Flat parameters of a run's checkpoint (the one `load` takes), or of an export of ours."""
    from contextjax.checkpoints.reader import CheckpointReader

    if (folder / "model.safetensors").exists():
        abstract = abstract_params(make_model(SystemSpec.read(folder)))
        return {path: leaf.read() for path, leaf in flatten(read_own(folder, abstract)).items()}
    checkpoints = CheckpointReader(folder / "checkpoints")
    try:
        return flatten(checkpoints.restore_params()[0])
    finally:
        checkpoints.close()


def _read_towers(model: Any) -> Pretrained:
    """The CLIP or BLIP to start from, with what `model.vision` asks for: another image_size, or scan."""
    read, known = ("image_size", "scan"), ("image_size", "scan", "remat", "attention", "taps")
    odd = [key for key in (*model.vision, *model.text) if model.variant and key not in known]
    if odd:
        raise UserError(
            f"model.pretrained fixes the sizes, but {odd[0]} is given; with it only {', '.join(known)} are."
        )
    scanned = model.vision.get("scan", False)
    if model.text.get("scan", scanned) != scanned:
        raise UserError(
            f"model.text.scan is {model.text.scan}, but of a model.pretrained both towers are as model.vision.scan "
            f"says, which is {scanned}; set both alike."
        )
    found = read_pretrained(model.pretrained, **{key: model.vision[key] for key in read if key in model.vision})
    expected = SYSTEMS[model.system].tower_config
    if not isinstance(found.model.config, expected):
        name = expected.__name__.removesuffix("Config")
        raise UserError(f"model.pretrained is a {found.family}; expected a {name}.")
    return found


def make_init(model: Any) -> Callable[[jax.Array], Any]:
    """key -> boxed parameters."""
    size, positions = towers(model.config).vision.image_size, 4
    images = jnp.zeros((2, size, size, 3), jnp.uint8)
    ids, mask = jnp.zeros((2, positions), jnp.int32), jnp.ones((2, positions), bool)
    return lambda key: model.init(key, images, ids, mask)["params"]


def make_evaluate(config: Any, model: Any, tokenizer: TextTokenizer) -> Callable | None:
    """params -> metrics of all evaluations, each by its protocol. None without.

    Raises:
      UserError: an evaluation's folder is not in its layout, has no such split, bad pictures, or secret targets: all
        that would be wrong after thousands of steps is told now.
    """
    found, vision = evaluations(config), config.model.vision
    if not found:
        return None
    options = {"size": vision["image_size"], "fit": vision["fit"], "clean": bool(config.data.get("clean"))}
    with first_process_first():
        loaded = {name: load_parts(*chosen, **options) for name, chosen in found.items()}
    for data in (data for splits in loaded.values() for data in splits.values()):
        check_targets(data.records)

    def metrics_of(params: Any) -> Mapping[str, float]:
        params = jax.tree.map(jnp.asarray, gather(params))  # whole, and on the device once; of every process
        system, metrics = System(model, params, tokenizer, propositions=make_spec(config).propositions), {}
        for name, (protocol, _, _) in found.items():
            means = mean_metrics([evaluate(system, protocol, data).metrics() for data in loaded[name].values()])
            metrics |= {f"{name}/{metric}": value for metric, value in means.items()}
        return metrics

    return metrics_of


def config_hash(config: Any) -> str:
    """Twelve hex digits of the whole resolved config, but for where it is computed."""
    text = json.dumps(cli.computed(config), sort_keys=True, default=dict)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def fit_config(config: Any, workdir: Path, *, data: str = "", **options: Any) -> FitConfig:
    """Returns the config's training section with what identifies the run, its hash and that of the `data`.

    `options` are further fields of FitConfig, which the config has not.
    """
    from importlib.metadata import version

    versions = {name: version(name) for name in ("jax", "flax", "optax", "orbax-checkpoint")}
    versions["contextjax"] = contextjax.__version__  # which has no metadata where it is not installed
    meta = {"config_hash": config_hash(config), "data": data, "versions": versions}
    settings = {**config.training, "best": best_rule(config), "frozen": tuple(config.optimizer.freeze)}
    return FitConfig(workdir=workdir, mesh=config.mesh, meta=meta, **settings, **options)


def make_task(config: Any, model: Any, batches: Callable[[int], Iterator[Any]]) -> Task:
    """Returns what is trained: the config's model, objectives and optimizer on `batches` (first step -> stream)."""
    return Task(
        init_params=make_init(model),
        optimizer=make_optimizer(config.optimizer, steps=config.training.steps),
        schedule=make_schedule(config.optimizer, steps=config.training.steps),
        phases=parts(config).make_phases(config, model),
        batches=batches,
        seed=config.seed,
        start_from=make_start(config),
    )


def read_config(workdir: Path) -> Any:
    """The config of a workdir."""
    return ConfigDict(read_json(workdir / "config.json", layout="a run", remedy="copy the run again"))
