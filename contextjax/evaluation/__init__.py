"""Evaluates a system on records: ranks a gallery by a protocol or each record's own candidates, then metrics."""

from contextjax.evaluation.candidates import (
    CandidateEvaluation,
    CandidateScorer,
    Propositions,
    evaluate_candidates,
    score_records,
    with_texts_of_other_sets,
)
from contextjax.evaluation.grounding import evaluate_grounding
from contextjax.evaluation.probes import run_probes
from contextjax.evaluation.retrieval import (
    Encoder,
    Evaluation,
    encode_rows,
    evaluate_retrieval,
    gallery_rows,
    mean_metrics,
    rank_records,
)
from contextjax.evaluation.shared import Pictures
from contextjax.evaluation.single_modality import single_modality

__all__ = [
    "CandidateEvaluation",
    "CandidateScorer",
    "Encoder",
    "Evaluation",
    "Pictures",
    "Propositions",
    "encode_rows",
    "evaluate_candidates",
    "evaluate_grounding",
    "evaluate_retrieval",
    "gallery_rows",
    "mean_metrics",
    "rank_records",
    "run_probes",
    "score_records",
    "single_modality",
    "with_texts_of_other_sets",
]
