"""The pages on data sets name what there is."""

import re
from pathlib import Path

import pytest

from data_pipelines.datasets import READERS

PAGES = Path(__file__).parents[3] / "docs" / "reference" / "datasets"


def test_every_reader_is_in_the_index_and_every_page_too():
    index = (PAGES / "README.md").read_text()
    assert set(re.findall(r"^\| `(\w+)`", index, re.MULTILINE)) == set(READERS)
    assert {path.name for path in PAGES.glob("*.md")} == {"README.md", *re.findall(r"\]\((\w+\.md)\)", index)}


@pytest.mark.parametrize("page", sorted(path.name for path in PAGES.glob("*.md")))
def test_pages_name_readers_and_pages_that_there_are(page):
    text = (PAGES / page).read_text()
    assert set(re.findall(r"data\.reader=(\S+)", text)) <= set(READERS)
    assert all((PAGES / link).exists() for link in re.findall(r"\]\((\w+\.md)\)", text))
