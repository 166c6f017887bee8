"""One timed run of each mode: training by `fit`, embedding and evaluation by `System`."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from contextjax import images as image_files
from contextjax.analysis.cost import matmul_flops, traced_flops
from contextjax.evaluation import evaluate_candidates, evaluate_retrieval, gallery_rows
from contextjax.optim import make_optimizer, make_schedule
from contextjax.system import System
from contextjax.tokenizers import train_tokenizer
from contextjax.training.compile_counter import CompileCounter
from contextjax.training.loop import fit
from contextjax.training.task import Task
from contextjax.types import ComposedRecord
from contextjax.variants import make_model
from data_pipelines import protocols
from experiments.benchmarks.clock import Enough, clocked
from experiments.benchmarks.synthetic import SyntheticPictures, candidate_records, composed_records, synthetic_batch
from experiments.shared import models, systems
from experiments.shared.abstract_step import abstract_step, with_sizes
from experiments.shared.data import evaluated, load_evaluated
from experiments.shared.training import fit_config, train

WARM = 3  # steps before the first that counts: the loop is one step ahead of the device


@dataclasses.dataclass(frozen=True)
class Timing:
    """The seconds of each step that counts, and what else was measured."""

    seconds: list[float]
    samples: int  # a step
    flops: float | None  # of a step's matrix products; None: not counted in this mode
    first_step: float  # the moment at which the first step was done, of time.perf_counter
    recompiles: int  # during the steps that count
    data_wait: float | None  # share of a step in which it waits for data; None: there is no loader


def training(config: Any, *, steps: int, real: bool, workdir: Path) -> Timing:
    """Times training steps, fed by the loader or by one synthetic batch over and over.

    With real data the same steps run once more with one batch over and over; the difference is the wait for data.
    """
    config = quiet(config, steps, first=not steps)
    step = abstract_step(config)
    moments, counter = _train(config, step, workdir / "loader", steps, real=real)
    seconds, recompiles = _differences(moments), counter()
    wait = None
    if real and steps:
        over = lambda stream: itertools.repeat(next(stream))
        alone = _differences(_train(config, step, workdir / "one_batch", steps, real=True, change=over)[0])
        wait = max(0.0, 1 - statistics.median(alone) / statistics.median(seconds))
    flops = matmul_flops(step.traced.jaxpr)
    return Timing(seconds, config.data.batch_size, flops, moments[min(2, len(moments) - 1)], recompiles, wait)


def quiet(config: Any, steps: int, *, first: bool) -> Any:
    """Returns the config without evaluations, checkpoints and log lines; `first`: the run waits for its first step."""
    config = config.copy_and_resolve_references()
    config.training.update({
        "steps": 10**6, "checkpoint_every": 10**6, "evaluate_every": 10**6, "diagnose_every": 0,
        "log_every": 1 if first else 10**6,
    })  # fmt: skip
    return config


def _train(
    config: Any, step: Any, workdir: Path, steps: int, *, real: bool, change: Callable = iter
) -> tuple[list[float], Callable[[], int]]:
    """The moments of WARM + steps steps, and a call that counts the compilations after the first WARM."""
    moments: list[float] = []
    counters: list[CompileCounter] = []

    def counted(stream: Iterator[Any]) -> Iterator[Any]:
        for number, item in enumerate(change(stream)):
            if number == WARM:
                counters.append(CompileCounter())
            yield item

    through = clocked(moments, limit=WARM + steps if steps else 2, change=counted)
    with contextlib.suppress(Enough):
        if real:
            train(config.copy_and_resolve_references(), workdir, through=through)
        else:
            shapes = systems.of(config).abstract_batch(step.config, cuts=step.cuts)
            batch = synthetic_batch(shapes, vocabulary=step.vocabulary)
            task = Task(
                init_params=models.make_init(step.model, models.lora_of(config)),
                optimizer=make_optimizer(config.optimizer, steps=config.training.steps),
                schedule=make_schedule(config.optimizer, steps=config.training.steps),
                phases=[dataclasses.replace(step.phase, start=0)],
                batches=lambda start: through(itertools.repeat(batch)),
                seed=config.seed,
            )
            fit(fit_config(config, workdir), task)
    return moments, lambda: counters[0].unexpected if counters else 0


def _differences(moments: list[float]) -> list[float]:
    return [b - a for a, b in itertools.pairwise(moments[WARM:])]


def embedding(config: Any, *, steps: int, real: bool) -> Timing:
    """Times `steps` calls of System.encode_gallery on a batch of pictures; the wait is the pictures' preparation."""
    config = with_sizes(config)
    system, size = make_system(config), config.data.batch_size
    if real:
        table: Any = load_evaluated(config, config.data.val_split).pictures
    else:
        table = SyntheticPictures(size, system.image_size)
    rows = itertools.cycle(range(len(table)))
    waits: list[float] = []

    def pictures() -> list[Any]:
        begin = time.perf_counter()
        decoded = [image_files.load(table[next(rows)], system.image_size, fit=system.fit) for _ in range(size)]
        waits.append(time.perf_counter() - begin)
        return decoded

    seconds, first, recompiles = _repeat(lambda: system.encode_gallery(pictures()), steps)
    pixels = jax.ShapeDtypeStruct((size, system.image_size, system.image_size, 3), jnp.uint8)
    share = statistics.median(waits[1:]) / statistics.median(seconds) if seconds else None
    return Timing(seconds, size, traced_flops(*image_program(system), pixels), first, recompiles, share)


def evaluation(config: Any, *, steps: int, real: bool) -> Timing:
    """Times `steps` whole evaluations with random weights, on the config's data or on a synthetic gallery."""
    config = with_sizes(config)
    system = make_system(config)
    reader, _ = evaluated(config)
    if real:
        data = load_evaluated(config, config.data.val_split)
        records, pictures = data.records, data.pictures
    elif hasattr(system.model, "compose"):
        pictures = SyntheticPictures(config.data.batch_size, system.image_size)
        records = composed_records(pictures, config.data.batch_size)
    else:
        pictures = SyntheticPictures(config.data.batch_size * config.data.candidates, system.image_size)
        records = candidate_records(pictures, config.data.batch_size, config.data.candidates)
    system.tokenizer = train_tokenizer(
        [r.text for r in records], vocabulary=300, length=models.make_spec(config).text_length
    )
    flops = None
    if isinstance(records[0], ComposedRecord):
        protocol = protocols.of_reader(reader)
        run = lambda: evaluate_retrieval(system, protocol, records, pictures)  # pyright: ignore[reportArgumentType]
        if hasattr(system.model, "compose"):
            composed: Any = records
            flops = _retrieval_flops(system, len(records), len(gallery_rows(protocol, composed, pictures)))
    else:
        run = lambda: evaluate_candidates(system, records, pictures)  # pyright: ignore[reportArgumentType]
    seconds, first, recompiles = _repeat(run, steps)
    return Timing(seconds, len(records), flops, first, recompiles, None)


def make_system(config: Any) -> System:
    """Returns the config's model with random parameters, as yet without a tokenizer."""
    config = with_sizes(config)
    spec = models.make_spec(config, vocabulary=config.data.vocabulary or None)
    model = make_model(spec)
    init = models.make_init(model)
    params = jax.jit(lambda: nn.unbox(init(jax.random.key(config.seed))))()
    no_tokenizer: Any = None
    return System(model, params, no_tokenizer, propositions=spec.propositions)


def image_program(system: System) -> tuple[Callable, Any]:
    """Returns the function of parameters and pixels that encode_gallery runs, and the parameters."""

    def embed(params: Any, pixels: Any) -> Any:
        model = system.model.bind({"params": params})
        return model.embed_image(model.encode_image(pixels))

    return embed, system.params


def _retrieval_flops(system: System, queries: int, gallery: int) -> float:
    """FLOPs of every gallery picture once, and of every query with its reference and a text of 16 tokens."""

    def query(params: Any, pixels: Any, ids: Any, mask: Any) -> Any:
        model = system.model.bind({"params": params})
        return model.compose(model.encode_image(pixels), ids, mask).query

    pixels = jax.ShapeDtypeStruct((1, system.image_size, system.image_size, 3), jnp.uint8)
    text = jax.ShapeDtypeStruct((1, 16), jnp.int32), jax.ShapeDtypeStruct((1, 16), jnp.bool_)
    each = traced_flops(query, system.params, pixels, *text)
    return gallery * traced_flops(*image_program(system), pixels) + queries * each


def _repeat(run: Callable[[], Any], steps: int) -> tuple[list[float], float, int]:
    """Seconds of `steps` runs after a first one, the moment at which that was done, and compilations since."""
    run()
    first, counter, seconds = time.perf_counter(), CompileCounter(), []
    for _ in range(steps):
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
    return seconds, first, counter.unexpected
