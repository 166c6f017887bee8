"""Every checkpoint of the list is of a family and a size that are there, and says where its licence was read."""

import pytest

from contextjax.pretrained import towers
from contextjax.pretrained.known import KNOWN, NOT_READ, of_family
from contextjax.variants import FAMILIES, VARIANTS


@pytest.mark.parametrize("row", KNOWN, ids=lambda row: row.id)
def test_a_row_names_a_family_and_a_size_that_are_read(row):
    family = FAMILIES[row.family]
    if row.variant:
        config = VARIANTS[row.variant]
        assert isinstance(config, family.tower_config)
        patch = int(row.tower.rpartition("/")[2])
        assert towers(config).vision.patch_size == patch and row.resolution % patch == 0
    assert row.page.startswith("https://") and row.licence and " " not in row.page
    if row.page.startswith("https://huggingface.co/"):
        assert row.page.startswith(f"https://huggingface.co/{row.id}")  # its own page, and no copy's
    assert row.licence == NOT_READ or row.licence == row.licence.lower()


def test_the_list_has_no_checkpoint_twice_and_is_cut_by_family():
    ids = [row.id for row in KNOWN]
    assert len(set(ids)) == len(ids) and of_family("") == KNOWN and of_family("none") == ()
    assert {row.family for row in of_family("blip")} == {"blip"}
