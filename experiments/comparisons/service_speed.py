"""The service under load, beside the same work without it: queries a second and how long one waits.

python -m experiments.comparisons.service_speed --config=configs/context_cir.py:B32 [--clients=32] [--rounds=3]

A query is a JPEG of 640 x 480 and a text; its picture is decoded, it is embedded (random weights) and looked up among
1,000 vectors. Both do the same in batches of --batch; the clients are processes beside the server, on the same machine.
"""

import concurrent.futures
import http.client
import io
import json
import multiprocessing
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from absl import flags

from contextjax.files import write_whole
from experiments.shared import cli

CONFIG = cli.define_config()
BATCH = flags.DEFINE_integer("batch", 16, "Queries that are computed together.", lower_bound=1)
CLIENTS = flags.DEFINE_integer("clients", 32, "Clients, each with one query at a time.", lower_bound=1)
QUERIES = flags.DEFINE_integer("queries", 192, "Queries of a round.", lower_bound=1)
ROUNDS = flags.DEFINE_integer("rounds", 3, "Alternating rounds.", lower_bound=1)
OUTPUT = flags.DEFINE_string("output", None, "A JSON file of the result.")
WORDS = ("red", "large", "old", "wooden", "left", "small", "blue", "open")


def main() -> None:
    """Rounds of both, one after the other."""
    service = _service()
    queries = [(_jpeg(seed), f"make it {WORDS[seed % 8]} and {WORDS[seed // 8 % 8]}") for seed in range(QUERIES.value)]
    service.warm()
    found: dict[str, list[float]] = {"inside": [], "served": []}
    waited: list[float] = []
    with _Served(service) as port:
        _ask(port, queries[: 2 * BATCH.value])
        for _ in range(ROUNDS.value):
            found["inside"].append(_inside(service, queries))
            seconds, each = _ask(port, queries)
            found["served"].append(len(queries) / seconds)
            waited += each
    ratio = statistics.median(found["served"]) / statistics.median(found["inside"])
    cuts = statistics.quantiles(waited, n=100)
    inside, served = (statistics.median(found[name]) for name in ("inside", "served"))
    print(f"{served:.2f} queries/s served, {inside:.2f} without the service: {ratio:.2f}. "
          f"A query waits {statistics.median(waited):.2f} s, 99 of 100 at most {cuts[98]:.2f} s.")  # fmt: skip
    if OUTPUT.value:
        from experiments.comparisons import measure

        rows = {
            **found, "ratio": ratio, "p50_seconds": statistics.median(waited), "p99_seconds": cuts[98],
            "config": flags.FLAGS["config"].config_filename, "batch": BATCH.value, "clients": CLIENTS.value,
            "queries": QUERIES.value, "cpu": measure.cpu_model(),
        }  # fmt: skip
        write_whole(Path(OUTPUT.value), json.dumps(rows, indent=2) + "\n")


def _service() -> Any:
    import numpy as np

    from contextjax.serving.index import Index
    from contextjax.serving.service import Limits, Service
    from contextjax.tokenizers import train_tokenizer
    from experiments.benchmarks.runs import make_system

    system = make_system(cli.required(CONFIG))
    system.tokenizer = train_tokenizer(list(WORDS), vocabulary=300, length=16)
    width = system.encode_gallery([np.zeros((8, 8, 3), np.uint8)]).shape[1]
    rows = np.random.default_rng(0).normal(size=(1000, width)).astype(np.float32)
    index = Index.create(Path(tempfile.mkdtemp()) / "index", width)
    index.add([f"{row}" for row in range(len(rows))], rows / np.linalg.norm(rows, axis=1, keepdims=True))
    return Service(system, index, limits=Limits(batch=BATCH.value, waiting=4 * CLIENTS.value))


def _jpeg(seed: int) -> bytes:
    import numpy as np
    from PIL import Image

    small = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8)
    Image.fromarray(small).resize((640, 480)).save(file := io.BytesIO(), "JPEG", quality=90)
    return file.getvalue()


def _inside(service: Any, queries: list[tuple[bytes, str]]) -> float:
    """Queries a second of decoding (in threads, a batch ahead), embedding and looking up."""
    from contextjax import images

    system, size = service.system, BATCH.value
    decode = lambda query: images.preprocess(images.decode(query[0]), system.image_size, fit=system.fit)
    parts = [queries[begin : begin + size] for begin in range(0, len(queries), size)]
    begin = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        coming = [[pool.submit(decode, query) for query in part] for part in parts]
        for part, pictures in zip(parts, coming, strict=True):
            embedded = system.encode_query([picture.result() for picture in pictures], [text for _, text in part])
            service.index.search(embedded, 10)
    return len(queries) / (time.perf_counter() - begin)


class _Served:
    """A server in a thread; its port."""

    def __init__(self, service: Any):
        import uvicorn

        from contextjax.serving.app import make_app

        self._server = uvicorn.Server(uvicorn.Config(make_app(service), port=0, log_level="error"))
        self._thread = threading.Thread(target=self._server.run)

    def __enter__(self) -> int:
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        return self._server.servers[0].sockets[0].getsockname()[1]

    def __exit__(self, *_: Any) -> None:
        self._server.should_exit = True
        self._thread.join()


def _ask(port: int, queries: list[tuple[bytes, str]]) -> tuple[float, list[float]]:
    """(Seconds until all are answered, seconds of each), asked by a process of its own."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as process:
        return process.submit(ask_all, port, queries, CLIENTS.value).result()


def ask_all(port: int, queries: list[tuple[bytes, str]], clients: int) -> tuple[float, list[float]]:
    """What `_ask` does, in its process."""
    own = threading.local()

    def ask(query: tuple[bytes, str]) -> float:
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
        each = list(pool.map(ask, queries))
        return time.perf_counter() - begin, each


if __name__ == "__main__":
    cli.run(main)
