"""Text and data about compiled targets, from compilations that are made up here."""

import json

import pytest

from contextjax.analysis.collectives import Collective
from contextjax.analysis.cost import Cost
from contextjax.analysis.targets import parse_target
from contextjax.analysis.traffic import traffic
from experiments.shared import target_plans
from tests.analysis.small_programs import saved

LOSSES = {"gathered": {"sent": 4e9, "temporary": 1e9}, "ring": {"sent": 2e9, "temporary": 1e6}}
COST = Cost(8, 800e12, 120e12, 4e9, 3e9, 1e9, (Collective("all-reduce", 2e9, 8, 8, 3, True, "", "bf16"),))


def compiled(name, *, cost=COST, needed=8e9):
    return target_plans.Compiled(
        parse_target(name), "low", "bfloat16", cost, traffic(saved("v5e_fsdp")), needed, 61, 2e9, LOSSES
    )


@pytest.mark.parametrize("name", ["v5e:2x4", "H100:1x1x8"])
def test_what_fits(name):
    made = compiled(name)
    text = target_plans.describe(made, COST)
    assert f"fits {name}: 8 GB of" in text and ("low effort" in text) == name.startswith("v5e")
    assert "gathered 4 GB sent and 1 GB held" in text and "loss.contrastive=ring sends least" in text
    assert "all-reduce, bf16" in text and "expected and not measured" in text and "simulated" in text
    figures = json.loads(json.dumps(target_plans.as_json(made)))
    assert figures["fits"] and figures["sent_by_type"] == {"all-reduce": {"bf16": 6e9}}
    assert figures["device_bytes"]["peak"] == 8e9 and figures["device_flops"] == made.flops > 1e10
    assert made.roofline["step"] == made.roofline["instructions"] + made.roofline["sending"]
    assert made.roofline["sending"] == 6e9 / made.target.chip.link


@pytest.mark.parametrize(
    ("name", "cost", "needed", "words"),
    [
        ("v5e:2x4", None, 60e9, "needs 60 GB, 43.1 GB more than there are"),
        ("v5e:2x4", None, None, "needs more than that"),
        ("H100:1x1x8", COST, 90e9, "needs 90 GB, 13.6 GB more than there are"),
    ],
)
def test_what_does_not_fit_says_how_much_is_missing_and_what_to_change(name, cost, needed, words):
    made = compiled(name, cost=cost and Cost(8, 1.0, 1.0, needed, 0.0, 0.0, ()), needed=needed)
    sentence = target_plans.verdict(made)
    assert not made.fits and words in sentence and "remat=full" in sentence
    assert not target_plans.as_json(made)["fits"]
