"""Fixtures of the tests of the comparisons."""

import dataclasses

import pytest


@pytest.fixture
def compare_tiny():
    """compare_tiny(case, **options): the tables of a case at its tiny size."""

    def compare(case, **options):
        pytest.importorskip("torch")
        pytest.importorskip("transformers")
        return case.compare(dataclasses.replace(case.Options(size="tiny", pairs=2, threads=1), **options))

    return compare
