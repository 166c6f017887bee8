"""Measures the service under load, beside the same work without it: queries a second, and seconds of one query.

python -m experiments.comparisons service --config=configs/context_cir.py:B32 [--clients=32] [--pairs=3]

A query is a JPEG of 640 x 480 and a text; its picture is decoded, it is embedded (random weights) and looked up among
1,000 vectors. Both do the same in batches of --batch; the clients are processes beside the server, on the same machine.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import http.client
import io
import multiprocessing
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from contextjax import images
from experiments.comparisons.harness import Table, option, ratio

WORDS = ("red", "large", "old", "wooden", "left", "small", "blue", "open")
NOTES = {"inside": "decoding (in threads, a batch ahead), embedding and search, without the service"}
Query = tuple[bytes, str]  # a JPEG and a text


@dataclasses.dataclass(frozen=True)
class Options:
    """Flags of the case."""

    config: Any = None  # a recipe
    batch: int = option(16, "Queries that are computed together.", lower_bound=1)
    clients: int = option(32, "Clients, each with one query at a time.", lower_bound=1)
    queries: int = option(192, "Queries of a round.", lower_bound=1)
    pairs: int = option(3, "Alternating rounds.", lower_bound=1)


def compare(options: Options) -> dict[str, Table]:
    """Returns "queries" (a second; a round each), "ratios" and "waits" (seconds of one query)."""
    service = make_service(options)
    queries = [(jpeg(seed), f"make it {WORDS[seed % 8]} and {WORDS[seed // 8 % 8]}") for seed in range(options.queries)]
    service.warm()
    rates: dict[str, list[float]] = {"inside": [], "served": []}
    waits: list[float] = []
    with served(service) as port:
        ask(port, queries[: 2 * options.batch], options.clients)
        for _ in range(options.pairs):
            rates["inside"].append(len(queries) / answer_inside(service, queries, options.batch))
            seconds, each = ask(port, queries, options.clients)
            rates["served"].append(len(queries) / seconds)
            waits += each
    return {
        "queries": {name: {"queries/s": rounds} for name, rounds in rates.items()},
        "ratios": {"served / inside": ratio(rates["served"], rates["inside"])},
        "waits": {"seconds": {"p50": statistics.median(waits), "p99": statistics.quantiles(waits, n=100)[98]}},
    }


def make_service(options: Options) -> Any:
    """Returns the service of the recipe's model with random weights and 1,000 random vectors."""
    from contextjax.serving.index import Index
    from contextjax.serving.service import Limits, Service
    from contextjax.tokenizers import train_tokenizer
    from experiments.benchmarks.runs import make_system

    system = make_system(options.config)
    system.tokenizer = train_tokenizer(list(WORDS), vocabulary=300, length=16)
    width = system.encode_gallery([np.zeros((8, 8, 3), np.uint8)]).shape[1]
    rows = np.random.default_rng(0).normal(size=(1000, width)).astype(np.float32)
    index = Index.create(Path(tempfile.mkdtemp()) / "index", width)
    index.add([f"{row}" for row in range(len(rows))], rows / np.linalg.norm(rows, axis=1, keepdims=True))
    return Service(system, index, limits=Limits(batch=options.batch, waiting=4 * options.clients))


def jpeg(seed: int) -> bytes:
    """Returns a random picture of 640 x 480 as a JPEG file."""
    small = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8)
    Image.fromarray(small).resize((640, 480)).save(file := io.BytesIO(), "JPEG", quality=90)
    return file.getvalue()


def answer_inside(service: Any, queries: Sequence[Query], size: int) -> float:
    """Returns the seconds of decoding (in threads, a batch ahead), embedding and search in batches of `size`."""
    system = service.system
    decode = lambda query: images.preprocess(images.decode(query[0]), system.image_size, fit=system.fit)
    parts = [queries[begin : begin + size] for begin in range(0, len(queries), size)]
    begin = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        decoded = [[pool.submit(decode, query) for query in part] for part in parts]
        for part, pictures in zip(parts, decoded, strict=True):
            embedded = system.encode_query([picture.result() for picture in pictures], [text for _, text in part])
            service.index.search(embedded, 10)
    return time.perf_counter() - begin


@contextlib.contextmanager
def served(service: Any) -> Iterator[int]:
    """Runs a server in a thread; yields its port."""
    import uvicorn

    from contextjax.serving.app import make_app

    server = uvicorn.Server(uvicorn.Config(make_app(service), port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


def ask(port: int, queries: Sequence[Query], clients: int) -> tuple[float, list[float]]:
    """Returns the seconds until all are answered, and the seconds of each, asked by a process of its own."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as process:
        return process.submit(ask_all, port, queries, clients).result()


def ask_all(port: int, queries: Sequence[Query], clients: int) -> tuple[float, list[float]]:
    """Asks with so many clients at a time, in this process; see `ask`."""
    own = threading.local()

    def ask_one(query: Query) -> float:
        if not hasattr(own, "connection"):
            own.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        picture, text = query
        head = b'--b\r\nContent-Disposition: form-data; name="text"\r\n\r\n' + text.encode()
        file = b'\r\n--b\r\nContent-Disposition: form-data; name="image"; filename="q.jpg"\r\n\r\n' + picture
        begin = time.perf_counter()
        kind = {"Content-Type": "multipart/form-data; boundary=b"}
        own.connection.request("POST", "/v1/search", head + file + b"\r\n--b--\r\n", kind)
        answer = own.connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{answer.status}: {body!r}")
        return time.perf_counter() - begin

    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        begin = time.perf_counter()
        each = list(pool.map(ask_one, queries))
        return time.perf_counter() - begin, each
