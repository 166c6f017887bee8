"""Tests of experiments.serve: from an export and a folder to answers, and an end by SIGTERM that drops nothing."""

import concurrent.futures
import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

import contextjax
from contextjax.serving.service import Limits
from experiments.shared.galleries import make_service
from tests.commands import environment, in_process

pytestmark = pytest.mark.long

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def places(exports, tmp_path_factory):
    """(an export of programs, one of parameters alone, a folder of pictures), in which galleries are kept."""
    folder = shutil.copytree(exports, tmp_path_factory.mktemp("serve") / "exports")
    (folder / "pictures").mkdir()
    for seed in range(5):
        pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "pictures" / f"{seed}.png")
    return folder / "programs", folder / "parameters", folder / "pictures"


def serve(*flags: str) -> list[str]:
    return [sys.executable, "-m", "experiments.serve", *flags]


@contextlib.contextmanager
def running(places, folder, *flags: str):
    """Serves the export of programs and the pictures; yields the process, once it answers, and its port."""
    source, _, pictures = places
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = serve(f"--source={source}", f"--gallery={pictures}", f"--port={port}", *flags)
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(line, cwd=ROOT, env=environment(), stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 240
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/health")
                break
            except httpx.TransportError:
                assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.2)
        yield process, port
    finally:
        process.kill()
        process.wait()


def test_it_answers_and_ends_when_all_that_has_come_is_answered(places, tmp_path):
    """Compares the answers of an export of programs with the live system's."""
    _, parameters, pictures = places
    with running(places, tmp_path, "--batch=1", "--nowarm") as (process, port):
        url = f"http://127.0.0.1:{port}"
        facts = httpx.get(f"{url}/health").json()
        assert facts["pictures"] == 5 and facts["can"] == [
            "search",
            "candidates",
            "embeddings",
        ]  # programs have no maps
        ask = lambda name: httpx.post(f"{url}/v1/search", data={"text": "make it large", "name": name}, timeout=200)
        with concurrent.futures.ThreadPoolExecutor(5) as pool:
            waiting = [pool.submit(ask, f"{row}.png") for row in range(5)]  # the first one compiles
            while "contextjax_requests_total" not in httpx.get(f"{url}/metrics").text:
                time.sleep(0.05)
            time.sleep(0.5)
            process.send_signal(signal.SIGTERM)
            answers = [future.result() for future in waiting]
        assert [answer.status_code for answer in answers] == [200] * 5
        live = contextjax.load(parameters)
        queries = live.encode_query(sorted(pictures.iterdir()), ["make it large"] * 5)
        scores = queries @ live.encode_gallery(sorted(pictures.iterdir())).T
        for row, answer in enumerate(answers):
            scored = {hit["name"]: hit["score"] for hit in answer.json()["results"]}
            assert set(scored) == {f"{other}.png" for other in range(5) if other != row}
            np.testing.assert_allclose(
                [scored[name] for name in sorted(scored)], np.delete(scores[row], row), atol=2e-5
            )
        assert process.wait(30) == 143 and "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.long
def test_requests_sent_while_a_program_compiles_are_answered_after_the_end_is_asked_for(places, tmp_path):
    """Connections wait in the system's queue, or have sent what the server has not read, when the signal comes."""
    _, _, pictures = places
    asked = {"text": "make it large"}
    files = [("images", path.read_bytes()) for path in sorted(pictures.iterdir())]
    requests = [
        httpx.Request("POST", "http://x/v1/candidates", data=asked, files=files[: 1 + row % 5]) for row in range(75)
    ]
    raw = [
        f"POST /v1/candidates HTTP/1.1\r\nHost: x\r\nContent-Type: {request.headers['content-type']}\r\n"
        f"Content-Length: {len(request.read())}\r\n\r\n".encode()
        + request.content
        for request in requests
    ]
    with running(places, tmp_path, "--nowarm") as (process, port), contextlib.ExitStack() as stack:
        connect = lambda: stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=200))
        kept = [connect() for _ in range(3)]
        for connection in kept:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while not answer.endswith(b"}"):
                answer += connection.recv(4096)
        silent = connect()
        connections = []
        for row, content in enumerate(raw):
            connections.append(kept[row] if row < len(kept) else connect())
            connections[-1].sendall(content)
        process.send_signal(signal.SIGTERM)
        answers = [connection.makefile("rb").read() for connection in connections]
        assert [answer[9:12] for answer in answers] == [b"200"] * len(raw)
        for row, answer in enumerate(answers):
            assert len(json.loads(answer.partition(b"\r\n\r\n")[2])["scores"]) == 1 + row % 5
        assert silent.recv(1) == b"" and process.wait(30) == 143
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_it_ends_before_it_serves_too(places, tmp_path):
    """A handler of its own is needed: a signal without a handler does not end process 1 of a container."""
    flags = (f"--source={places[1]}", f"--gallery={places[2]}", "--port=0")
    env = environment() | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(serve(*flags), cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any(line.startswith("Compiling") for line in process.stdout)
        process.send_signal(signal.SIGTERM)
        assert "pictures" not in process.stdout.read() and process.wait(120) == 143


def test_a_live_system_has_maps_and_its_index_stays_in_its_folder(places):
    _, parameters, pictures = places
    service = make_service(str(parameters), gallery=str(pictures), index="", collection="", limits=Limits())
    assert service.has_maps and service.pictures == len(service.names) == 5
    assert (parameters / "galleries").is_dir()


def test_mistakes_end_with_one_sentence(places, tmp_path):
    source, _, pictures = places
    for flags, sentence in (
        ((f"--source={tmp_path}/none", f"--gallery={pictures}"), "none"),
        ((f"--source={source}", f"--index={tmp_path}"), "index"),
    ):
        done = in_process("serve", *flags)
        assert done.returncode == 2 and sentence in done.stderr and "Traceback" not in done.stderr, done.stderr
