"""Tests of experiments.embed: a folder into an index and into Milvus, which are then searched; bad input."""

import importlib.util
import os
import shutil
from pathlib import Path

import pytest

from contextjax.serving.index import Index
from tests.commands import in_own_process, in_process


def test_a_folder_becomes_an_index_and_a_collection_that_are_searched(clip, folder, tmp_path):
    bad, image = folder / "bad.png", sorted(folder.iterdir())[0]
    bad.write_bytes(b"no picture")
    shutil.copy(image, folder / os.fsdecode(b"\xff.png"))
    target, file = tmp_path / "index", tmp_path / "m.db"
    arguments = [f"--workdir={clip}", f"--gallery={folder}", f"--target={target}", "--storage=bfloat16"]
    has_milvus = bool(importlib.util.find_spec("pymilvus"))
    # Milvus Lite starts a server with threads that outlive a command: not in this process.
    run = in_own_process if has_milvus else in_process
    done = run("embed", *arguments, *([f"--milvus={file}"] if has_milvus else []))
    assert done.returncode == 0, done.stderr
    assert f"1 other file(s) of {folder} are left out" in done.stdout
    assert "13 pictures in" in done.stdout and "matmul roofline" in done.stdout
    assert f"1 picture(s) can't be read: {bad}" in done.stdout and "holds 12 pictures, 8 values each" in done.stdout
    names = []
    for place in (target, file) if has_milvus else (target,):
        query = run("search", f"--workdir={clip}", f"--image={image}", "--text=a dog", "--top=20", f"--index={place}")
        assert query.returncode == 0, query.stderr
        names.append([line.split()[-1] for line in query.stdout.splitlines()])
    assert len(names[0]) == 11 and str(image) not in names[0] and all(Path(name).is_file() for name in names[0])
    assert names[0] == names[-1]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--gallery={tmp}/none", "--target={tmp}/index"], "none is not there"),
        (["--gallery={tmp}/empty", "--target={tmp}/index"], "holds no pictures"),
        (["--gallery={tmp}/twice.txt", "--target={tmp}/index"], "a.png more than once"),
        (["--target={tmp}/index"], "--gallery is missing"),
    ],
)
def test_bad_input_ends_with_one_sentence(clip, tmp_path, arguments, sentence):
    (tmp_path / "empty").mkdir()
    (tmp_path / "twice.txt").write_text("a.png\na.png\n")
    done = in_process("embed", f"--workdir={clip}", *(argument.format(tmp=tmp_path) for argument in arguments))
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ") and sentence in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "index").exists()


@pytest.mark.long
def test_attributes_filter_searches_and_vectors_are_written(clip, folder, tmp_path):
    images = sorted(folder.iterdir())
    rows = [f"{path.name},{row},{'even' if row % 2 == 0 else 'odd'}" for row, path in enumerate(images[:10])]
    (tmp_path / "t.csv").write_text("\n".join(["name,price,kind", *rows, "none.png,1,odd"]))
    arguments = [f"--workdir={clip}", f"--gallery={folder}", f"--target={tmp_path / 'index'}"]
    done = in_process("embed", *arguments, f"--attributes={tmp_path / 't.csv'}", f"--vectors={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    assert "10 of 12 pictures have attributes (price, kind); 1 row(s) of the table are of other" in done.stdout
    assert (tmp_path / "out" / "embeddings.npy").is_file() and (tmp_path / "out" / "rows.parquet").is_file()
    moved = folder.rename(tmp_path / "moved")
    ask = lambda *more: in_process(
        "search", f"--workdir={clip}", f"--index={tmp_path / 'index'}", "--text=a dog", *more
    )
    done = ask("--where=price >= 4 and kind = 'odd'", f"--gallery={moved}")
    assert done.returncode == 0, done.stderr
    expected = {str(moved / path.name) for path in images[5:10:2]}
    assert {line.split()[-1] for line in done.stdout.splitlines()} == expected
    for where, sentence in (("size = 1", "'size', and there are price, kind"), ("kind = odd", "in quotes: 'odd'")):
        done = ask(f"--where={where}")
        assert done.returncode == 2 and sentence in done.stderr and len(done.stderr.splitlines()) == 1
    done = in_process("embed", *arguments, f"--attributes={tmp_path / 'index' / 'index.json'}")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1


def test_an_index_can_be_used_from_python(clip, folder, tmp_path):
    """Runs the example of docs/guides/search.md."""
    import contextjax

    system = contextjax.load(clip)
    names = sorted(path.name for path in folder.iterdir())
    embeddings = system.encode_gallery([folder / name for name in names])
    index = Index.create(tmp_path / "index", embeddings.shape[1], fingerprint=system.identity)
    index.add(names, embeddings)
    index.remove(names[:1])
    (hits,) = index.search(system.encode_query([folder / names[1]], ["a dog"]), 3)
    assert len(hits) == 3 and {name for name, _ in hits} <= set(names[1:])
