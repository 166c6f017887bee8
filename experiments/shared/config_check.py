"""The check of a whole config, before anything is written: keys, types, ranges, names, sizes, paths; all faults in one.

A new key of configs/base.py gets a line in RULES where not every value of its type makes sense. Faults that only the
model shows (sizes that do not fit, names of parameters) are found by building it, in `_check_model`.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from configs.base import SYSTEMS, base, evaluation, source
from contextjax.files import path_of
from contextjax.optim import OPTIMIZERS, SCHEDULES, make_optimizer
from contextjax.pretrained import abstract_params
from contextjax.sharding import check_batch, make_mesh
from contextjax.spec import DTYPES, SystemSpec
from contextjax.types import UserError
from contextjax.variants import make_model
from data_pipelines.augment import MODES
from data_pipelines.datasets import READERS
from experiments.shared import models, systems, validation
from experiments.shared.loss_form import FORMS
from experiments.shared.paths import Place, fault
from experiments.shared.recipes import OPEN, unknown_key
from experiments.shared.run_config import flat

LARGEST_SEED = 2**32 - 1  # of the loader's random numbers


@dataclasses.dataclass(frozen=True)
class Rule:
    """A rule for a value: whether it holds, and what was expected where it does not."""

    expected: str
    holds: Callable[[Any], bool]
    names: tuple[str, ...] = ()  # of a closed list


def _at_least(least: float) -> Rule:
    return Rule(f"{least} or more", lambda value: value >= least)


def _one_of(names: Iterable[str]) -> Rule:
    known = tuple(names)
    return Rule(f"one of {', '.join(repr(name) for name in known)}", lambda value: value in known, known)


POSITIVE = Rule("a number above 0", lambda value: value > 0)
RATE = Rule("a number of at least 0", lambda value: value >= 0)  # at 0 a run shows what its start is worth
SHARE = Rule("a number from 0 to below 1", lambda value: 0 <= value < 1)
NATURAL, COUNT, TOKENS = _at_least(0), _at_least(1), Rule("3 or more (two are special)", lambda value: value >= 3)
VOCABULARY = Rule("0, or 259 or more (256 bytes and three tokens)", lambda value: value == 0 or value >= 259)
NAME = Rule("a name", lambda value: bool(value.strip()))
READER, OTHER_READER = _one_of(READERS), _one_of(("", *READERS))
WEIGHT = _at_least(0.0)

RULES: Mapping[str, Rule] = {
    "seed": Rule(f"a number from 0 to {LARGEST_SEED}", lambda value: 0 <= value <= LARGEST_SEED),
    "data.reader": READER, "data.val_reader": OTHER_READER, "data.train_split": NAME, "data.val_split": NAME,
    "data.batch_size": COUNT, "data.text_length": TOKENS, "data.vocabulary": VOCABULARY, "data.workers": NATURAL,
    "data.cache_mb": NATURAL, "data.bad_pictures": _one_of(("fail", "skip")), "data.modifications": COUNT,
    "data.caption_length": TOKENS, "data.phrases_per_text": POSITIVE, "data.phrase_length": TOKENS,
    "data.candidates": _at_least(2), "data.descriptions": COUNT, "data.propositions": NATURAL,
    "data.proposition_length": TOKENS, "data.augment": _one_of(MODES), "data.records": NATURAL,
    "data.grounded": NATURAL,
    "model.dtype": _one_of(DTYPES), "model.projection": NATURAL, "model.mask_rate": SHARE,
    "model.context_dropout": SHARE, "model.adapter_reduction": COUNT,
    "model.lora.rank": NATURAL, "model.lora.alpha": POSITIVE,
    "loss.contrastive": _one_of(FORMS), "loss.chunk": NATURAL, "loss.lead_steps": NATURAL,
    "loss.temperature": POSITIVE, "loss.alpha": POSITIVE, "loss.beta": WEIGHT, "loss.epsilon": WEIGHT,
    "optimizer.name": _one_of(OPTIMIZERS), "optimizer.schedule": _one_of(SCHEDULES),
    "optimizer.learning_rate": RATE, "optimizer.warmup_steps": NATURAL, "optimizer.restart_period": COUNT,
    "optimizer.restart_factor": COUNT, "optimizer.decay_period": COUNT, "optimizer.decay_factor": POSITIVE,
    "optimizer.beta1": SHARE, "optimizer.beta2": SHARE, "optimizer.epsilon": POSITIVE,
    "optimizer.weight_decay": WEIGHT, "optimizer.clip_norm": POSITIVE,
    "training.steps": COUNT, "training.micro_batches": COUNT, "training.log_every": COUNT,
    "training.checkpoint_every": COUNT, "training.evaluate_every": NATURAL, "training.max_bad_steps": COUNT,
    "training.spike_factor": WEIGHT, "training.diagnose_every": NATURAL,
}  # fmt: skip
# Of the keys that begin so, whose names the user or the system chooses.
OPEN_RULES: Mapping[str, Rule] = {"loss.weights.": WEIGHT, "optimizer.multipliers.": WEIGHT, "training.best.": WEIGHT}


def check_values(config: Any) -> None:
    """Checks every key and value of a config by itself.

    Raises:
      UserError: the sentence names all faults.
    """
    _report(list(_value_faults(config)))


def check_config(config: Any, *, reads_data: bool = True) -> None:
    """Checks a config as a whole, by itself and with its devices, data and towers; then every size stands in it.

    Args:
      config: the recipe's; its `model` section gets every size, see models.resolve_model.
      reads_data: whether the folders that it names have to be there.

    Raises:
      UserError: the sentence names all faults.
    """
    check_values(config)
    checks = (_resolve, _check_mesh, _check_lengths, _check_model, validation.best_rule)
    if reads_data:
        checks = (*checks, _check_start, _check_base)
    faults = list(_place_faults(config)) if reads_data else []
    faults += [sentence for check in checks if (sentence := _complaint(check, config))]
    _report(list(dict.fromkeys(faults)))  # what keeps the sizes from being known is found twice
    for key, reached in (("optimizer.warmup_steps", "its rate"), ("loss.lead_steps", "the rest of the loss")):
        count = flat(config).get(key)
        if count and count >= config.training.steps:
            print(f"{key} is {count} and training.steps {config.training.steps}: {reached} is not reached.", flush=True)


def _report(faults: list[str]) -> None:
    if faults:
        count = f"has {len(faults)} faults" if len(faults) > 1 else "has a fault"
        raise UserError(f"The config {count}: {'; '.join(fault.removesuffix('.') for fault in faults)}.")


def _value_faults(config: Any) -> Iterator[str]:
    model = config.get("model")
    system = model.get("system", "") if isinstance(model, ConfigDict) else ""
    if system not in SYSTEMS:
        yield f"model.system is '{system}', expected {_one_of(SYSTEMS).expected}"
        return
    known = base(system)
    yield from _key_faults(config, known)
    defaults = _names(known) | {"model.fused_token": None, "model.reverse_token": None}
    for key, value in _names(config).items():
        rule = RULES.get(key) or next((rule for head, rule in OPEN_RULES.items() if key.startswith(head)), None)
        kind = 0.0 if any(key.startswith(head) for head in OPEN_RULES) else defaults.get(key)
        if key not in defaults and kind is None:
            continue  # an unknown key, or a field of a tower, which `make_model` checks
        if expected := _wrong_type(value, kind):
            yield f"{key} is {value!r}, expected {expected}"
        elif rule and not rule.holds(value):
            yield f"{key} is {value!r}, expected {rule.expected}{_nearest(value, rule.names)}"
    for name, entry, rules in (
        ("sources", source(), {"reader": OTHER_READER}), ("evaluations", evaluation(), {"split": NAME}),
    ):  # fmt: skip
        section = config.data.get(name) if isinstance(config.get("data"), ConfigDict) else None
        if isinstance(section, ConfigDict):
            yield from _section_faults(section, f"data.{name}", entry, rules)


def _names(config: Any) -> dict[str, Any]:
    """Returns whole names -> values; those of the towers' fields and of the open sections of data are left out."""
    left_out = tuple(f"{name}." for name in OPEN[:4])
    return {key: value for key, value in flat(config).items() if not key.startswith(left_out) and key not in OPEN}


def _key_faults(config: Any, known: Any, prefix: str = "") -> Iterator[str]:
    """Yields the unknown keys of a config, and the missing ones."""
    for name in config:
        if name not in known:
            yield unknown_key(prefix + name, known if not prefix else None)
    for name, value in known.items():
        if name not in config:
            yield f"{prefix}{name} is missing, expected a value such as {value!r} (begin a recipe with configs.base)"
        elif isinstance(value, ConfigDict):
            if not isinstance(config[name], ConfigDict):
                keys = f" with {', '.join(value)}" if value else ""
                yield f"{prefix}{name} is {config[name]!r}, expected a section{keys}"
            elif prefix + name not in OPEN:
                yield from _key_faults(config[name], value, f"{prefix}{name}.")


def _section_faults(section: Any, name: str, known: Any, rules: Mapping[str, Rule]) -> Iterator[str]:
    """Yields what is wrong with the entries of data.sources or data.evaluations."""
    for entry, values in section.items():
        place = f"{name}.{entry}"
        if not isinstance(values, ConfigDict) or set(values) != set(known):
            given = ", ".join(values) if isinstance(values, ConfigDict) else repr(values)
            yield f"{place} is {given}, expected the keys {', '.join(known)}"
            continue
        for key, value in values.items():
            rule = rules.get(key) or {"weight": WEIGHT, "records": NATURAL}.get(key)
            if expected := _wrong_type(value, known[key]):
                yield f"{place}.{key} is {value!r}, expected {expected}"
            elif rule and not rule.holds(value):
                yield f"{place}.{key} is {value!r}, expected {rule.expected}{_nearest(value, rule.names)}"


def _wrong_type(value: Any, default: Any) -> str:
    """Returns what is expected of a value with this default, "" where it is of its type."""
    if default is None:
        return "" if value is None or (type(value) is int and value >= 0) else "a number, or None"
    if isinstance(default, bool):
        return "" if isinstance(value, bool) else "True or False"
    if isinstance(default, float):
        is_number = type(value) in (int, float) and math.isfinite(value)
        return "" if is_number else "a finite number"
    if isinstance(default, int):
        return "" if type(value) is int else "a whole number"
    if isinstance(default, tuple):
        is_names = isinstance(value, tuple | list) and all(isinstance(each, str) and each for each in value)
        return "" if is_names else "a tuple of names, as ('clip',)"
    return "" if not isinstance(default, str) or isinstance(value, str) else "a text"


def _nearest(value: Any, names: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(value, names, n=3) if isinstance(value, str) and names else []
    alike = lambda name: (difflib.SequenceMatcher(a=name, b=value).ratio(), name[0] == value[0])
    return f" (the nearest is '{max(near, key=alike)}')" if near else ""


def _place_faults(config: Any) -> Iterator[str]:
    """Yields what is wrong with the folders that training reads."""
    d, places = config.data, {}
    wanted = {name: each for name, each in d.sources.items() if each.weight}
    for name, each in wanted.items():
        places[f"data.sources.{name}.folder" if each.folder else "data.folder"] = each.folder or d.folder
    if not d.sources:
        places["data.folder"] = d.folder
    optional = {"data.val_folder": d.val_folder, "model.start": config.model.start}
    optional |= {f"data.evaluations.{name}.folder": each.folder for name, each in d.evaluations.items()}
    places |= {key: place for key, place in optional.items() if place}
    for key, place in places.items():
        if sentence := fault(place, Place.FOLDER, f"--config.{key}"):
            yield sentence


def _complaint(check: Callable[[Any], Any], config: Any) -> str:
    try:
        check(config)
    except UserError as error:
        return str(error)
    return ""


def _resolve(config: Any) -> None:
    with config.unlocked():
        config.model = models.resolve_model(config)  # config.json holds every size, whatever a variant means one day


def _check_start(config: Any) -> None:
    if config.model.start and path_of(config.model.start).is_dir():
        SystemSpec.read(path_of(config.model.start))


def _check_base(config: Any) -> None:
    if config.model.lora.rank and not config.model.start and not config.model.pretrained:
        raise UserError(
            f"model.lora.rank is {config.model.lora.rank}, but there is nothing that adapters could be added to; give "
            "a run or weights to start from, as --config.model.start=RUN or --config.model.pretrained=FOLDER"
        )


def _check_mesh(config: Any) -> None:
    check_batch(make_mesh(config.mesh), config.data.batch_size, micro_batches=config.training.micro_batches)


def _check_lengths(config: Any) -> None:
    positions = config.model.text.get("positions")
    for key in systems.of(config).LENGTHS if positions else ():
        if config.data[key] > positions:
            raise UserError(
                f"data.{key} is {config.data[key]}, but the text tower has {positions} positions; lower it."
            )


def _check_model(config: Any) -> None:
    """Builds the model as shapes, its objectives and its optimizer."""
    if "width" not in config.model.vision:
        return  # it could not be resolved, which has been reported
    model = make_model(models.make_spec(config, vocabulary=config.data.vocabulary or None))
    systems.of(config).make_phases(config, model)
    lora = models.lora_of(config)
    if lora or config.optimizer.freeze or config.optimizer.multipliers:
        from flax.linen import unbox

        params, optimizer = abstract_params(model), make_optimizer(config.optimizer, steps=config.training.steps)
        if lora:
            lora.check(unbox(params), config.optimizer.freeze)
            params = jax.eval_shape(lora.add, params, jax.random.key(0))
        jax.eval_shape(optimizer.init, unbox(params))
