"""prepare, embed and synthesize on a cluster: the files of one process, though workers, nodes and commands die."""

import contextlib
import functools
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contextjax.serving import embedding
from data_pipelines.cluster.engine import LOG
from experiments.shared import clusters
from tests.clusters import add_node, local_cluster, needs_ray
from tests.commands import ROOT, environment, in_process
from tests.data_pipelines.chat.server import Endpoint, serving

pytestmark = needs_ray
EMBEDDER = clusters._embedder


def contents(folder: Path, *, but=()) -> dict[str, bytes]:
    """The files of a folder, without logs and caches of hashes."""
    skipped = {LOG, "spending.jsonl", *but}
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    kept = {str(path.relative_to(folder)): path.read_bytes() for path in files if path.name not in skipped}
    return {name: data for name, data in kept.items() if not Path(name).name.startswith("hashes")}


def run(*line: str) -> str:
    done = in_process(*line)
    assert done.returncode == 0, done.stderr
    return done.stdout


def workers(cluster) -> list[int]:
    """The processes of a cluster that work on rows; tests beside this one have clusters of their own."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (folder / "cmdline").read_bytes().startswith(b"ray::Map"):
                parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
                if cluster.address.encode() in Path("/proc", parent, "cmdline").read_bytes():
                    found.append(int(folder.name))
    return found


@contextlib.contextmanager
def killing(cluster, when, *, also=lambda: None):
    """Kills a working process of a cluster as soon as `when()` holds, and does `also()`, beside the block."""

    def kill():
        while not when() or not (found := workers(cluster)):
            time.sleep(0.02)
        os.kill(found[0], signal.SIGKILL)
        also()

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    yield
    thread.join(timeout=60)
    assert not thread.is_alive()


def waiting_embedder(release: Path, source, gallery, folder):
    """Embeds as a node does, and waits before each chunk but the first until the file `release` is there."""
    embed, first = EMBEDDER(source, gallery, folder), iter([True])

    def embed_later(chunk):
        while not next(first, False) and not release.exists():
            time.sleep(0.02)
        return embed(chunk)

    return embed_later


@pytest.mark.parametrize(
    ("address", "sentence"),
    [("auto:x", "expected auto or HOST:PORT"), ("127.0.0.1:1", "There is no Ray cluster at 127.0.0.1:1")],
)
@pytest.mark.parametrize("command", ["prepare", "embed", "synthesize"])
def test_a_wrong_cluster_is_one_sentence_before_anything_is_written(command, address, sentence, clip, folder, tmp_path,
                                                                    pictograms):  # fmt: skip
    arguments = {
        "prepare": ["--reader=cirr", f"--data={pictograms}", "--split=val", f"--prepared={tmp_path / 'new'}"],
        "embed": [f"--workdir={clip}", f"--gallery={folder}", f"--target={tmp_path / 'new'}"],
        "synthesize": [f"--data={pictograms}", "--backend=rules", f"--target={tmp_path / 'new'}"],
    }[command]
    done = in_process(command, *arguments, f"--cluster={address}")
    assert done.returncode == 2 and sentence in done.stderr and len(done.stderr.splitlines()) == 1
    assert not [path for path in (tmp_path / "new").rglob("*") if path.is_file() and path.name != ".lock"]


def test_without_ray_the_extra_is_named(folder, clip, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "ray"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    done = in_process("embed", f"--workdir={clip}", f"--gallery={folder}", f"--target={tmp_path}/i", "--cluster=auto")
    assert done.returncode == 2 and "pip install 'contextjax[ray]'" in done.stderr


@pytest.mark.long
def test_tables_are_those_of_one_process(pictograms, tmp_path):
    flags = ["--reader=cirr", f"--data={pictograms}", "--split=val"]
    run("prepare", *flags, f"--prepared={tmp_path / 'one'}")
    printed = run("prepare", *flags, f"--prepared={tmp_path / 'many'}", f"--cluster={local_cluster().address}")
    assert "pictures on 3 node(s)" in printed
    assert contents(tmp_path / "many") == contents(tmp_path / "one")


@pytest.mark.long
def test_an_index_is_that_of_one_process_when_a_worker_and_a_node_are_killed(clip, tmp_path, monkeypatch):
    monkeypatch.setattr(embedding, "SEGMENT", 2)
    gallery, cluster, release = tmp_path / "gallery", local_cluster(), tmp_path / "release"
    gallery.mkdir()
    for number in range(80):
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (9, 9, 3), np.uint8)).save(
            gallery / f"{number}.png"
        )
    (gallery / "bad.png").write_bytes(b"no picture")
    flags = [f"--workdir={clip}", f"--gallery={gallery}"]
    run("embed", *flags, f"--target={tmp_path / 'one'}")
    segments = tmp_path / "many" / "segments"
    written = lambda: len(list(segments.glob("*.safetensors")))
    node = add_node(cluster)

    def lose_node():
        cluster.remove_node(node, allow_graceful=False)
        release.touch()

    # Every worker holds a chunk when one of them is killed, however fast the machine is.
    monkeypatch.setattr(clusters, "_embedder", functools.partial(waiting_embedder, release))
    with killing(cluster, lambda: written() > 1, also=lose_node):
        printed = run("embed", *flags, f"--target={tmp_path / 'many'}", f"--cluster={cluster.address}")
    assert "went on after" in printed
    assert contents(tmp_path / "many") == contents(tmp_path / "one")


def answer(text, digest):
    """Named after the question: what is kept tells which question it answers."""
    name = hashlib.blake2b(f"{text} {digest}".encode(), digest_size=8).hexdigest()
    time.sleep(0.05)
    return json.dumps([f"Add ball {name}."] if "Two lists" in text else [{"object": name, "details": "red"}])


@pytest.fixture(scope="module")
def asked(pictograms):
    """An endpoint, and the flags of a set of 24 pairs that is made by it."""
    endpoint = Endpoint(answer)
    with serving(endpoint) as address:
        flags = [f"--data={pictograms}", "--backend=openai", "--model=m", f"--address={address}", "--pairs=24"]
        yield endpoint, [*flags, "--concurrency=2", "--timeout=20", "--review=0"]


@pytest.fixture(scope="module")
def whole(asked, tmp_path_factory):
    target = tmp_path_factory.mktemp("synthesis") / "one"
    run("synthesize", *asked[1], f"--target={target}")
    return target


def triplets(target: Path) -> dict[str, bytes]:
    files = contents(target)
    return {name: data for name, data in files.items() if name.endswith((".jsonl", ".json", ".png"))}


@pytest.mark.long
def test_triplets_are_those_of_one_process_and_nothing_is_asked_twice_when_nodes_die(asked, whole, tmp_path):
    endpoint, flags = asked
    cluster, begin = local_cluster(), len(endpoint.requests)
    node = add_node(cluster)
    gone = lambda: cluster.remove_node(node, allow_graceful=False)
    with killing(cluster, lambda: len(endpoint.requests) > begin + 20, also=gone):
        run("synthesize", *flags, f"--target={tmp_path / 'many'}", f"--cluster={cluster.address}")
    questions = [answer(*question) for question in endpoint.texts[begin:]]
    assert len(set(questions)) == len(questions) == begin
    assert triplets(tmp_path / "many") == triplets(whole)


@pytest.mark.long
def test_a_killed_command_goes_on_and_the_rate_limit_is_one_for_all_nodes(asked, whole, tmp_path):
    endpoint, flags = asked
    begin, target = len(endpoint.requests), tmp_path / "many"
    flags = [*flags, f"--target={target}", f"--cluster={local_cluster().address}", "--requests_per_minute=600"]
    with subprocess.Popen(
        [sys.executable, "-m", "experiments.synthesize", *flags], cwd=ROOT, env=environment(),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        while process.poll() is None and len(endpoint.requests) < begin + 15:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    second, before = len(endpoint.requests), time.monotonic()
    run("synthesize", *flags)
    seconds = time.monotonic() - before
    questions = [answer(*question) for question in endpoint.texts[begin:]]
    assert len(questions) - len(set(questions)) <= 2  # those under way when the command was killed
    assert seconds >= (len(endpoint.requests) - second - 1) * 0.1
    assert triplets(target) == triplets(whole)
