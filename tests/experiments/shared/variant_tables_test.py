"""Tables of variants: differences seed by seed, Student's intervals, and curves over the number of triplets."""

import math

import numpy as np
import pytest

from contextjax.types import UserError
from experiments.shared.variant_tables import differences, interval, phrase_tables, table, write_page


def row(variant, seed, **metrics):
    return {
        "variant": variant,
        "seed": str(seed),
        "steps": 9,
        "seconds": 60.0,
        "metrics": metrics,
        "date": "2026-11-29",
    }


ROWS = [
    *(row("triplets500,no_consistency", seed, **{"R@1": 10.0 + seed, "multi/R@1": 3.0}) for seed in range(3)),
    *(row("triplets500", seed, **{"R@1": 12.0 + 2 * seed, "grounding/pointing": 50.0}) for seed in range(3)),
    row("triplets2000", 0, **{"R@1": 30.0}),
]


def test_differences_are_of_the_same_seeds_with_students_interval():
    lines = differences(ROWS, "triplets500,no_consistency").splitlines()
    assert lines[0] == "| minus triplets500,no_consistency | seeds | R@1 | multi/R@1 | grounding/pointing |"
    half = 4.302653 / math.sqrt(3)  # the differences are 2, 3, 4
    assert lines[2] == f"| triplets500 | 3 | +3.0 ({3 - half:.1f} to {3 + half:.1f}) | - | - |"
    assert lines[3] == "| triplets2000 | 1 | +20.0 | - | - |"  # of one seed there is no interval
    with pytest.raises(UserError, match="no row of the variant 'sum'; the rows are of triplets500,no_consistency"):
        differences(ROWS, "sum")


@pytest.mark.parametrize("seed", range(5))
def test_the_interval_is_scipys(seed):
    from scipy import stats

    values = np.random.default_rng(seed).normal(size=2 + seed)
    expected = stats.t.interval(0.95, len(values) - 1, loc=values.mean(), scale=stats.sem(values))
    np.testing.assert_allclose(interval(values.tolist()), expected, rtol=1e-9)
    assert np.isnan(interval([1.0])).all()


def test_metrics_by_noun_phrases_are_means_over_seeds_for_each_split():
    by = lambda recall: {"2": {"R@1": recall, "Rs@1": 50.0, "n_queries": 9}, "10": {"R@1": 0.0, "n_queries": 1}}
    rows = [row("recipe", seed, **{"R@1": 1.0}) | {"split": "val", "by_phrases": by(10.0 * seed)} for seed in range(3)]
    rows[0]["splits"] = {"multi": {"queries": 5, "by_phrases": {"3": {"R@1": 7.0, "Rs@1": 8.0}}}}
    assert phrase_tables(rows).splitlines() == [
        "| R@1 / Rs@1 by noun phrases | split | 2 | 3 | 10 |",
        "|---|---|---|---|---|",
        "| recipe | multi | - | 7.0 / 8.0 | - |",
        "| recipe | val | 10.0 / 50.0 | - | 0.0 / - |",
    ]
    assert phrase_tables(ROWS) == ""


def test_the_table_has_means_and_spreads():
    lines = table(ROWS).splitlines()
    assert lines[0] == "| variant | seeds | steps | seconds | R@1 | multi/R@1 | grounding/pointing |"
    assert set(lines[1]) == {"|", "-"} and lines[1].count("---") == 7
    assert lines[3] == "| triplets500 | 3 | 9 | 60–60 | 14.0 ± 2.0 | - | 50.0 ± 0.0 |"


def test_the_page_draws_each_setting_over_the_number_of_triplets(tmp_path):
    write_page(tmp_path / "page.html", ROWS, title="consistency")
    page = (tmp_path / "page.html").read_text()
    assert (
        "<title>consistency · comparison</title>" in page
        and "R@1: recipe ends at 30, no_consistency ends at 11" in page
    )
    assert page.count('interval" points') == 4  # R@1 of two settings, multi/R@1 and grounding of one
    assert ">2,000</text>" in page and "triplets500,no_consistency" in page
    with pytest.raises(UserError, match="no finished run to make a page of"):
        write_page(tmp_path / "page.html", [], title="x")
