"""A table shows what failed."""

from experiments.fault_injection.outcome import Outcome, table


def test_a_table_shows_what_failed():
    outcomes = [Outcome("one", 5), Outcome("two", 7, lost=1, problems=["it was gone"], note="+0.1 MB")]
    assert table(outcomes).splitlines()[2:] == [
        "| one | 5 | 0 | 0 | pass |", "| two | 7 | 1 | 0 | FAIL, +0.1 MB |", "", "two: it was gone",
    ]  # fmt: skip
