"""Runs of variants: what is missing is trained and evaluated, and the table is of all."""

import dataclasses

import numpy as np
import pytest

from contextjax.types import UserError
from experiments.shared.variant_runs import VariantRuns, steps_within
from experiments.shared.variant_tables import table
from tests.catalogues import product_rows, write_catalogue


def row(variant, seed, recall, **more):
    return {"variant": variant, "seed": seed, "metrics": {"R@1": recall, "n": 3}, "steps": 7, "seconds": 10.0 * recall,
            **more}  # fmt: skip


def test_the_table_has_means_and_deviations_over_seeds():
    rng = np.random.default_rng(0)
    recalls = rng.uniform(0, 100, 3)
    rows = [row("recipe", str(seed), recall) for seed, recall in enumerate(recalls)] + [row("sum", "0", 25.0)]
    lines = table(rows).splitlines()
    assert lines[0] == "| variant | seeds | steps | seconds | R@1 |"
    assert lines[2].endswith(f"| {recalls.mean():.1f} ± {recalls.std(ddof=1):.1f} |")
    assert lines[3] == "| sum | 1 | 7 | 250–250 | 25.0 ± 0.0 |"


def test_a_variant_without_a_metric_has_none_in_the_table():
    rows = [row("recipe", "0", 50.0), row("sum", "0", 25.0)]
    rows[0]["metrics"]["grounding/pointing"] = 12.5
    lines = table(rows).splitlines()
    assert lines[0].endswith("| R@1 | grounding/pointing |")
    assert lines[2].endswith("| 50.0 ± 0.0 | 12.5 ± 0.0 |") and lines[3].endswith("| 25.0 ± 0.0 | - |")


@pytest.mark.long
def test_the_variants_that_are_missing_are_trained_and_evaluated(pictograms, tmp_path):
    runs = VariantRuns(
        "configs/pictograms.py", tmp_path, seconds=0, stages=None, overrides=[f"data.folder={pictograms}"]
    )
    path, variants = tmp_path / "rows.jsonl", ["tiny", "tiny,sum"]
    rows = runs.complete(path, variants=variants, seeds=["3"])
    assert [(r["variant"], r["seed"], r["steps"]) for r in rows] == [(variant, "3", 12) for variant in variants]
    assert all("Rs@1 by kind" in r and 0 <= r["metrics"]["R@1"] <= 100 for r in rows)
    before = path.read_text()
    assert runs.complete(path, variants=variants, seeds=["3"]) == rows and path.read_text() == before
    assert len(table(rows).splitlines()) == 4


@pytest.mark.parametrize("override", ["training.steps", "=3", ""])
def test_an_override_that_is_no_setting_is_refused(tmp_path, override):
    with pytest.raises(UserError, match=f"--overrides has '{override}', which is no setting"):
        VariantRuns("configs/pictograms.py", tmp_path, seconds=0, stages=None, overrides=["seed=1", override])


def test_a_variant_has_the_stages_that_are_asked_for_and_that_it_has(tmp_path):
    runs = VariantRuns("configs/pictogram_sets.py", tmp_path, seconds=0, stages=("few", "2a", "2b"), overrides=())
    assert runs._stages("paper") == ["few", "2a", "2b"] and runs._stages("2a_longer") == ["few", "2a"]
    every = dataclasses.replace(runs, stages=None)
    assert every._stages("2a_longer") == ["1", "pairs", "few", "2a"] and every._stages("dual") == ["1", "cosine"]
    assert dataclasses.replace(runs, recipe="configs/pictograms.py", stages=None)._stages("recipe") == []


def test_a_variant_without_a_stage_that_is_asked_for_is_refused_before_any_training(tmp_path):
    runs = VariantRuns("configs/pictogram_sets.py", tmp_path / "x", seconds=0, stages=("2b",), overrides=())
    with pytest.raises(UserError, match="--stages has none of the stages of '2a_longer', which are 1, pairs, few, 2a"):
        runs.complete(tmp_path / "rows.jsonl", variants=["paper", "2a_longer"], seeds=["0"])
    assert not (tmp_path / "x").exists()


@pytest.mark.long
def test_rows_of_one_kind_have_its_queries(tmp_path):
    """A kind that no query has is refused; of a catalogue the colours alone have groups."""
    folder = write_catalogue(tmp_path / "data", product_rows())
    make = lambda kind: VariantRuns(
        "configs/catalogue.py",
        tmp_path / "runs",
        seconds=0,
        stages=None,
        overrides=[f"data.folder={folder}"],
        kind=kind,
    )
    path = tmp_path / "rows.jsonl"
    with pytest.raises(
        UserError, match="no queries of the kind 'size'; the evaluation has audience, colour, kind, two"
    ):
        make("size").complete(path, variants=["tiny"], seeds=["0"])
    (row,) = make("colour").complete(path, variants=["tiny"], seeds=["0"])
    own = row["by kind"]["colour"]
    assert row["metrics"]["mAP@10"] == own["mAP@10"] and row["truths"] == own["n_truths"] > 1
    assert row["metrics"]["P@1"] == own["R@1"]
    assert row["queries"] == own["n_queries"] and set(row["Rs@1 by kind"]) == {"colour"} and row["gallery"] == 80


def test_the_steps_of_a_time_follow_from_both_halves_of_a_trial_and_not_from_a_stall():
    at, now = {}, 0.0
    for step in range(1, 61):
        now += (0.1 if step <= 30 else 0.3) + (5.0 if step in (18, 47) else 0.0)
        at[step] = now
    assert steps_within(60, at) == pytest.approx(60 / (0.25 * 0.1 + 0.75 * 0.3), abs=1.5)
