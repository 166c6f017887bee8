"""The lines about a catalogue, and the faults that keep it from having any."""

import pytest

from contextjax.types import UserError
from data_pipelines.datasets.catalogue.summary import FAULTS_FILE, check_catalogue
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


def test_faults_that_are_too_many_for_a_message_stand_in_a_file(tmp_path):
    rows = product_rows(60)
    folder = write_catalogue(tmp_path / "c", [*rows, *rows[:20]])
    with pytest.raises(UserError, match=r"has 20 faults: .* and 10 more \(all of them: .*catalogue.faults.txt\)"):
        check_catalogue(folder, DESCRIPTION)
    lines = (folder / FAULTS_FILE).read_text().splitlines()
    assert len(lines) == 20 and lines[-1] == f"line 81 of styles.csv has the id {rows[19][0]} of line 21"
    table = folder / "styles.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:61]) + "\n")
    check_catalogue(folder, DESCRIPTION)
    assert not (folder / FAULTS_FILE).exists()  # the faults are mended


def test_a_catalogue_without_a_product_or_a_training_split_is_told(tmp_path):
    folder = write_catalogue(tmp_path / "c", [])
    with pytest.raises(UserError, match=r"have no row\. Expected at least one product"):
        check_catalogue(folder, DESCRIPTION)
    folder = write_catalogue(tmp_path / "d", [(*row[:4], "", row[5]) for row in product_rows(9)])
    for picture in (folder / "images").iterdir():
        picture.unlink()
    with pytest.raises(UserError, match="have no row without a fault; 9 have one"):
        check_catalogue(folder, DESCRIPTION | {"faults": "skip"})
    folder = write_catalogue(tmp_path / "e", [row for row in product_rows(60) if row[0][-1] == "1"])
    assert "There is no split 'train' to train on; the splits are val." in check_catalogue(folder, DESCRIPTION)
