"""Runs a synthesis: pairs, pipeline, drafts, files, pages, and the spending log."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import json
import shlex
import sys
import time
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from contextjax.files import local_path, locked
from contextjax.types import UserError
from data_pipelines.chat.answers import AnswerCache
from data_pipelines.chat.batches import BatchModel
from data_pipelines.chat.costs import ForecastAsker, Spending
from data_pipelines.chat.questions import Question
from data_pipelines.cluster.calls import SpreadModel
from data_pipelines.cluster.engine import RayEngine
from data_pipelines.synthesis.drafts import Draft
from data_pipelines.synthesis.grammar import check_address
from data_pipelines.synthesis.pairs import (
    SimilarityBand,
    SourcePictures,
    existing_pairs,
    folder_pictures,
    grouped_pairs,
    mine_groups,
)
from data_pipelines.synthesis.pipeline import Pipeline, run_pipeline, through
from data_pipelines.synthesis.review import read_decisions, read_drafts
from data_pipelines.synthesis.stages import PROMPTS, read_prompts
from data_pipelines.synthesis.write import MARK, WriteCounts, check_source, check_target, remove_stale, write_set
from experiments.shared.chat_settings import log_spending, print_batches, with_progress
from experiments.shared.clusters import engine_of, spread_over
from experiments.shared.data import make_reader
from experiments.synthesis import pages
from experiments.synthesis.config import SynthesisConfig
from experiments.synthesis.embedding import agreement_of, embedded, load_system
from experiments.synthesis.models import batch_models, model_makers


def synthesize(config: SynthesisConfig) -> None:
    """Writes a set of triplets and its pages, or prints the forecast of a dry run.

    Raises:
      UserError: a setting is wrong, the disk is full, a model is unavailable, or no triplet is left.
    """
    target, band = config.target_folder, SimilarityBand(*config.cosines)
    check_target(target)
    pictures, pairs = _pictures(config)
    check_source(target, pictures.folder)
    pipeline = make_pipeline(config, pictures)  # before pictures are embedded: it checks the settings
    mark = target / MARK
    # The nodes read pictures and the CLIP, and write embeddings where pairs are mined; the command writes all else.
    reads = [pictures.folder, *([Path(config.workdir)] if config.workdir else [])]
    address, writes = None if config.dry_run else config.cluster, mark if config.pictures else None
    with engine_of(address, reads=reads, writes=writes, log=mark) as engine:
        _synthesize(config, pipeline, pairs, band, engine)


def _synthesize(
    config: SynthesisConfig, pipeline: Pipeline, pairs: list[Draft], band: SimilarityBand, engine: RayEngine | None
) -> None:
    """Mines pairs where there are none, and runs the pipeline or its forecast."""
    target, pictures = config.target_folder, pipeline.pictures
    if config.pictures:
        pairs = _mined_pairs(config, pictures, band, engine)
    if 0 < config.pairs < len(pairs):
        pairs = [pairs[i] for i in sorted(Random(config.seed).sample(range(len(pairs)), config.pairs))]
    print(f"{len(pairs):,} pairs of {len(pictures.files):,} pictures.", flush=True)
    if config.dry_run:
        print("\n".join(forecast(config, pipeline, pairs)))
        return
    with locked(target / MARK, waits=False):
        remove_stale(target)
        _run(config, pipeline, pairs, engine)


def make_pipeline(config: SynthesisConfig, pictures: SourcePictures) -> Pipeline:
    """Makes the pipeline. Raises UserError: a prompt, an address, a model or a file of decisions is wrong."""
    prompts = Path(config.prompts) if config.prompts else PROMPTS
    read_prompts(prompts)
    if config.grammar:
        check_address(config.grammar)
    make_model, make_writer = model_makers(config, folder=pictures.folder)
    agrees = config.agreement is not None
    return Pipeline(
        pictures=pictures,
        make_model=make_model,
        make_writer=make_writer,
        answers=Path(config.answers) if config.answers else config.target_folder / MARK / "answers.sqlite",
        run=uuid.uuid4().hex,
        prompts=prompts,
        texts=config.texts,
        characters=config.characters,
        grammar=config.grammar,
        language=config.language,
        make_agreement=functools.partial(agreement_of, str(config.workdir), pictures) if agrees else None,
        least_agreement=config.agreement or 0.0,
        decisions={id: decision for file in config.decisions for id, decision in read_decisions(Path(file)).items()},
    )


def forecast(config: SynthesisConfig, pipeline: Pipeline, pairs: Iterable[Draft]) -> list[str]:
    """Counts the questions that the pairs would ask, with stand-ins for answers that are not kept yet."""
    cache, half = AnswerCache(pipeline.answers), config.answer_tokens // 2
    filler = "x" * min(4 * half, 300)

    def stand_in(question: Question, key: str) -> str:
        is_text = question.prompt.name == "difference"
        return json.dumps([f"{key} {key}"] if is_text else [{"object": key, "details": filler}])

    make = functools.partial(
        ForecastAsker, cache=cache, stand_in=stand_in, picture_tokens=config.picture_tokens, answer_tokens=half
    )
    describe = make(pipeline.make_model())
    write = make(pipeline.make_writer()) if pipeline.make_writer else describe
    stages = pipeline.asking_stages(describe, write)
    bad = sum(bool(through(stages, draft).problem) for draft in pairs)
    spending = Spending({**describe.counts, **write.counts}, config.prices, about="about ")
    problems = [f"{bad:,} pairs have pictures that can't be read, or are one."] if bad else []
    assumed = f"{config.picture_tokens} tokens a picture, {half} an answer, four letters a token"
    return [*problems, *spending.lines(), f"Assumed where no answer is kept yet: {assumed}. Nothing was asked."]


def _run(config: SynthesisConfig, pipeline: Pipeline, pairs: Sequence[Draft], engine: RayEngine | None) -> None:
    begin, facts = time.perf_counter(), _facts(config)
    batches = batch_models(config) if config.batch else []
    if batches:
        writer = (lambda: batches[-1]) if config.writer else None
        pipeline = dataclasses.replace(pipeline, make_model=lambda: batches[0], make_writer=writer)
    is_spread = engine is not None and config.backend == "transformers"  # models that run on the nodes' accelerators
    if is_spread:
        makers = [make and functools.partial(SpreadModel, make) for make in (pipeline.make_model, pipeline.make_writer)]
        pipeline = dataclasses.replace(pipeline, make_model=makers[0], make_writer=makers[1])
    drafts = run_pipeline(
        pairs, pipeline, engine, concurrency=1 if config.backend == "rules" else config.concurrency,
        place="device" if config.agreement is not None and not is_spread else "node",
    )  # fmt: skip
    log = lambda counts: _log_spending(config, pipeline, counts, facts, time.perf_counter() - begin)
    try:
        counts = write_set(
            with_progress(drafts, len(pairs), "pair"), pipeline.pictures, config.target_folder, config.split
        )
    except BaseException:  # a run that fails has spent something, too
        log(None)
        raise
    log(counts)
    print(f"Grammar: {facts['Grammar']}.")
    _write_pages(config, pipeline, counts, facts)
    for file in config.decisions:  # each is a sample by itself
        print(f"{file}: {pages.acceptance(read_decisions(Path(file)))}")
    if config.decisions:
        met = sum(counts.reviewed.values())
        print(f"{met} of {len(pipeline.decisions)} decisions were about texts of this run.")
    _print_outcome(config, counts, batches)


def _log_spending(
    config: SynthesisConfig, pipeline: Pipeline, counts: WriteCounts | None, facts: dict[str, str], seconds: float
) -> None:
    """Prints and logs what this run has asked and paid, and what all runs have whose answers are in the same file."""
    line: dict[str, Any] = {**facts, "seconds": round(seconds, 3), "finished": counts is not None}
    if counts:
        line |= {"pairs": counts.pairs, "triplets": counts.triplets}
        line |= {"removed": counts.removed, "problems": counts.problems}
    log_spending(
        config.target_folder / MARK / "spending.jsonl", AnswerCache(pipeline.answers), run=pipeline.run,
        prices=config.prices, facts=line, is_empty_logged=counts is not None,
    )  # fmt: skip


def _print_outcome(config: SynthesisConfig, counts: WriteCounts, batches: Sequence[BatchModel]) -> None:
    """Prints what waits for answers, and the triplets. Raises UserError: no triplet is left."""
    target = config.target_folder
    if malformed := sum(batch.malformed for batch in batches):
        print(f"{malformed:,} lines in the answers' files are no answers; their questions are as if unanswered.")
    if counts.waiting:
        print(f"{counts.waiting:,} pairs wait for answers.")
        print_batches(batches)
    if counts.triplets:
        origin = f"{counts.pairs:,} pairs and {counts.pictures:,} pictures"
        print(f"{counts.triplets:,} triplets of {origin} are in {target}.")
    elif not counts.waiting:
        raise UserError(
            f"No triplet is left of {counts.pairs:,} pairs; {target / MARK / f'filters.{config.split}.html'} shows why."
        )


def _write_pages(config: SynthesisConfig, pipeline: Pipeline, counts: WriteCounts, facts: dict[str, str]) -> None:
    target, split, seed = config.target_folder, config.split, config.seed
    title, pictures = target.resolve().name, pipeline.pictures
    drafts = read_drafts(target, split)
    page = pages.filters_page(drafts, pictures, counts, title=title, seed=seed, facts=facts)
    pages.write_page(target / MARK / f"filters.{split}.html", page)
    if config.review and counts.triplets:
        drafts = read_drafts(target, split)
        page = pages.review_page(drafts, pictures, config.review, title=title, split=split, seed=seed, facts=facts)
        pages.write_page(target / MARK / f"review.{split}.html", page)
    print(f"Pages to look through: {target / MARK}/*.html")


def _pictures(config: SynthesisConfig) -> tuple[SourcePictures, list[Draft]]:
    """Returns the pictures, and the pairs of --data; pairs of --pictures are mined later."""
    if config.data:
        return existing_pairs(make_reader(config.reader, config.data), config.split)
    return folder_pictures(local_path(str(config.pictures))), []


def _mined_pairs(
    config: SynthesisConfig, pictures: SourcePictures, band: SimilarityBand, engine: RayEngine | None
) -> list[Draft]:
    place = config.target_folder / MARK
    ids, embeddings = embedded(
        load_system(source := str(config.workdir)),
        pictures.folder,
        place / "galleries",
        spread_of=functools.partial(spread_over, engine, source),
    )
    groups = mine_groups(embeddings, band, size=config.group, seed=config.seed)
    page = pages.band_page(ids, embeddings, pictures, band, len(groups), seed=config.seed, facts=_facts(config))
    pages.write_page(place / "band.html", page)
    print(f"Groups of {config.group} in the band: {len(groups):,}; examples: {place / 'band.html'}")
    if not groups:
        raise UserError(
            f"No {config.group} pictures are alike within the band; look at band.html and choose another --band."
        )
    return grouped_pairs([tuple(ids[row] for row in group) for group in groups], targets=config.targets)


def _facts(config: SynthesisConfig) -> dict[str, str]:
    """Returns how a set was made. The command holds no key, since keys are not given by flags."""
    return {
        "Made by": shlex.join(["python", "-m", "experiments.synthesize", *sys.argv[1:]]),
        "Backend": f"{config.backend} {config.model or ''}".strip(),
        "Grammar": f"checked by {config.grammar}" if config.grammar else "not checked (--grammar is off)",
        "Date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
    }
