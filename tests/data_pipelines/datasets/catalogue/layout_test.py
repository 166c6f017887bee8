"""catalogue.json: every value that is none ends with one sentence, and columns are named once."""

import pytest

from contextjax.types import UserError
from data_pipelines.annotations import Fault
from data_pipelines.datasets.catalogue.layout import CatalogueLayout, read_layout
from tests.catalogues import write_catalogue


def test_what_is_written_is_read(catalogue_folder):
    layout = read_layout(catalogue_folder)
    assert layout.tables == ("styles.csv",) and layout.roles == ("audience", "kind", "colour", "fixed")
    assert layout.columns == ("id", "gender", "articleType", "baseColour", "category", "name")
    assert (layout.faults, layout.encoding, layout.picture) == ("fail", "utf-8", "images/{id}.jpg")


def test_the_picture_s_path_is_made_of_columns_and_stays_inside():
    layout = CatalogueLayout(("x.csv",), {"colour": "colour"}, picture="{shop}/{id}.png")
    assert layout.columns == ("id", "shop", "colour")
    assert layout.picture_of({"shop": "a", "id": "7"}) == "a/7.png"
    with pytest.raises(Fault):
        layout.picture_of({"shop": "..", "id": "7"})


def test_all_faults_of_a_description_are_named(tmp_path):
    with pytest.raises(UserError, match=r"no tables.*no attributes that can change.*'ignore' for faults"):
        CatalogueLayout((), {}, faults="ignore")
    with pytest.raises(UserError, match="write it with"):
        read_layout(tmp_path)
    folder = write_catalogue(tmp_path / "c", [("1",)])
    (folder / "catalogue.json").write_text('{"attributes": {"a": 1}, "picture": "{"}')
    with pytest.raises(UserError, match=r"no tables; .* for attributes; expected a catalogue's description"):
        read_layout(folder)
