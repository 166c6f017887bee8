"""The command that serves: from an export and a folder to answers, and its end by SIGTERM with nothing dropped."""

import concurrent.futures
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

from contextjax.export.write import write_export
from tests.commands import environment
from tests.export.conftest import make_system

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """(an export, a folder of pictures)."""
    folder = tmp_path_factory.mktemp("serve")
    system, config = make_system("context_cir")
    write_export(system, folder / "export", formats=("safetensors",), config=config)
    (folder / "pictures").mkdir()
    for seed in range(5):
        pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "pictures" / f"{seed}.png")
    return folder / "export", folder / "pictures"


def serve(*flags: str) -> list[str]:
    return [sys.executable, "-m", "experiments.serve", *flags]


def test_it_answers_and_ends_when_all_that_has_come_is_answered(places, tmp_path):
    source, pictures = places
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    flags = (f"--source={source}", f"--gallery={pictures}", f"--port={port}", "--batch=1", "--nowarm")
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(serve(*flags), cwd=ROOT, env=environment(), stdout=log, stderr=log)
    try:
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 240
        while True:
            try:
                facts = httpx.get(f"{url}/health").json()
                break
            except httpx.TransportError:
                assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
                time.sleep(0.2)
        assert facts["pictures"] == 5 and facts["can"] == ["search", "candidates", "maps"]
        ask = lambda name: httpx.post(f"{url}/v1/search", data={"text": "make it large", "name": name}, timeout=200)
        with concurrent.futures.ThreadPoolExecutor(5) as pool:
            waiting = [pool.submit(ask, f"{row}.png") for row in range(5)]  # the first one compiles
            while "contextjax_requests_total" not in httpx.get(f"{url}/metrics").text:
                time.sleep(0.05)
            time.sleep(0.5)
            process.send_signal(signal.SIGTERM)
            answers = [future.result() for future in waiting]
        assert [answer.status_code for answer in answers] == [200] * 5
        assert all(len(answer.json()["results"]) == 4 for answer in answers)
        assert process.wait(30) in (0, -signal.SIGTERM)
    finally:
        process.kill()


def test_mistakes_are_told(places, tmp_path):
    source, pictures = places
    for flags, said in (
        ((f"--source={tmp_path}/none", f"--gallery={pictures}"), "none"),
        ((f"--source={source}", f"--index={tmp_path}"), "index"),
    ):
        done = subprocess.run(
            serve(*flags), cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr, done.stderr
