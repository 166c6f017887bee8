"""Pictures are embedded once; agreement measures how much more a text is like the target than like the reference."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from contextjax.types import UserError
from data_pipelines.synthesis.drafts import Draft
from data_pipelines.synthesis.pairs import folder_pictures
from data_pipelines.synthesis.pipeline import run_pipeline
from experiments.synthesis.embedding import agreement_of, embedded
from tests.data_pipelines.synthesis.conftest import saying
from tests.experiments.synthesis.conftest import TEXTS


@pytest.mark.long
def test_pictures_are_embedded_once_and_bad_ones_named(system, folder, tmp_path, capsys, monkeypatch):
    encoded, encode = [], system.encode_gallery
    monkeypatch.setattr(system, "encode_gallery", lambda images: encoded.extend(images) or encode(images))
    ids, embeddings = embedded(system, folder, tmp_path / "cache")
    assert ids == [f"p{number:02}.png" for number in range(12)] and "broken.png" in capsys.readouterr().out
    np.testing.assert_allclose(embeddings, encode([folder / name for name in ids]), atol=1e-6)
    encoded.clear()
    (folder / "p03.png").rename(folder / "a.png")  # another name of the same picture
    noise = np.random.default_rng(9).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(noise).save(folder / "p05.png")  # another picture of the same name
    ids, again = embedded(system, folder, tmp_path / "cache")
    assert ids[0] == "a.png" and len(ids) == 12 and len(encoded) == 1
    np.testing.assert_allclose(again, encode([folder / name for name in ids]), atol=1e-6)


def test_agreement_is_how_much_more_a_text_is_like_the_target(clip, system, folder):
    agreement = agreement_of(str(clip), folder_pictures(folder))
    found = agreement(Draft("p00.png", "p02.png"), TEXTS)
    reference, target = system.encode_gallery([folder / "p00.png", folder / "p02.png"])
    np.testing.assert_allclose(found, system.encode_text(TEXTS) @ (target - reference), atol=1e-5)


def test_texts_that_disagree_are_removed(clip, folder, make_pipeline):
    pictures = folder_pictures(folder)
    pipeline = dataclasses.replace(
        make_pipeline(saying(*TEXTS)), pictures=pictures, make_agreement=lambda: agreement_of(str(clip), pictures)
    )
    (draft,) = run_pipeline([Draft("p00.png", "p02.png")], pipeline)
    values = agreement_of(str(clip), pictures)(draft, TEXTS)
    assert [s.removed_by == "agreement" for s in draft.sentences] == [value < 0 for value in values]
    assert any(s.removed_by for s in draft.sentences) or min(values) >= 0


def test_a_folder_of_unreadable_pictures_is_refused(system, tmp_path):
    (tmp_path / "x.png").write_bytes(b"")
    with pytest.raises(UserError, match="expected at least one good picture"):
        embedded(system, tmp_path, tmp_path / "galleries")
