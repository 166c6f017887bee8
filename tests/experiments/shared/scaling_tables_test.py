"""The page on scaling: its tables are those of the plans in the repository."""

from pathlib import Path

import pytest

from contextjax.analysis.chips import ATTAINABLE, USABLE
from contextjax.types import UserError
from experiments.shared import scaling_tables

ROOT = Path(__file__).parents[3]


def test_the_page_has_the_tables_of_the_plans():
    page = (ROOT / "docs" / "results" / "scaling.md").read_text(encoding="utf-8")
    for table in scaling_tables.tables(ROOT / "results" / "plans"):
        assert table in page, f"docs/results/scaling.md lacks this table of experiments.scaling:\n{table}"


def test_the_page_assumes_what_the_code_does():
    page = " ".join((ROOT / "docs" / "results" / "scaling.md").read_text(encoding="utf-8").split())
    assert f"attainable = {ATTAINABLE:g} and hidden = 0 are assumptions" in page
    assert f"does not fit {100 * USABLE:g} % of the chip's memory" in page


def test_a_folder_without_plans_is_an_error(tmp_path):
    with pytest.raises(UserError, match="has no plan; expected what"):
        scaling_tables.tables(tmp_path)
