"""Plain CLIP and BLIP, other forms of the towers, and the command."""

import dataclasses

import numpy as np
import pytest

import contextjax
from contextjax.export.write import write_export
from contextjax.pretrained import write_pretrained
from contextjax.tokenizers import train_tokenizer
from contextjax.types import UserError
from experiments.shared.weights import export
from tests.export.conftest import TEXTS, make_system
from tests.pretrained.conftest import BLIP_CONFIG, SIGLIP_CONFIG, random_params


@pytest.mark.long
@pytest.mark.parametrize("name", ["clip", "blip", "siglip"])
@pytest.mark.usefixtures("short_certificate")
def test_a_published_model_is_exported(tiny, tmp_path, pictures, name):
    from contextjax.models.blip import BLIP
    from contextjax.models.clip import CLIP

    tokenizer = train_tokenizer(TEXTS, vocabulary=280, length=10, first=name != "siglip")
    config = {"clip": tiny.clip, "blip": BLIP_CONFIG, "siglip": SIGLIP_CONFIG}[name]
    text = dataclasses.replace(config.text, vocabulary=280, **({"eos_token": 1} if name == "clip" else {}))
    config = dataclasses.replace(config, text=text)
    write_pretrained(tmp_path / name, config, random_params((BLIP if name == "blip" else CLIP)(config)))
    tokenizer.save(tmp_path / name / "tokenizer.json")
    export(str(tmp_path / name), tmp_path / "out", formats=["stablehlo", "onnx"])
    system, exported = contextjax.load(tmp_path / name), contextjax.load(tmp_path / "out")
    assert exported.identity == system.identity and exported.score == system.score
    for call in (
        lambda s: s.encode_query(pictures, TEXTS),
        lambda s: s.encode_text(TEXTS),
        lambda s: s.score_candidates(pictures, TEXTS[0]),
    ):
        np.testing.assert_allclose(call(exported), call(system), atol=1e-5, rtol=1e-5)
    with pytest.raises(UserError, match=r"experiments\.convert"):
        export(str(tmp_path / name), tmp_path / "more", formats=["safetensors"])


@pytest.mark.long
@pytest.mark.usefixtures("short_certificate")
def test_an_adapter_of_convolutions_has_stablehlo_and_no_onnx(tmp_path, pictures):
    system, config = make_system("context_blip", adapter="convolutions", selection="none", propositions=False,
                                 pooling_heads=0, context_layers=0)  # fmt: skip
    write_export(system, tmp_path / "out", formats=("stablehlo",), config=config)
    exported = contextjax.load(tmp_path / "out")
    found, expected = (s.score_candidates(pictures, TEXTS[1]) for s in (exported, system))
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(UserError, match="has no ONNX form"):
        write_export(system, tmp_path / "onnx", formats=("onnx",), config=config)
    assert not (tmp_path / "onnx").exists()


def test_an_index_of_the_live_system_is_searched_by_its_export(case, tmp_path, pictures):
    """Both are one model; the index is refused to another one."""
    from contextjax.serving.index import Index

    exported = contextjax.load(case.export)
    index = Index.create(tmp_path / "index", 8, fingerprint=case.system.identity)
    index.add(["a", "b", "c"], case.system.encode_gallery(pictures))
    index.check(exported.identity)
    (found,) = index.search(exported.encode_gallery(pictures[1:2]), 1)
    assert found[0][0] == "b"
    other, _ = make_system(case.system.spec.family, projection=16)
    with pytest.raises(UserError, match="of the model"):
        index.check(other.identity)
