"""Scores a system by a protocol: its metrics, beside those of the simpler ways to query or score with its towers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from contextjax.evaluation import (
    Evaluation,
    Propositions,
    encode_rows,
    evaluate_candidates,
    evaluate_retrieval,
    gallery_rows,
    mean_metrics,
    single_modality,
    with_texts_of_other_sets,
)
from contextjax.spec import TOKEN_QUERIES
from contextjax.system import System
from contextjax.types import CandidateRecord, EvaluationProtocol
from data_pipelines.datasets import READERS
from data_pipelines.tables import SplitData


def evaluate(system: System, protocol: EvaluationProtocol, data: SplitData, **options: Any) -> Any:
    """Returns a split's Evaluation or CandidateEvaluation, by its kind of records; `options` are the evaluator's."""
    if has_candidates(protocol):
        return evaluate_candidates(system, data.records, data.pictures, pairs=protocol.pairs, **options)
    asking = system.with_query(protocol.query) if protocol.query else system
    return evaluate_retrieval(asking, protocol, data.records, data.pictures, **options)


def has_candidates(protocol: EvaluationProtocol) -> bool:
    """Returns whether a protocol is one of candidate sets, and not of composed queries."""
    return READERS[protocol.reader].record_type is CandidateRecord


def score(
    system: System,
    protocol: EvaluationProtocol,
    parts: Mapping[str, SplitData],
    *,
    baselines: bool,
    propositions: Propositions | None = None,
    share: float = 0.5,
    phrases: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Scores a system on the parts of a split.

    Args:
      system: the system.
      protocol: says how it is scored.
      parts: the data of each part by name. Several are scored one by one: the metrics are their mean, and each part's
        own stand where kinds do.
      baselines: whether the simpler ways to query or score are scored too.
      propositions, share: short sentences of descriptions, and the share of the whole text, see evaluate_candidates.
      phrases: text -> number of its noun phrases, by which metrics of composed queries are reported too.

    Returns:
      n_queries, n_gallery, the name of the query, and metrics of it, by kind, by number of phrases, and of the
      baselines; with those, how many queries a single modality answers, see evaluation.single_modality.
    """
    main, others, change = _ways(system, protocol)
    if has_candidates(protocol):
        own, shared = [{"propositions": propositions, "share": share}] * len(parts), [{}] * len(parts)
    else:
        # The gallery is the same for every way to query, and so encoded once for all; but for "token_max", which
        # compares the vectors whose means the others do.
        own = _galleries(change(main) if protocol.query else system, protocol, parts)
        shared = _galleries(change("token_mean"), protocol, parts) if main == "token_max" and baselines else own
    evaluate_all = lambda system, options: [
        evaluate(system, protocol, data, **more) for data, more in zip(parts.values(), options, strict=True)
    ]
    mean = lambda evaluations: mean_metrics([each.metrics() for each in evaluations])
    evaluations = evaluate_all(system, own)
    by_part = {
        part: {**each.metrics(), "n_queries": len(each.records)} for part, each in zip(parts, evaluations, strict=True)
    }
    options = lambda name: _galleries(change(name), protocol, parts) if name == "token_max" else shared
    simpler = {name: evaluate_all(change(name), options(name)) for name in others if baselines}
    beside = {name: mean(each) for name, each in simpler.items()}
    alone = {name: each for name, each in simpler.items() if name in ("image", "text")}
    if has_candidates(protocol):
        beside |= evaluations[0].baselines()
        data = next(iter(parts.values()))
        if moved := with_texts_of_other_sets(data.records):
            others_texts = evaluate_candidates(system, moved, data.pictures)
            beside["texts of other sets"] = others_texts.metrics()
            alone = {"image": [others_texts]} if len(evaluations) == 1 else {}
    return {
        "n_queries": sum(len(each.records) for each in evaluations),
        "n_gallery": sum(getattr(each, "n_gallery", len(data.pictures))
                         for each, data in zip(evaluations, parts.values(), strict=True)),
        "query": main,
        "metrics": mean(evaluations),
        "by_kind": evaluations[0].by_kind() if len(evaluations) == 1 else by_part,
        "by_phrases": _by_phrases(evaluations[0], phrases) if phrases and len(evaluations) == 1 else {},
        "baselines": beside,
        "single_modality": single_modality(evaluations, alone),
    }  # fmt: skip


def _ways(system: System, protocol: EvaluationProtocol) -> tuple[str, list[str], Callable[[str], System]]:
    """Returns the way in which the system is queried or scores, the simpler ways, and what changes to one.

    An export has one way, and neither of the methods: they are asked for when they are needed.
    """
    if has_candidates(protocol):
        others = [name for name in system.scores if name != system.score]
        return system.score, others, lambda name: system.with_score(name)
    main = protocol.query or system.query
    ways = (*(TOKEN_QUERIES if main in TOKEN_QUERIES else ()), "image", "text", "sum")
    others = [name for name in ways if main not in ("image", "text") and name != main and name in system.queries]
    return main, others, lambda name: system.with_query(name)


def _by_phrases(evaluation: Evaluation, phrases: Mapping[str, int]) -> dict[str, Any]:
    """Returns the metrics of composed queries by the number of noun phrases of their texts."""
    return evaluation.by([(phrases[record.text],) for record in evaluation.records])


def _galleries(system: System, protocol: EvaluationProtocol, parts: Mapping[str, SplitData]) -> list[dict[str, Any]]:
    """Returns the option `embeddings` of an evaluation of each part."""
    rows = lambda data: gallery_rows(protocol, data.records, data.pictures)
    return [{"embeddings": encode_rows(system, data.pictures, rows(data))} for data in parts.values()]
