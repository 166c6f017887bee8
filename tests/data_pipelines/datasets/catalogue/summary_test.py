"""The lines about a catalogue, and the faults that keep it from having any."""

import pytest

from contextjax.types import UserError
from data_pipelines.datasets.catalogue.summary import check_catalogue
from tests.catalogues import DESCRIPTION, product_rows, write_catalogue


def test_the_lines_count_what_the_readers_make(tmp_path):
    folder = write_catalogue(tmp_path / "c", product_rows(60))
    lines = check_catalogue(folder, DESCRIPTION)
    assert lines[0] == "60 products; 0 rows are left out."
    assert any(line.startswith("gender: 2 values (") and line.endswith("0 products have none") for line in lines)
    (train,) = [line for line in lines if line.startswith("train: ")]
    assert "queries (" in train and "sets of ten" in train
    assert sum(" -> " in line for line in lines) == 15  # five examples of each split


def test_faults_end_it_or_are_left_out(tmp_path):
    folder = write_catalogue(tmp_path / "c", product_rows(30))
    (folder / "images" / f"{product_rows(30)[3][0]}.jpg").unlink()
    with pytest.raises(UserError, match=r"has 1 faults: .*leave these rows out with --skip"):
        check_catalogue(folder, DESCRIPTION)
    lines = check_catalogue(folder, DESCRIPTION | {"faults": "skip"})
    assert lines[0] == "29 products; 1 rows are left out." and lines[1].startswith("  left out: ")
