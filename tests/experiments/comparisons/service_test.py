"""The service under load, tiny: all queries are answered, with and without the service."""

import pytest

from configs.pictograms import get_config as pictograms
from experiments.comparisons import service


@pytest.mark.long
def test_queries_are_answered_inside_and_served():
    options = service.Options(config=pictograms("sum,tiny"), batch=2, clients=2, queries=4, pairs=1)
    tables = service.compare(options)
    assert all(len(row["queries/s"]) == 1 and row["queries/s"][0] > 0 for row in tables["queries"].values())
    (ratio,) = tables["ratios"].values()
    served, inside = (tables["queries"][name]["queries/s"][0] for name in ("served", "inside"))
    assert ratio["median"] == served / inside
    assert 0 < tables["waits"]["seconds"]["p50"] <= tables["waits"]["seconds"]["p99"]
