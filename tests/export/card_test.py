"""The model card says what the export is, what it was measured with, and nothing that is not known."""

import dataclasses

import pytest

from contextjax.export.card import make_card
from contextjax.variants import spec_of

MANIFEST = {"dtype": "float32", "tokenizer": {"specials": ["<s>", "</s>"]}}
PARITY = {
    "tolerance": 1e-5, "difference": "largest", "hardware": "cpu (x), 2 cores", "dtype": "float32",
    "largest_difference": {"onnx": {"query": {"1": 1e-7, "17": 2e-6}}},
    "trained": {"dtype": "bfloat16", "largest_difference": {"query": {"1": 3e-3}}},
}  # fmt: skip


@pytest.fixture(scope="module")
def spec(tiny):
    return spec_of(tiny.model(), text_length=8, fingerprint="abc-7")


def test_without_run_evaluation_or_programs_the_card_says_so(spec):
    card = make_card(MANIFEST, spec)
    assert card.startswith("---\nlibrary_name: contextjax") and "# ConText-CIR" in card
    assert "step 7 of the training run with config abc, in float32" in card and "No evaluation of this" in card
    assert "## Recipe" not in card and "## Parity" not in card and "at most 8 tokens, <s> first" in card
    assert "trained by whoever exported them" in card
    plain = make_card(MANIFEST, dataclasses.replace(spec, fingerprint=""))
    assert "from published weights" in plain


def test_metrics_parity_and_recipe_are_tables(spec):
    evaluation = {
        "protocol": "cirr", "split": "val", "n_queries": 20, "n_gallery": 30, "query": "fusion",
        "metrics": {"R@1": 12.34, "mAP": None}, "data": {"folder": "data/cirr", "identity": "0f"},
    }  # fmt: skip
    recipe = {"Started from": "openai/clip", "Steps": "12"}
    card = make_card(MANIFEST, spec, recipe=recipe, evaluation=evaluation, parity=PARITY)
    assert "| R@1 | 12.3 |" in card and "mAP" not in card and "of data/cirr (contents 0f)" in card
    assert "| onnx | query | 2.0e-06 |" in card and "up to 3.0e-03 from itself in float32" in card
    assert "| Steps | 12 |" in card and "These weights began as openai/clip: its licence holds here too." in card
