"""From a config to the parts that fit and evaluate are handed."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from contextjax.checkpoints import Checkpoints
from contextjax.evaluation import evaluate_candidates, evaluate_retrieval
from contextjax.models.clip import CLIPConfig
from contextjax.models.context_cir import ContextCIR
from contextjax.objectives.context_cir import ContextCIRObjective
from contextjax.pretrained import Pretrained, locate, read_pretrained
from contextjax.sharding import place_like
from contextjax.system import System
from contextjax.tokenizers import TextTokenizer, train_tokenizer
from contextjax.training.loop import FitConfig, Phase
from contextjax.types import CandidateRecord, UserError
from contextjax.variants import describe, resolve
from data_pipelines import protocols
from data_pipelines.concepts import PhraseCache
from data_pipelines.datasets.cirr import CirrReader
from data_pipelines.datasets.imagecode import ImageCodeReader
from data_pipelines.ops import ComposedSamples
from data_pipelines.tables import ComposedData, SplitData, all_texts, load_split

READERS: Mapping[str, Any] = {"cirr": CirrReader, "imagecode": ImageCodeReader}
PROTOCOLS = {"cirr": protocols.CIRR}


def load_data(config: Any, split: str, *, cache_mb: int = 0) -> ComposedData:
    """A split of the config's data set, prepared where it is not."""
    vision = resolve(config.model)["vision"]
    size, fit = vision["image_size"], vision["fit"]
    return load_folder(config.data.reader, config.data.folder, split, size=size, fit=fit, cache_mb=cache_mb)


def load_folder(reader: str, folder: str | Path, split: str, *, size: int, fit: str, cache_mb: int = 0) -> SplitData:
    """A split of a folder in the layout that `reader` knows."""
    if reader not in READERS:
        raise UserError(f"The reader is '{reader}'; known are {', '.join(READERS)}.")
    path = Path(folder)
    return load_split(READERS[reader](path), path, split, size=size, fit=fit, cache_bytes=cache_mb << 20)


def make_tokenizer(config: Any, workdir: Path, data: ComposedData) -> TextTokenizer:
    """The workdir's tokenizer; trained on the data's texts at the first start."""
    path, length = workdir / "tokenizer.json", config.model.text["positions"]
    for key in ("text_length", "caption_length"):
        if config.data[key] > length:
            raise UserError(f"data.{key} is {config.data[key]}, but the text tower has {length} positions; lower it.")
    if path.exists():
        return TextTokenizer.read(path, length=length)
    if config.model.pretrained:
        tokenizer = TextTokenizer.read(locate(config.model.pretrained), length=length)
        tokenizer.save(path)
        return tokenizer
    if not config.data.vocabulary:
        raise UserError(
            "data.vocabulary is 0; give the size of the tokenizer to train, as --config.data.vocabulary=800."
        )
    tokenizer = train_tokenizer(all_texts(data), vocabulary=config.data.vocabulary, length=length)
    tokenizer.save(path)
    return tokenizer


def resolve_model(config: Any) -> dict[str, Any]:
    """The config's `model` section with every size in it: the variant's, or those of the CLIP to start from."""
    model = config.model
    if not model.pretrained:
        return resolve(model)
    return {**model, "variant": "", **describe(_read_clip(model).model.config)}


def make_start(config: Any) -> Callable[[Any], Any] | None:
    """Fresh parameters -> the same with those of model.start or model.pretrained in them; None where neither is."""
    if config.model.start:
        return lambda params: _from_run(Path(config.model.start), params)
    if not config.model.pretrained:
        return None
    return lambda params: {**params, "clip": place_like(_read_clip(config.model).params, params["clip"])}


def _from_run(workdir: Path, params: Any) -> Any:
    """`params`, each that the run in `workdir` has under the same path and in the same shape taken from there.

    Raises:
      UserError: the run has none of them.
    """
    checkpoints = Checkpoints(workdir / "checkpoints")
    try:
        found, _ = checkpoints.restore_params()
    finally:
        checkpoints.close()
    theirs = dict(jax.tree_util.tree_flatten_with_path(found)[0])
    taken = 0

    def take(path, own):
        nonlocal taken
        value = theirs.get(path)
        if value is None or value.shape != own.shape:
            return own
        taken += 1
        return jax.device_put(value, own.sharding)

    params = jax.tree_util.tree_map_with_path(take, params)
    if not taken:
        raise UserError(f"model.start, {workdir}, shares no parameter with this model; give a run of the same system.")
    total = len(jax.tree.leaves(params))
    print(f"{taken} of {total} parameters start from {workdir}; the others are new.", flush=True)
    return params


def _read_clip(model: Any) -> Pretrained:
    """The CLIP to start from, with what `model.vision` asks for: another image_size, scan or remat."""
    known = ("image_size", "scan", "remat")
    odd = [key for key in (*model.vision, *model.text) if model.variant and key not in known]
    if odd:
        raise UserError(
            f"model.pretrained fixes the sizes, but {odd[0]} is given; with it only {', '.join(known)} are."
        )
    found = read_pretrained(model.pretrained, **{key: model.vision[key] for key in known if key in model.vision})
    if not isinstance(found.model.config, CLIPConfig):
        raise UserError(f"model.pretrained is a {found.family}; expected a CLIP.")
    return found


def loss_weights(config: Any) -> dict[str, float]:
    """The loss terms that take part; without fusion blocks there is nothing to keep consistent."""
    weights = {name: weight for name, weight in config.loss.weights.items() if weight}
    if config.model.query != "fusion" or not config.model.fusion_layers:
        weights.pop("consistency", None)
    return weights


def make_samples(
    config: Any, data: ComposedData, tokenizer: TextTokenizer, *, process: int = 0, processes: int = 1
) -> ComposedSamples:
    """The training samples of this process; noun phrases are found and cached where the loss needs them.

    Texts that are longer than the config's lengths are counted and reported.
    """
    weights, d = loss_weights(config), config.data
    phrases = None
    if "consistency" in weights:
        phrases = PhraseCache(data.folder)
        phrases.add(record.text for record in data.records)
    captions = "captions" in weights or config.loss.lead_steps > 0
    samples = ComposedSamples(
        data,
        tokenizer,
        modifications=d.modifications,
        text_length=d.text_length,
        phrases=phrases,
        phrase_budget=round(d.phrases_per_text * d.batch_size * d.modifications / processes),
        phrase_length=d.phrase_length,
        caption_length=d.caption_length if captions else 0,
        process=process,
    )
    for what, count, total, key in samples.truncations():
        if count:
            print(f"{count} of {total} {what} are longer than {d[key]} tokens and were cut (data.{key}).", flush=True)
    return samples


def make_phases(config: Any, model: ContextCIR) -> list[Phase]:
    """The objective, led by the captions loss alone where the config says so."""
    loss, weights = config.loss, loss_weights(config)
    objective = functools.partial(
        ContextCIRObjective,
        model,
        temperature=None if loss.learned_temperature else loss.temperature,
        epsilon=loss.epsilon,
        normalize_maps=loss.normalize_maps,
        reference_negatives=loss.reference_negatives,
        mask_false_negatives=loss.mask_false_negatives,
    )
    phases = [Phase(loss.lead_steps, objective(tuple(sorted(weights.items()))))]
    if loss.lead_steps:
        phases.insert(0, Phase(0, objective((("captions", 1.0),))))
    return phases


def make_init(model: ContextCIR) -> Callable[[jax.Array], Any]:
    """key -> boxed parameters."""
    size, positions = model.config.clip.vision.image_size, 4
    images = jnp.zeros((1, size, size, 3), jnp.uint8)
    ids, mask = jnp.zeros((1, positions), jnp.int32), jnp.ones((1, positions), bool)
    return lambda key: model.init(key, images, ids, mask)["params"]


def make_evaluate(config: Any, model: ContextCIR, tokenizer: TextTokenizer, split: str) -> Callable:
    """params -> metrics of a split, by the config's protocol; the split is loaded at the first call."""
    data = functools.cache(lambda: load_data(config, split))

    def evaluate(params: Any) -> Mapping[str, float]:
        system = System(model, jax.device_get(params), tokenizer)
        found = evaluate_retrieval(system, PROTOCOLS[config.data.reader], data().records, data().pictures)
        return {f"{split}/{name}": value for name, value in found.metrics().items()}

    return evaluate


def score(system: System, protocol: str, data: SplitData, *, baselines: bool) -> dict[str, Any]:
    """Metrics of a system by a protocol, beside those of the simpler ways to query or score with the same towers."""
    candidates = READERS[protocol].record_type is CandidateRecord
    main = system.score if candidates else system.query
    if candidates:
        others = [name for name in ("itc", "itm") if main == "sum"]
        evaluate = lambda name: evaluate_candidates(system.with_score(name), data.records, data.pictures)
    else:
        others = [name for name in ("image", "text", "sum") if main in ("fusion", "sum") and name != main]
        evaluate = lambda name: evaluate_retrieval(
            system.with_query(name), PROTOCOLS[protocol], data.records, data.pictures
        )
    found: Any = evaluate(main)
    beside = {name: evaluate(name).metrics() for name in others if baselines}
    if candidates:
        beside |= found.baselines()
    return {"query": main, "metrics": found.metrics(), "by_kind": found.by_kind(), "baselines": beside}


def config_hash(config: Any) -> str:
    """Twelve hex digits of the whole resolved config."""
    return hashlib.blake2b(json.dumps(config.to_dict(), sort_keys=True).encode(), digest_size=6).hexdigest()


def fit_config(config: Any) -> FitConfig:
    """The config's training section, with what identifies the run."""
    from importlib.metadata import version

    versions = {name: version(name) for name in ("contextjax", "jax", "flax", "optax", "orbax-checkpoint")}
    meta = {"config_hash": config_hash(config), "versions": versions}
    return FitConfig(**config.training, mesh=config.mesh, frozen=tuple(config.optimizer.freeze), meta=meta)


def read_config(workdir: Path) -> Any:
    """The config of a workdir."""
    return ConfigDict(json.loads((workdir / "config.json").read_text(encoding="utf-8")))
