"""Evaluates a vision-language model as judge, on the candidates of a protocol or the first pictures of a ranking."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import contextjax
from contextjax import metrics
from contextjax.evaluation import evaluate_retrieval, mean_metrics
from contextjax.evaluation.shared import check_targets
from contextjax.files import local_path, write_whole
from contextjax.threads import map_ahead
from contextjax.types import EvaluationProtocol, UserError
from data_pipelines import protocols
from data_pipelines.chat.answers import AnswerCache, Asker
from data_pipelines.chat.batches import BatchModel
from data_pipelines.chat.costs import ForecastAsker, Spending, Tally
from data_pipelines.chat.local import LocalModel
from data_pipelines.chat.questions import Question, Reply, Waiting
from data_pipelines.judge.judge import PROMPTS, Judge, Vote, read_prompts
from data_pipelines.tables import PictureTable
from experiments.shared.chat_settings import log_spending, print_batches, with_progress
from experiments.shared.data import evaluated
from experiments.shared.judge_settings import JudgeSettings, make_model
from experiments.shared.judging import (
    ChooseTask,
    GroupTask,
    RerankTask,
    Task,
    by_position,
    draw_rows,
    scores_of,
    shown_picture,
    windowed,
)
from experiments.shared.run_config import read_config
from experiments.shared.run_evaluation import ChosenSplit, checkpoint_of, choose_split, print_tables, safe_name
from experiments.shared.scoring import has_candidates

PICTURES_KEPT = 64  # in memory
PLACE = "judge"  # in the workdir: answers and the log of spending


class _PictureForm(NamedTuple):
    """The size and fit of pictures where there is no system. No result depends on them: a judge is shown the files."""

    image_size: int = 224
    fit: str = "crop"


class Drawn(NamedTuple):
    """The task of all records that any seed has drawn, and the task's rows that each seed has drawn."""

    task: Task
    rows: Mapping[int, np.ndarray]


def judge_run(
    settings: JudgeSettings, workdir: Path, *, source: str = "", checkpoint: str = "", **choice: Any
) -> dict[str, Any]:
    """Asks a judge and writes the result, WORKDIR/evaluation.judge.*.json; a dry run prints its forecast.

    Args:
      settings: the settings of the judge.
      workdir: where the result and the answers are written; also the run whose ranking is re-ordered.
      source: published weights whose ranking is re-ordered instead of that of the workdir's run.
      checkpoint: best, newest or a step; see contextjax.load.
      choice: see run_evaluation.choose_split.

    Returns:
      the result; {} after a dry run, and where answers from batch files are pending.

    Raises:
      UserError: settings, data or protocol do not fit each other, the model is unavailable, or no answer is valid.
    """
    workdir = local_path(workdir)
    is_run = not source and (workdir / "config.json").exists()
    if not is_run and not (choice.get("folder") and choice.get("protocol")):
        raise UserError(f"--data or --protocol is missing, and {workdir} is no run that names them; give both.")
    config = read_config(workdir) if is_run else None
    name = choice.get("protocol")
    _check_protocol(settings, protocols.named(name) if name else protocols.of_reader(evaluated(config)[0]))
    system: Any = contextjax.load(source or workdir, checkpoint=checkpoint) if settings.rerank else _PictureForm()
    chosen = choose_split(system, config, **choice)
    _check_whole(chosen)
    (data,) = chosen.parts.values()
    check_targets(data.records)
    drawn = _draw(settings, chosen, system)
    judge = Judge(_never, _prompts(settings, drawn.task), settings.orders, settings.verify)
    longest = 0 if settings.verify or isinstance(drawn.task, ChooseTask) else max(map(len, drawn.task.candidates))
    model = make_model(settings, candidates=longest, gives_odds=not longest)
    answers = local_path(settings.answers) if settings.answers else workdir / PLACE / "answers.sqlite"
    if settings.dry_run:
        print("\n".join(_forecast(settings, drawn.task, judge, model, AnswerCache(answers), data.pictures)))
        return {}
    tally = Tally(Asker(model, AnswerCache(answers), uuid.uuid4().hex))
    votes = _ask(settings, drawn.task, dataclasses.replace(judge, ask=tally), tally, data.pictures, workdir)
    if isinstance(model, BatchModel) and _print_waiting(model, votes):
        return {}
    result = _result(settings, chosen, drawn, [own for own in votes if own is not None])
    result |= {"judge": _describe(settings, judge, model, tally, votes)}
    result |= _origin(system)
    file = workdir / _file(chosen, result)
    write_whole(file, json.dumps(result, indent=2) + "\n")
    _print(result, file)
    return result


def _never(question: Question) -> Reply:
    raise AssertionError("nothing is asked yet")


def _check_whole(chosen: ChosenSplit) -> None:
    """Raises UserError where a protocol is the mean of several splits."""
    if len(chosen.parts) > 1:
        whole = ", ".join(name for name, other in protocols.PROTOCOLS.items() if not other.parts)
        raise UserError(
            f"'{chosen.protocol.name}' is the mean of {', '.join(chosen.parts)}, and a judge is asked about one split: "
            f"give --split={next(iter(chosen.parts))}.{chosen.split}, or another --protocol ({whole})."
        )


def _check_protocol(settings: JudgeSettings, protocol: EvaluationProtocol) -> None:
    """Raises UserError where the settings do not fit the protocol."""
    if has_candidates(protocol):
        if settings.rerank or settings.verify:
            name = "rerank" if settings.rerank else "verify"
            raise UserError(
                f"--{name} is for composed queries, and '{protocol.name}' has candidate sets; leave it out."
            )
        return
    if settings.window:
        raise UserError(f"--window is for candidate sets, and '{protocol.name}' has composed queries; leave it out.")
    if not settings.rerank and not (protocol.subset_recall_at or protocol.gallery == "own"):
        raise UserError(
            f"'{protocol.name}' has no groups to order; give --rerank=N and a run as --workdir or weights as --source, "
            "whose ranking the judge re-orders."
        )


def _draw(settings: JudgeSettings, chosen: ChosenSplit, system: Any) -> Drawn:
    (data,) = chosen.parts.values()
    records: Any = windowed(data.records, settings.window) if settings.window else data.records
    if not settings.rerank and not has_candidates(chosen.protocol):
        records = [record for record in records if record.target in record.subset]
        if left_out := len(data.records) - len(records):
            print(f"{left_out:,} of {len(data.records):,} queries have no group with their target and are not asked.")
        if not records:
            raise UserError(f"No query of split '{chosen.split}' has a group with its target; give --rerank=N.")
    draws = {seed: draw_rows(records, settings.records, seed, pairs=chosen.protocol.pairs) for seed in settings.numbers}
    every = np.unique(np.concatenate(list(draws.values())))
    some = [records[row] for row in every]
    if settings.rerank:
        keep = max(settings.rerank, 10)
        evaluation = evaluate_retrieval(system, chosen.protocol, data.records, data.pictures, keep=keep)
        task: Task = RerankTask(evaluation.of_rows(every), data.pictures.ids, settings.rerank)
    elif has_candidates(chosen.protocol):
        task = ChooseTask(some, pairs=chosen.protocol.pairs)
    else:
        task = GroupTask(some, chosen.protocol)
    return Drawn(task, {seed: np.searchsorted(every, rows) for seed, rows in draws.items()})


def _prompts(settings: JudgeSettings, task: Task) -> Mapping[str, Any]:
    name = "choose" if isinstance(task, ChooseTask) else "verify" if settings.verify else "order"
    return read_prompts(Path(settings.prompts) if settings.prompts else PROMPTS, name)


def _forecast(
    settings: JudgeSettings, task: Task, judge: Judge, model: Any, cache: AnswerCache, pictures: PictureTable
) -> list[str]:
    """Returns lines that count the questions that would be asked, with a stand-in for each answer that is not kept."""

    def stand_in(question: Question, key: str) -> str:
        count = dict(question.values).get("count", "1")
        order = json.dumps({"order": list(range(1, int(count) + 1))})
        return {"choose": '{"picture": 1}', "verify": "yes", "order": order}[question.prompt.name]

    half = max(1, _longest(model) // 2)
    ask = ForecastAsker(model, cache, stand_in=stand_in, picture_tokens=settings.picture_tokens, answer_tokens=half)
    show = functools.lru_cache(PICTURES_KEPT)(functools.partial(shown_picture, pictures))
    for row in range(len(task.records)):
        task.ask(dataclasses.replace(judge, ask=ask), row, show)
    spending = Spending(ask.counts, settings.prices, about="about ")
    assumed = f"{settings.picture_tokens} tokens a picture, {half} an answer, four letters a token"
    return [*spending.lines(), f"Assumed where no answer is kept yet: {assumed}. Nothing was asked."]


def _longest(model: Any) -> int:
    body = model.settings.get("body", model.settings)
    most = body.get("max_completion_tokens", body.get("max_tokens", body.get("answer_tokens", 20)))
    return most if isinstance(most, int) else 20


def _ask(
    settings: JudgeSettings, task: Task, judge: Judge, tally: Tally, pictures: PictureTable, workdir: Path
) -> list[list[Vote] | None]:
    """Returns the votes on each record, None where answers are pending. Logs the spending, also of a failed run."""
    show = functools.lru_cache(PICTURES_KEPT)(functools.partial(shown_picture, pictures))

    def vote(row: int) -> list[Vote] | None:
        try:
            return task.ask(judge, row, show)
        except Waiting:
            return None

    threads, votes = settings.concurrency if settings.judge == "openai" else 1, []
    mapped = map_ahead(vote, range(len(task.records)), ahead=4 * threads if threads > 1 else 0, threads=threads)
    try:
        votes.extend(with_progress(mapped, len(task.records), "record"))
    finally:
        path = workdir / PLACE / "spending.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        facts = {"model": settings.model, "date": _now(), "finished": len(votes) == len(task.records)}
        log_spending(
            path, tally.asker.cache, run=tally.asker.run, prices=settings.prices, facts=facts, is_empty_logged=False
        )
    return votes


def _print_waiting(model: BatchModel, votes: Sequence[Any]) -> bool:
    """Writes the new questions to batch files, and prints how many records wait; returns whether any does."""
    if model.malformed:
        print(f"{model.malformed:,} lines in the answers' files are no answers; their questions are as if unanswered.")
    waiting = sum(own is None for own in votes)
    if waiting:
        print(f"{waiting:,} of {len(votes):,} records wait for answers.")
        print_batches([model])
    return waiting > 0


def _result(
    settings: JudgeSettings, chosen: ChosenSplit, drawn: Drawn, votes: Sequence[Sequence[Vote]]
) -> dict[str, Any]:
    """Returns the result: mean metrics over seeds, an interval over all draws. Raises UserError: no answer is valid."""
    task, draws = drawn.task, list(drawn.rows.values())
    problems = [problem for own in votes for vote in own for problem in vote.problems]
    if problems and len(problems) == sum(vote.questions for own in votes for vote in own):
        raise UserError(
            f"None of the {len(problems):,} answers of '{settings.model}' counts (the first {problems[0]}); give a "
            "vision-language model as --model that answers in JSON as asked, or your own --prompts."
        )
    scored = task.scored(scores_of(task, votes))
    by_seed = {str(seed): scored.metrics(rows) for seed, rows in drawn.rows.items()}
    every = np.concatenate(draws)
    low, high = metrics.mean_interval(scored.values[every], _numbers(task, every))
    baselines = [scored.baselines(rows) for rows in draws]
    (data,) = chosen.parts.values()
    changes = {"window": settings.window, "rerank": settings.rerank, "verify": int(settings.verify)}
    named = "".join(f"+{name}{value if value > 1 else ''}" for name, value in changes.items() if value)
    return {
        "protocol": chosen.protocol.name + named,
        "split": chosen.split,
        "data": chosen.data,
        "n_queries": len(task.records),
        "n_gallery": len(data.pictures),
        "query": f"judge {settings.model}",
        "metrics": mean_metrics(list(by_seed.values())) | {"low95": low, "high95": high},
        "interval_of": task.interval_of,
        "by_kind": scored.by_kind,
        "baselines": {name: mean_metrics([own[name] for own in baselines]) for name in baselines[0]},
        "by_seed": by_seed if len(by_seed) > 1 else {},
        "by_position": by_position(task, votes),
    }


def _numbers(task: Task, rows: np.ndarray) -> np.ndarray:
    """Returns the number of each row's group, int [len(rows)], in the order in which groups appear."""
    numbers: dict[Any, int] = {}
    return np.asarray([numbers.setdefault(task.groups[row], len(numbers)) for row in rows])


def _describe(settings: JudgeSettings, judge: Judge, model: Any, tally: Tally, votes: Sequence[Any]) -> dict[str, Any]:
    """Returns the facts about the judge in the result: model, date, settings, questions, problems, tokens and cost."""
    cast = [vote for own in votes for vote in own]
    problems = [problem for vote in cast for problem in vote.problems]
    count = tally.count()
    values = {
        "backend": settings.judge, "model": settings.model, "date": _now(), **count,
        "questions": sum(vote.questions for vote in cast),
        "refused": sum(problem.final for problem in problems),
        "unreadable": sum(not problem.final for problem in problems),
        "problems": sorted({str(problem) for problem in problems})[:5],
        "orders": settings.orders, "records": settings.records, "seeds": list(settings.numbers),
        "settings": model.settings, "prices": dataclasses.asdict(settings.prices),
        "cost": settings.prices.cost(count["tokens_in"], count["tokens_out"]),
    }  # fmt: skip
    if isinstance(model, LocalModel):
        values["parameters"] = model.parameters
    return values


def _origin(system: Any) -> dict[str, Any]:
    """Returns the config hash and the step of the run whose ranking was re-ordered; "" and 0 without one."""
    return checkpoint_of("" if isinstance(system, _PictureForm) else system.fingerprint)


def _file(chosen: ChosenSplit, result: Mapping[str, Any]) -> str:
    """Returns the name of the result's file, which differs for other data, settings, prompts or runs."""
    judge = result["judge"]
    about = [result["data"]["identity"], result["config_hash"], result["step"]]
    about += [judge[name] for name in ("backend", "model", "prompts", "orders", "records", "seeds", "settings")]
    digest = hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=4).hexdigest()
    return f"evaluation.judge.{result['protocol']}.{chosen.split}.{safe_name(judge['model'])}-{digest}.json"


def _print(result: Mapping[str, Any], file: Path) -> None:
    print_tables(dict(result))
    judge = result["judge"]
    for seed, row in result["by_seed"].items():
        print(f"seed {seed}: " + ", ".join(f"{name} {value:.1f}" for name, value in row.items()))
    places = (f"{place}: {row['accuracy']:.1f} of {row['n']}" for place, row in result["by_position"].items())
    print(f"First choice right, in percent, by the place of the target: {'; '.join(places) or 'it was never shown'}.")
    served = f" (served as {', '.join(judge['served_as'])})" if judge["served_as"] else ""
    print(
        f"{judge['model']}{served}: {judge['questions']:,} questions, of which {judge['refused']:,} refused and "
        f"{judge['unreadable']:,} unreadable, each counted as wrong; {judge['with_log_probabilities']:,} of "
        f"{judge['answers']:,} answers have log-probabilities; {judge['tokens_in']:,} tokens in, "
        f"{judge['tokens_out']:,} out" + (f"; cost {judge['cost']:,.2f}." if judge["cost"] else ".")
    )
    if "parameters" in judge:
        print(f"Parameters: {judge['parameters']:,}.")
    for problem in judge["problems"][:1]:
        print(f"For example an answer that {problem}.")
    print(f"The result is in {file}.")


def _now() -> str:
    return f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC"
