"""Costs of answering against counts by hand: what the system adds to its base model, and what it leaves alone."""

import math

import jax
import pytest

from configs import context_blip, context_cir, pictogram_sets, pictograms
from experiments.shared.inference_costs import describe, inference_costs


@pytest.fixture(scope="module")
def composed():
    return inference_costs(pictograms.get_config("tiny"))


@pytest.fixture(scope="module")
def sets():
    return inference_costs(pictogram_sets.get_config("2a,no_context,tiny"))


def test_a_composed_query_costs_more_than_the_sum_and_its_gallery_nothing(composed):
    fusion, total, image, text = composed
    assert [cost.name for cost in composed] == ["ConText-CIR", "CLIP's sum", "CLIP's image alone", "CLIP's text alone"]
    assert fusion.query_flops > total.query_flops == pytest.approx(image.query_flops + text.query_flops)
    assert fusion.candidate_flops == total.candidate_flops == image.candidate_flops > 0
    assert fusion.parameters > total.parameters >= text.parameters and fusion.trained == fusion.parameters
    assert fusion.bytes == 4 * fusion.parameters


@pytest.mark.long
def test_a_candidate_costs_what_the_adapter_and_the_text_that_reads_it_do(sets):
    """The adapter's share by hand; one linear less than the matching head's two outputs."""
    own, match, both, cosine = sets
    assert [cost.name for cost in sets] == ["ContextBLIP, selection", "BLIP, itm", "BLIP, sum", "BLIP, itc"]
    width, tokens = 32, 17  # tiny, 64 pixels
    adapter = 2 * tokens * (width * width // 2 + width // 2 * width)
    assert own.candidate_flops - match.candidate_flops == pytest.approx(adapter - 2 * width, abs=2 * width)
    assert cosine.candidate_flops < match.candidate_flops <= both.candidate_flops
    assert match.query_flops == pytest.approx(0, abs=1) and cosine.query_flops > 0
    assert match.trained == 0 < own.trained < own.parameters  # the image tower is frozen
    assert own.parameters - match.parameters == width * width // 2 * 2 + (width + 1) - 2 * (width + 1)


@pytest.mark.long
def test_the_encoder_adds_to_the_candidates_alone(sets):
    """The encoder's share by hand: projections, the products of ten with ten, and the network of each block."""
    config = pictogram_sets.get_config("2a,paper,tiny")
    own, width, candidates = inference_costs(config)[0], 32, 10
    block = 2 * (4 * width * width + 2 * candidates * width + 2 * width * 4 * width)
    assert own.candidate_flops - sets[0].candidate_flops == pytest.approx(config.model.context_layers * block)
    assert own.query_flops == sets[0].query_flops == 0 and own.parameters > sets[0].parameters


def test_the_table_says_what_the_system_adds(composed, sets):
    for costs, whose in ((composed, "CLIP's sum"), (sets, "BLIP, itm")):
        lines = describe(costs).splitlines()
        assert lines[0].count("|") == lines[2].count("|") == 7 and f"{costs[0].parameters:,}" in lines[2]
        more = 100 * (costs[0].candidate_flops / costs[1].candidate_flops - 1)
        assert lines[-1] == f"A candidate of {costs[0].name} costs {more:+.1f} % beside {whose}."


@pytest.mark.long
def test_at_the_papers_sizes_it_has_the_papers_parameters():
    """ContextBLIP: those of the golden count without ITC's projections and matching head, which no score reads."""
    config = context_blip.get_config("2b")
    config.model.pretrained = ""
    own, match, *_ = inference_costs(config)
    projections = 2 * (768 * 256 + 256)
    assert own.parameters == 239_995_907 - projections - 2 * (768 + 1) and own.trained == 14_183_424
    assert 0 < own.candidate_flops / match.candidate_flops - 1 < 0.1
    config = context_cir.get_config("L14")
    config.model.pretrained = ""
    fusion, total, *_ = inference_costs(config)
    assert fusion.candidate_flops == total.candidate_flops and math.isfinite(fusion.query_flops)
    assert 0.05 < fusion.query_flops / total.query_flops - 1 < 0.3
    assert jax.default_backend()


def test_adapters_are_what_is_trained_of_frozen_towers(composed):
    config = pictograms.get_config("tiny")
    config.model.lora.update({"rank": 2, "paths": ("clip/vision/layers/mlp",)})
    config.optimizer.freeze = ("clip",)
    whole, thin = composed[1], inference_costs(config)[1]  # CLIP's sum: neither fusion nor pooling
    assert thin.trained == 2 * 2 * (32 + 64) < whole.trained == whole.parameters == thin.parameters
