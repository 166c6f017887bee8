"""A tiny system, a gallery and its index, a server in a thread, and random vectors with their neighbours."""

import dataclasses
import io
import threading
import time

import httpx
import numpy as np
import pytest
from PIL import Image

import contextjax
from contextjax import metrics
from contextjax.serving.app import make_app
from contextjax.serving.connections import HeadLimit, make_server
from contextjax.serving.embedding import embed
from contextjax.serving.gallery import folder_gallery
from contextjax.serving.service import Limits, Service
from contextjax.tokenizers import train_tokenizer

TEXTS = ["make the dog small", "with a red hat", "two owls instead of one, and no rain or snow or fog or sun"]
LIMITS = Limits(
    body_bytes=300_000,
    body_seconds=1.0,
    text=200,
    pixels=250_000,
    questions=6,
    candidates=5,
    results=20,
    batch=8,
    waiting=64,
)


@pytest.fixture(scope="session")
def system(tiny):

    tokenizer = train_tokenizer(TEXTS * 3, vocabulary=300, length=10)
    wide = dataclasses.replace(tiny.clip, text=dataclasses.replace(tiny.clip.text, vocabulary=tokenizer.vocabulary))
    model = type(tiny)(clip=wide).model()
    return contextjax.System(model, type(tiny)(clip=wide).params(model), tokenizer)


@pytest.fixture(scope="session")
def gallery(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gallery")
    rng = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(folder / f"{i:02d}.png")
    return folder_gallery(folder)


@pytest.fixture(scope="session")
def index(system, gallery, tmp_path_factory):
    return embed(system, gallery, tmp_path_factory.mktemp("index") / "one")


class Server:
    """A server in a thread, with sockets."""

    def __init__(self, app, http=HeadLimit, **options):
        self.server = make_server(app, port=0, log_level="error", http=http, **options)
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def end(self):
        """Ends the server as SIGTERM does."""
        self.server.should_exit = True

    def close(self):
        self.end()
        self.thread.join(60)
        assert not self.thread.is_alive()


@pytest.fixture(scope="session")
def server(system, index, gallery):
    service = Service(system, index, gallery=gallery, phrases_of=lambda text: [(0, 4), (5, len(text))], limits=LIMITS)
    started = Server(make_app(service))
    yield started
    started.close()


def png(seed=0, size=(18, 30)):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def vectors(count, dimension=16, *, seed=0):
    rows = np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def brute_force(queries, stored, k):
    """Returns rows and scores by sorting all scores, of equal ones the lower row first."""
    scores = queries.astype(np.float64) @ stored.astype(np.float64).T
    rows = metrics.top_k(scores, min(k, len(stored)))
    return rows, np.take_along_axis(scores, rows, axis=1)


@pytest.fixture(scope="session")
def client(server):
    """A client of the server, over a connection."""
    with httpx.Client(base_url=server.url, timeout=60) as opened:
        yield opened
