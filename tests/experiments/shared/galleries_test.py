"""Tests of what embed, search and serve share: galleries by their paths, kept indexes, Milvus's login, speed."""

import types
from pathlib import Path

import numpy as np
import pytest

from contextjax.serving.embedding import embed
from contextjax.types import UserError
from experiments.shared.data import make_reader
from experiments.shared.galleries import Speed, embedded_index, open_gallery, open_index, open_milvus


@pytest.mark.long
def test_a_list_and_a_table_are_embedded_as_a_folder_is(clip, folder, pictograms_copy, tmp_path):
    import contextjax
    from data_pipelines.prepare import prepare

    system = contextjax.load(clip)
    prepared = prepare(make_reader("cirr", pictograms_copy), pictograms_copy, "val")
    vectors = {}
    (tmp_path / "list.txt").write_text("".join(f"gallery/{path.name}\n" for path in sorted(folder.iterdir())))
    places = {"folder": folder, "list": tmp_path / "list.txt", "table": prepared.place / "pictures.val.json"}
    for name, place in places.items():
        speed = Speed(system)
        index = embed(system, open_gallery(place), tmp_path / name, progress=speed.progress)
        rows, _ = index.search_rows(np.eye(8, dtype=np.float32), len(index))
        vectors[name] = index
        assert f"{len(index)} pictures in" in speed.summary() and sorted(rows[0]) == list(range(len(index)))
    assert vectors["table"].names == prepared.ids
    query = np.random.default_rng(0).normal(size=(1, 8)).astype(np.float32)
    stem = lambda name: Path(name).name.removesuffix(".png")
    answers = [
        {stem(name): score for name, score in index.search(query, len(index))[0] if stem(name) in known}
        for known in [{path.stem for path in folder.iterdir()}]
        for index in vectors.values()
    ]
    for other in answers[1:]:
        assert other.keys() == answers[0].keys()
        np.testing.assert_allclose([other[key] for key in answers[0]], list(answers[0].values()), atol=1e-5)
    assert embed(system, open_gallery(places["table"]), tmp_path / "table").names == prepared.ids
    with pytest.raises(UserError, match=r"no picture none in .*pictures\.val\.json"):  # of a plan before this table
        open_gallery(places["table"]).picture("none")
    with pytest.raises(UserError, match="no prepared table"):
        open_gallery(next(prepared.place.glob("census*.json")))


def test_an_index_is_kept_beside_a_workdir_and_nowhere_of_a_hub_id(clip, folder, tmp_path, monkeypatch):
    import contextjax

    monkeypatch.chdir(tmp_path)
    system = contextjax.load(clip)
    workdirs = Path("owner/name"), tmp_path / "run"
    workdirs[1].mkdir()
    for workdir in workdirs:
        index = embedded_index(system, folder, workdir)
        assert len(index.search(np.eye(1, 8, dtype=np.float32), 20)[0]) == 12 and index.gallery == str(folder)
    assert not (tmp_path / "owner").exists() and len(list((workdirs[1] / "galleries").iterdir())) == 1


@pytest.mark.long
def test_an_export_of_programs_embeds_and_its_speed_is_given(exports, folder, tmp_path):
    import contextjax
    from contextjax.export.exported import Exported

    system = contextjax.load(exports / "programs")
    speed = Speed(system)
    index = embed(system, open_gallery(folder), tmp_path / "index", progress=speed.progress)
    assert isinstance(system, Exported) and len(index) == 12
    assert speed.summary().startswith("12 pictures in") and "roofline" not in speed.summary()


def test_the_login_of_milvus_is_read_where_it_is_opened_to_write_and_to_search(tmp_path, monkeypatch):
    """A client notes the login here; the embedded file has none."""
    pymilvus = pytest.importorskip("pymilvus", reason="needs the extra [milvus]")
    tokens = []

    class Noting(pymilvus.MilvusClient):
        def __init__(self, *arguments, token, **options):
            tokens.append(token)
            super().__init__(*arguments, token=token, **options)

    monkeypatch.setattr(pymilvus, "MilvusClient", Noting)
    monkeypatch.setenv("CONTEXTJAX_MILVUS_TOKEN", "someone:secret")
    file = str(tmp_path / "m.db")
    made = open_milvus(file, "mine", dimension=4, fingerprint="m-1", gallery="here")
    made.add(["a"], np.eye(1, 4, dtype=np.float32))
    made.close()
    opened = open_index(types.SimpleNamespace(identity="m-1"), file, collection="mine")
    assert (len(opened), opened.gallery, tokens) == (1, "here", ["someone:secret"] * 2)
    opened.close()
