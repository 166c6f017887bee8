"""A synthesis from its flags: pairs -> plan -> drafts -> files, pages and what it cost."""

from __future__ import annotations

import datetime
import functools
import json
import shlex
import sys
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

from contextjax.files import local_path, locked
from contextjax.types import UserError
from data_pipelines.synthesis.answers import Answers
from data_pipelines.synthesis.asking import DryAsker, Ledger, Prices
from data_pipelines.synthesis.drafts import Draft
from data_pipelines.synthesis.grammar import check_address
from data_pipelines.synthesis.mining import Band, mine_groups
from data_pipelines.synthesis.plan import Plan
from data_pipelines.synthesis.questions import PROMPTS, read_prompts
from data_pipelines.synthesis.review import read_decisions, read_drafts
from data_pipelines.synthesis.runners import run_local, through
from data_pipelines.synthesis.sources import Pictures, existing_pairs, folder_pictures, grouped_pairs
from data_pipelines.synthesis.write import MARK, Written, check_source, check_target, remove_stale, write_set
from experiments.synthesis import pages
from experiments.synthesis.models import model_makers

SILENCE = 60  # seconds without a line where there is no terminal


def synthesize(flags: Any, beam_options: Sequence[str]) -> None:
    """What the command does."""
    target = local_path(flags.target)
    check_target(target)
    _check(flags, target, beam_options)
    band = _band(flags)
    pictures, pairs = _existing(flags) if flags.data else (folder_pictures(local_path(flags.pictures)), [])
    check_source(target, pictures.folder)
    plan = make_plan(flags, pictures, target)  # what is wrong with flags is told before pictures are embedded
    if flags.pictures:
        pairs = _mined(flags, pictures, band, target)
    if 0 < flags.pairs < len(pairs):
        pairs = [pairs[i] for i in sorted(Random(flags.seed).sample(range(len(pairs)), flags.pairs))]
    print(f"{len(pairs):,} pairs of {len(pictures.files):,} pictures.", flush=True)
    if flags.dry_run:
        print("\n".join(dry_run(flags, plan, pairs)))
        return
    with locked(target / MARK, waits=False):
        remove_stale(target)
        _run(flags, plan, pairs, target, beam_options)


def _check(flags: Any, target: Path, beam_options: Sequence[str]) -> None:
    """Raises UserError where flags do not go together."""
    if beam_options and flags.runner != "beam":
        raise UserError(f"got the extra argument '{beam_options[0]}'; Beam's options need --runner=beam.")
    if bool(flags.data) == bool(flags.pictures):
        raise UserError("Expected --data=SET, whose pairs are taken, or --pictures=FOLDER, whose pairs are mined: one.")
    if flags.pictures and target.resolve().is_relative_to(local_path(flags.pictures).resolve()):
        raise UserError(
            f"{target} lies in --pictures, and its copies would be taken for more of them; give another place."
        )
    if flags.pictures and not flags.workdir:
        raise UserError("--pictures needs a CLIP to find pairs by; give it as --workdir.")
    if flags.batch and flags.backend != "openai":
        raise UserError(f"--batch is for --backend=openai; got --backend={flags.backend}.")
    if flags.batch and flags.runner == "beam":
        raise UserError("--batch asks by files of one process; leave out --runner=beam.")


def make_plan(flags: Any, pictures: Pictures, target: Path) -> Plan:
    """The plan that the flags ask for."""
    prompts = Path(flags.prompts) if flags.prompts else PROMPTS
    read_prompts(prompts)
    if flags.grammar:
        check_address(flags.grammar)
    make_model, make_writer = model_makers(flags, folder=pictures.folder, split=flags.split)
    make_agreement = None
    if flags.agreement is not None:
        if not flags.workdir:
            raise UserError("--agreement needs a CLIP to judge by; give it as --workdir.")
        from experiments.synthesis.embedding import agreement_of

        make_agreement = functools.partial(agreement_of, flags.workdir, pictures)
    return Plan(
        pictures=pictures,
        make_model=make_model,
        make_writer=make_writer,
        answers=Path(flags.answers) if flags.answers else target / MARK / "answers.sqlite",
        run=uuid.uuid4().hex,
        prompts=prompts,
        texts=flags.texts,
        characters=flags.characters,
        grammar=flags.grammar,
        language=flags.language,
        make_agreement=make_agreement,
        least_agreement=flags.agreement or 0.0,
        decisions={id: decision for file in flags.decisions for id, decision in read_decisions(Path(file)).items()},
    )


def dry_run(flags: Any, plan: Plan, pairs: Iterable[Draft]) -> list[str]:
    """What the pairs would ask: one question after the other, with answers that stand for those not there yet."""
    answers = Answers(plan.answers)
    sizes = {"picture_tokens": flags.picture_tokens, "answer_tokens": flags.answer_tokens // 2}
    describe = DryAsker(plan.make_model(), answers, **sizes)
    write = DryAsker(plan.make_writer(), answers, **sizes) if plan.make_writer else describe
    stages = plan.asking_stages(describe, write)
    bad = sum(bool(through(stages, draft).problem) for draft in pairs)
    ledger = Ledger({**describe.counts, **write.counts}, _prices(flags), about="about ")
    told = [f"{bad:,} pairs have pictures that can't be read, or are one."] if bad else []
    assumed = f"{flags.picture_tokens} tokens a picture, {flags.answer_tokens // 2} an answer, four letters a token"
    return [*told, *ledger.lines(), f"Assumed where no answer is kept yet: {assumed}. Nothing was asked."]


def _run(flags: Any, plan: Plan, pairs: Sequence[Draft], target: Path, beam_options: Sequence[str]) -> None:
    begin, batches = time.perf_counter(), []
    if flags.batch:
        plan, batches = _by_files(flags, plan)
    drafts = _drafts(flags, plan, pairs, target, beam_options)
    facts = _facts(flags)
    account = lambda found: _account(flags, plan, found, target, facts, time.perf_counter() - begin)
    try:
        found = write_set(_with_progress(drafts, len(pairs)), plan.pictures, target, flags.split)
    except BaseException:  # what a run has paid is told however it ends
        account(None)
        raise
    account(found)
    print(f"Grammar: {facts['Grammar']}.")
    _write_pages(flags, plan, found, target, facts)
    for file in flags.decisions:  # each a sample by itself
        print(f"{file}: {pages.acceptance(read_decisions(Path(file)))}")
    if flags.decisions:
        met = sum(found.reviewed.values())
        print(f"{met} of {len(plan.decisions)} decisions were about texts of this run.")
    _tell(flags, found, target, batches)


def _account(
    flags: Any, plan: Plan, found: Written | None, target: Path, facts: dict[str, str], seconds: float
) -> None:
    """Tells and writes down what a run has asked and paid, and what all runs have that kept their answers there."""
    answers = Answers(plan.answers)
    own, total = (Ledger(answers.asked_by(run), _prices(flags)) for run in (plan.run, None))
    if not own.counts and found is None:  # it did not begin
        return
    print("\n".join(own.lines()))
    print(f"All runs so far: {total.summary()}.")
    line = {
        **facts,
        "seconds": round(seconds, 3),
        **own.to_json(),
        "total": total.to_json(),
        "finished": found is not None,
    }
    if found:
        line |= {"pairs": found.pairs, "triplets": found.triplets}
        line |= {"removed": found.removed, "problems": found.problems}
    _append(target / MARK / "ledger.jsonl", json.dumps(line))


def _drafts(flags: Any, plan: Plan, pairs: Sequence[Draft], target: Path, options: Sequence[str]) -> Iterable[Draft]:
    if flags.runner == "beam":
        from data_pipelines.synthesis.beam import run_beam

        return run_beam(pairs, plan, options, place=target / MARK)
    return run_local(pairs, plan, concurrency=1 if flags.backend == "rules" else flags.concurrency)


def _by_files(flags: Any, plan: Plan) -> tuple[Plan, list[Any]]:
    import dataclasses

    from data_pipelines.synthesis.batches import BatchModel
    from experiments.synthesis.models import request_body

    folder, options = Path(flags.batch), {"body": request_body(flags), "side": flags.side}
    model = BatchModel(flags.model, folder, **options)
    writer = BatchModel(flags.writer, folder / "writer", **options) if flags.writer else None
    made = dataclasses.replace(plan, make_model=lambda: model, make_writer=(lambda: writer) if writer else None)
    return made, [model, *([writer] if writer else [])]


def _tell(flags: Any, found: Written, target: Path, batches: Sequence[Any]) -> None:
    if malformed := sum(batch.malformed for batch in batches):
        print(f"{malformed:,} lines in the answers' files are no answers; their questions are as if unanswered.")
    if found.waiting:
        print(f"{found.waiting:,} pairs wait for answers.")
        for batch in batches:
            if (files := batch.write()) or batch.waiting:
                new = f"New questions: {', '.join(map(str, files)) or 'none'}; {batch.waiting:,} of earlier files wait."
                print(f"{new} Put the answers in {batch.folder / 'answers'} and run again.")
    if found.triplets:
        print(f"{found.triplets:,} triplets of {found.pairs:,} pairs and {found.pictures:,} pictures are in {target}.")
    elif not found.waiting:
        raise UserError(
            f"No triplet is left of {found.pairs:,} pairs; {target / MARK / f'filters.{flags.split}.html'} shows why."
        )


def _write_pages(flags: Any, plan: Plan, found: Written, target: Path, facts: dict[str, str]) -> None:
    place, split = target / MARK, flags.split
    again = lambda: read_drafts(target, split)
    common: dict[str, Any] = {"title": target.resolve().name, "seed": flags.seed, "facts": facts}
    page = pages.filters_page(again(), plan.pictures, found, **common)
    pages.write_page(place / f"filters.{split}.html", page)
    if flags.review and found.triplets:
        page = pages.review_page(again(), plan.pictures, flags.review, split=split, **common)
        pages.write_page(place / f"review.{split}.html", page)
    print(f"Pages to look through: {place}/*.html")


def _existing(flags: Any) -> tuple[Pictures, list[Draft]]:
    from experiments.shared.data import make_reader

    return existing_pairs(make_reader(flags.reader, flags.data), flags.split)


def _band(flags: Any) -> Band:
    try:
        low, high = map(float, flags.band)
    except ValueError as error:
        raise UserError(f"--band is {','.join(flags.band)}; expected two cosines, as 0.75,0.95.") from error
    return Band(low, high)


def _mined(flags: Any, pictures: Pictures, band: Band, target: Path) -> list[Draft]:
    from experiments.synthesis.embedding import embedded, load_system

    ids, embeddings = embedded(load_system(flags.workdir), pictures.folder, target / MARK / "galleries")
    groups = mine_groups(embeddings, band, size=flags.group, seed=flags.seed)
    page = pages.band_page(ids, embeddings, pictures, band, len(groups), seed=flags.seed, facts=_facts(flags))
    pages.write_page(target / MARK / "band.html", page)
    print(f"Groups of {flags.group} in the band: {len(groups):,}; examples: {target / MARK / 'band.html'}")
    if not groups:
        raise UserError(
            f"No {flags.group} pictures are alike within the band; look at band.html and choose another --band."
        )
    named = [tuple(ids[row] for row in group) for group in groups]
    return grouped_pairs(named, targets=flags.targets)


def _prices(flags: Any) -> Prices:
    return Prices(flags.price_in, flags.price_out)


def _facts(flags: Any) -> dict[str, str]:
    """How it came about: the command has no key in it, for keys are not given by flags."""
    return {
        "Made by": shlex.join(["python", "-m", "experiments.synthesize", *sys.argv[1:]]),
        "Backend": f"{flags.backend} {flags.model or ''}".strip(),
        "Grammar": f"checked by {flags.grammar}" if flags.grammar else "not checked (--grammar is off)",
        "Date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
    }


def _with_progress(drafts: Iterable[Draft], total: int) -> Iterator[Draft]:
    """A bar on a terminal, a line a minute elsewhere."""
    from tqdm import tqdm

    on_terminal, told = sys.stderr.isatty(), time.monotonic()
    for number, draft in enumerate(tqdm(drafts, total=total, unit="pair", disable=not on_terminal), start=1):
        if not on_terminal and time.monotonic() - told > SILENCE:
            told = time.monotonic()
            print(f"{number:,} of {total:,} pairs", flush=True)
        yield draft


def _append(path: Path, line: str) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        raise UserError(f"{path} can't be written ({error}); make room for it and try again.") from error
