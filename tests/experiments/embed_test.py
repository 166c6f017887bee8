"""experiments.embed and search from the command: a folder, a list, a table; Milvus; what bad input says."""

import dataclasses
import importlib.util
import os
import shutil
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import numpy as np
import pytest

from contextjax.serving.embedding import embed
from contextjax.serving.index import Index
from contextjax.types import UserError
from experiments.shared.data import make_reader
from experiments.shared.galleries import Speed, embedded_index, open_gallery, open_index, open_milvus
from tests.commands import environment

ROOT = Path(__file__).parent.parent.parent


def run(name: str, *arguments: str) -> subprocess.CompletedProcess:
    """In a process of its own."""
    line = [sys.executable, "-m", f"experiments.{name}", *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def clip(tiny, tmp_path_factory) -> Path:
    """A tiny CLIP."""
    from contextjax.models.clip import CLIP
    from contextjax.pretrained import write_pretrained
    from contextjax.tokenizers import train_tokenizer
    from tests.pretrained.conftest import random_params

    text = dataclasses.replace(tiny.clip.text, vocabulary=280, positions=10, eos_token=1)
    config = dataclasses.replace(tiny.clip, text=text)
    folder = write_pretrained(tmp_path_factory.mktemp("models") / "clip", config, random_params(CLIP(config)))
    train_tokenizer(["a dog"], vocabulary=280, length=10).save(folder / "tokenizer.json")
    return folder


@pytest.fixture
def folder(pictograms, tmp_path) -> Path:
    """Twelve pictures."""
    place = tmp_path / "gallery"
    place.mkdir()
    for path in sorted((pictograms / "img_raw" / "dev").iterdir())[:12]:
        shutil.copy(path, place)
    return place


def test_a_folder_becomes_an_index_and_a_collection_that_are_searched(clip, folder, tmp_path):
    bad, image = folder / "bad.png", sorted(folder.iterdir())[0]
    bad.write_bytes(b"no picture")
    shutil.copy(image, folder / os.fsdecode(b"\xff.png"))
    target, file = tmp_path / "index", tmp_path / "m.db"
    arguments = [f"--workdir={clip}", f"--gallery={folder}", f"--target={target}", "--storage=bfloat16"]
    has_milvus = bool(importlib.util.find_spec("pymilvus"))
    done = run("embed", *arguments, *([f"--milvus={file}"] if has_milvus else []))
    assert done.returncode == 0, done.stderr
    assert f"1 picture(s) of {folder} are left out" in done.stdout
    assert "13 pictures in" in done.stdout and "matmul roofline" in done.stdout
    assert f"1 picture(s) can't be read: {bad}" in done.stdout and "holds 12 pictures, 8 values each" in done.stdout
    found = []
    for place in (target, file) if has_milvus else (target,):
        query = run("search", f"--workdir={clip}", f"--image={image}", "--text=a dog", "--top=20", f"--index={place}")
        assert query.returncode == 0, query.stderr
        found.append([line.split()[-1] for line in query.stdout.splitlines()])
    assert len(found[0]) == 11 and str(image) not in found[0] and all(Path(name).is_file() for name in found[0])
    assert found[0] == found[-1]


def test_the_login_of_milvus_is_read_where_it_is_opened_to_write_and_to_search(tmp_path, monkeypatch):
    """By a client that notes it; the embedded file has no login."""
    pymilvus = pytest.importorskip("pymilvus", reason="needs the extra [milvus]")
    told = []

    class Noting(pymilvus.MilvusClient):
        def __init__(self, *arguments, token, **options):
            told.append(token)
            super().__init__(*arguments, token=token, **options)

    monkeypatch.setattr(pymilvus, "MilvusClient", Noting)
    monkeypatch.setenv("CONTEXTJAX_MILVUS_TOKEN", "someone:secret")
    file = str(tmp_path / "m.db")
    made = open_milvus(file, "mine", dimension=4, fingerprint="m-1", gallery="here")
    made.add(["a"], np.eye(1, 4, dtype=np.float32))
    made.close()
    found, place = open_index(types.SimpleNamespace(identity="m-1"), file, collection="mine")
    assert (len(found), place, told) == (1, "here", ["someone:secret"] * 2)
    found.close()


@pytest.fixture
def export(tmp_path) -> Iterator[Path]:
    """Of programs. jaxtyping takes no symbolic sizes."""
    from contextjax.export.write import write_export
    from tests.export.conftest import make_system

    jaxtyping.config.update("jaxtyping_disable", True)
    system, config = make_system("context_cir")
    write_export(system, tmp_path / "export", formats=("stablehlo",), config=config)
    yield tmp_path / "export"
    jaxtyping.config.update("jaxtyping_disable", False)


def test_an_export_of_programs_embeds_and_tells_how_fast(export, folder, tmp_path):
    import contextjax
    from contextjax.export.exported import Exported

    system = contextjax.load(export)
    speed = Speed(system)
    index = embed(system, open_gallery(folder), tmp_path / "index", progress=speed.tell)
    assert isinstance(system, Exported) and len(index) == 12
    assert speed.summary().startswith("12 pictures in") and "roofline" not in speed.summary()


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
        index = embed(system, open_gallery(place), tmp_path / name, progress=speed.tell)
        rows, _ = index.search_rows(np.eye(8, dtype=np.float32), len(index))
        vectors[name] = index
        assert f"{len(index)} pictures in" in speed.summary() and sorted(rows[0]) == list(range(len(index)))
    assert vectors["table"].names == prepared.ids
    query = np.random.default_rng(0).normal(size=(1, 8)).astype(np.float32)
    stem = lambda name: Path(name).name.removesuffix(".png")
    found = [
        {stem(name): score for name, score in index.search(query, len(index))[0] if stem(name) in known}
        for known in [{path.stem for path in folder.iterdir()}]
        for index in vectors.values()
    ]
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        np.testing.assert_allclose([other[key] for key in found[0]], list(found[0].values()), atol=1e-5)
    assert embed(system, open_gallery(places["table"]), tmp_path / "table").names == prepared.ids
    with pytest.raises(UserError, match=r"no picture none in .*pictures\.val\.json"):  # of a plan before this table
        open_gallery(places["table"]).picture("none")
    with pytest.raises(UserError, match="no prepared table"):
        open_gallery(next(prepared.place.glob("census*.json")))


def test_an_index_is_kept_beside_a_workdir_and_nowhere_of_a_hub_id(clip, folder, tmp_path, monkeypatch):
    import contextjax

    monkeypatch.chdir(tmp_path)
    system = contextjax.load(clip)
    for workdir in (Path("owner/name"), clip):
        index, place = embedded_index(system, folder, workdir)
        assert len(index.search(np.eye(1, 8, dtype=np.float32), 20)[0]) == 12 and place == str(folder)
    assert not (tmp_path / "owner").exists() and len(list((clip / "galleries").iterdir())) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--gallery={tmp}/none", "--target={tmp}/index"], "no folder"),
        (["--gallery={tmp}/empty", "--target={tmp}/index"], "holds no pictures"),
        (["--gallery={tmp}/twice.txt", "--target={tmp}/index"], "a.png more than once"),
        (["--target={tmp}/index"], "--gallery is missing"),
    ],
)
def test_bad_input_ends_with_one_sentence(clip, tmp_path, arguments, sentence):
    (tmp_path / "empty").mkdir()
    (tmp_path / "twice.txt").write_text("a.png\na.png\n")
    done = run("embed", f"--workdir={clip}", *(argument.format(tmp=tmp_path) for argument in arguments))
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ") and sentence in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "index").exists()


def test_an_index_can_be_used_from_python(clip, folder, tmp_path):
    """As docs/guides/search.md has it."""
    import contextjax

    system = contextjax.load(clip)
    names = sorted(path.name for path in folder.iterdir())
    embeddings = system.encode_gallery([folder / name for name in names])
    index = Index.create(tmp_path / "index", embeddings.shape[1], fingerprint=system.identity)
    index.add(names, embeddings)
    index.remove(names[:1])
    (found,) = index.search(system.encode_query([folder / names[1]], ["a dog"]), 3)
    assert len(found) == 3 and {name for name, _ in found} <= set(names[1:])
