"""Further queries of composed systems are exported: their programs answer as the live system."""

import numpy as np
import pytest

import contextjax
from contextjax.export.write import write_export
from tests.export.conftest import TEXTS, make_system

CASES = {
    "combiner": ("context_cir", {"query": "combiner"}),
    "pseudo_word": ("context_cir", {"query": "pseudo_word", "template": "a * that {}"}),
    "composed": ("composed_blip", {"fused_token": 3, "reverse_token": 4}),
}


@pytest.mark.long
@pytest.mark.parametrize("query", CASES)
@pytest.mark.usefixtures("short_certificate")
def test_each_query_is_exported(tmp_path, pictures, query):
    family, options = CASES[query]
    system, config = make_system(family, **options)
    formats = ("stablehlo", "onnx")
    write_export(system, tmp_path / "out", formats=formats, config=config)
    exported = contextjax.load(tmp_path / "out")
    assert exported.query == query and exported.template == options.get("template", "{}")
    found, expected = (each.encode_query(pictures, TEXTS) for each in (exported, system))
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)
    assert np.abs(system.with_query("image").encode_query(pictures, TEXTS) - expected).max() > 1e-3
