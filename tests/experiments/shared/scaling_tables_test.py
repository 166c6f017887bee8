"""The page on scaling: its tables are those of the plans in the repository; figures go on along the right lines."""

import json
from pathlib import Path

import pytest

from contextjax.analysis.chips import ATTAINABLE, USABLE
from contextjax.analysis.collectives import Collective
from contextjax.analysis.cost import Cost
from contextjax.types import UserError
from experiments.shared import scaling_tables

ROOT = Path(__file__).parents[3]


def test_the_page_has_the_tables_of_the_plans():
    page = (ROOT / "docs" / "results" / "scaling.md").read_text(encoding="utf-8")
    for table in scaling_tables.tables(ROOT / "results" / "plans"):
        assert table in page, f"docs/results/scaling.md lacks this table of experiments.scaling:\n{table}"


def cost(n):
    """Gradients of 100 bytes added up over n devices; 3 bytes of each gathered by all; 2 a device of activations."""
    sent = (
        Collective("all-reduce", 2 * 100 * (n - 1) / n, n, n, 1, True, ""),
        Collective("all-gather", 3 * (n - 1), n, n, 1, True, ""),
    )
    return Cost(n, n * (50 + 0.5 * n), 60 + 0.5 * n, 0.0, 700.0, 20 + 2.0 * n, 1.0, sent)


def test_the_page_assumes_what_the_code_does():
    page = " ".join((ROOT / "docs" / "results" / "scaling.md").read_text(encoding="utf-8").split())
    assert f"attainable = {ATTAINABLE:g} and hidden = 0 are assumptions" in page
    assert f"does not fit {100 * USABLE:g} % of the chip's memory" in page


@pytest.mark.parametrize("devices", [512, 4096])
def test_figures_go_on_along_lines(devices):
    continued, expected = scaling_tables.continued(cost(8), cost(64), devices=devices), cost(devices)
    for name in ("flops", "device_flops", "arguments", "temporaries", "outputs", "devices"):
        assert getattr(continued, name) == pytest.approx(getattr(expected, name)), name
    assert continued.sent == pytest.approx(expected.sent)
    assert all((operation.group, operation.span) == (devices, devices) for operation in continued.collectives)


def test_a_compiled_plan_is_what_two_smaller_ones_say():
    """The plan of 512 devices follows from those of 8 and 64, for each size that has all three."""
    folder, checked = ROOT / "results" / "plans", 0
    for size in scaling_tables.SIZES:
        paths = [folder / f"{size}-data{n}.json" for n in (8, 64, 512)]
        if not all(path.exists() for path in paths):
            continue
        first, second, third = (scaling_tables.cost_of_plan(json.loads(path.read_text())) for path in paths)
        continued = scaling_tables.continued(first, second, devices=512)
        assert continued.peak == pytest.approx(third.peak, rel=0.03)
        assert continued.flops == pytest.approx(third.flops, rel=1e-5)
        assert sum(continued.sent.values()) == pytest.approx(sum(third.sent.values()), rel=0.05)
        checked += 1
    assert checked


def test_a_folder_without_plans_is_an_error(tmp_path):
    with pytest.raises(UserError, match="has no plan; expected what"):
        scaling_tables.tables(tmp_path)
