"""The table of chips, and look-ups by name and by kind."""

import pytest

from contextjax.analysis.chips import CHIPS, chip, chip_of_kind
from contextjax.types import UserError


def test_the_table_of_chips():
    assert list(CHIPS) == ["A100", "H100", "H200", "v4", "v5e", "v5p", "v6e", "tpu7x"]
    for each in CHIPS.values():
        assert each.bfloat16 >= each.float32 > 1e12 and each.memory < 1e12 < each.bandwidth * 2
        assert 0 <= each.network < each.link and each.source
        assert all(chip_of_kind(kind) is each for kind in each.kinds)
    assert chip("h100") is CHIPS["H100"] and chip_of_kind("cpu") is None
    with pytest.raises(UserError, match="The chip is 'H300'; known are A100, H100"):
        chip("H300")
