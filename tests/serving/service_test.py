"""The service over real connections: answers, limits, hostile clients, its own schema, and its end."""

import concurrent.futures
import contextlib
import io
import socket
import threading
import time

import httpx
import numpy as np
import pytest
from PIL import Image

import contextjax
from contextjax.serving.app import make_app
from contextjax.serving.connections import HeadLimit
from contextjax.serving.embedding import embed
from contextjax.serving.gallery import folder_gallery
from contextjax.serving.index import Index
from contextjax.serving.service import Limits, Service
from contextjax.tokenizers import train_tokenizer
from contextjax.training.compile_counter import CompileCounter

TEXTS = ["make the dog small", "with a red hat", "two owls instead of one, and no rain or snow or fog or sun"]
LIMITS = Limits(
    body_bytes=300_000, body_seconds=1.0, text=200, pixels=250_000, candidates=5, results=20, batch=8, waiting=64
)


@pytest.fixture(scope="module")
def system(tiny):
    import dataclasses

    tokenizer = train_tokenizer(TEXTS * 3, vocabulary=300, length=10)
    wide = dataclasses.replace(tiny.clip, text=dataclasses.replace(tiny.clip.text, vocabulary=tokenizer.vocabulary))
    model = type(tiny)(clip=wide).model()
    return contextjax.System(model, type(tiny)(clip=wide).params(model), tokenizer)


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gallery")
    rng = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(folder / f"{i:02d}.png")
    return folder_gallery(folder)


@pytest.fixture(scope="module")
def index(system, gallery, tmp_path_factory):
    return embed(system, gallery, tmp_path_factory.mktemp("index") / "one")


class Server:
    """A real server in a thread."""

    def __init__(self, app, http=HeadLimit):
        import uvicorn

        self.server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", http=http))
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def end(self):
        """As SIGTERM does it."""
        self.server.should_exit = True

    def close(self):
        self.end()
        self.thread.join(30)
        assert not self.thread.is_alive()


@pytest.fixture(scope="module")
def server(system, index, gallery):
    service = Service(system, index, gallery=gallery, phrases_of=lambda text: [(0, 4), (5, len(text))], limits=LIMITS)
    started = Server(make_app(service))
    yield started
    started.close()


@pytest.fixture(scope="module")
def client(server):
    with httpx.Client(base_url=server.url, timeout=60) as opened:
        yield opened


def test_a_search_compiles_nothing_after_the_warming(system, index):
    service = Service(system, index, limits=LIMITS)
    service.warm()
    counter, rng = CompileCounter(), np.random.default_rng(0)
    pictures = rng.integers(0, 256, (3, system.image_size, system.image_size, 3), np.uint8)
    for size in range(1, LIMITS.batch + 1):
        for distinct in (1, 2, 3):  # clients may ask of one picture at the same time
            service._search([(pictures[i % distinct], TEXTS[i % 3], 1 + i) for i in range(size)])
    assert counter.unexpected == 0


def png(seed=0, size=(18, 30)):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def test_search_answers_as_the_system_and_the_index_do(client, system, index):
    picture = png()
    found = client.post("/v1/search", data={"text": TEXTS[0], "k": 5}, files={"image": picture}).json()
    query = system.encode_query([np.asarray(Image.open(io.BytesIO(picture)))], [TEXTS[0]])
    expected = index.search(query, 5)[0]
    assert [each["name"] for each in found["results"]] == [name for name, _ in expected]
    np.testing.assert_allclose(
        [each["score"] for each in found["results"]], [score for _, score in expected], atol=1e-5
    )
    assert found["read"] is None


def test_a_picture_of_the_index_is_a_reference_and_no_answer(client):
    found = client.post("/v1/search", data={"text": TEXTS[1], "name": "03.png", "k": 20}).json()["results"]
    assert len(found) == 11 and "03.png" not in {each["name"] for each in found}
    assert client.get("/v1/names", params={"start": 2, "count": 3}).json() == ["02.png", "03.png", "04.png"]
    shown = Image.open(io.BytesIO(client.get("/v1/picture", params={"name": "03.png"}).content))
    assert shown.format == "JPEG" and shown.size == (24, 20)


def test_candidates_and_maps_are_the_systems(client, system):
    pictures = [png(seed) for seed in range(3)]
    arrays = [np.asarray(Image.open(io.BytesIO(data))) for data in pictures]
    asked = {"data": {"text": TEXTS[2]}, "files": [("images", data) for data in pictures]}
    found = client.post("/v1/candidates", **asked).json()
    expected = system.score_candidates(arrays, TEXTS[2])
    np.testing.assert_allclose(found["scores"], expected, atol=1e-5)
    assert (
        found["best"] == int(np.argmax(expected)) and TEXTS[2].startswith(found["read"]) and found["read"] != TEXTS[2]
    )
    maps = client.post("/v1/maps", data={"text": TEXTS[0]}, files={"image": pictures[0]}).json()["phrases"]
    own = system.attention_maps([arrays[0]], [TEXTS[0]])[0].phrase(0, 4)
    assert [phrase["text"] for phrase in maps] == [TEXTS[0][:4], TEXTS[0][5:]]
    np.testing.assert_allclose(maps[0]["map"], (own - own.min()) / (own.max() - own.min()), atol=2e-3)


def test_many_at_once_are_answered_in_batches_each_with_its_own(client, server):
    asked = [{"text": TEXTS[i % 3], "name": f"{i % 12:02d}.png", "k": 3} for i in range(48)]
    alone = {}
    for each in asked:
        key = (each["text"], each["name"])
        alone[key] = alone.get(key) or client.post("/v1/search", data=each).json()

    def ask(each):
        return httpx.post(f"{server.url}/v1/search", data=each, timeout=60).json()

    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        found = list(pool.map(ask, asked))
    for each, answer in zip(asked, found, strict=True):
        expected = alone[each["text"], each["name"]]["results"]
        np.testing.assert_allclose(
            [hit["score"] for hit in answer["results"]], [hit["score"] for hit in expected], atol=1e-5
        )
    counts = dict(
        line.split() for line in client.get("/metrics").text.splitlines() if line.startswith("contextjax_batch_size")
    )
    name = 'contextjax_batch_size_{}{{kind="search"}}'
    assert float(counts[name.format("sum")]) > float(counts[name.format("count")])
    assert 'contextjax_requests_total{route="/v1/search",status="200"}' in client.get("/metrics").text


BOMB = io.BytesIO()
Image.new("L", (30_000, 2_000)).save(BOMB, "PNG")


def encoded(charset, text, name=b"03.png"):
    """A request whose texts are said to be in a charset."""
    parts = ((b"text", text), (b"name", name))
    body = b"".join(b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % part for part in parts)
    return {
        "content": body + b"--b--\r\n",
        "headers": {"content-type": f"multipart/form-data; boundary=b; charset={charset}"},
    }


@pytest.mark.parametrize(
    ("path", "asked", "status", "said"),
    [
        ("search", {"data": {"text": "a"}}, 422, "either a file 'image' or a 'name'"),
        ("search", {"data": {"text": "a", "name": "03.png"}, "files": {"image": png()}}, 422, "given twice"),
        ("search", {"data": {"text": "  ", "name": "03.png"}}, 422, "The text is empty"),
        ("search", {"data": {"name": "03.png"}}, 422, "text: Field required"),
        ("search", {"data": {"text": "a", "name": "../secret.png"}}, 422, "There is no picture '../secret.png' here"),
        ("search", {"data": {"text": "a", "name": "http://example.org/a.png"}}, 422, "There is no picture 'http"),
        ("search", {"data": {"text": "a" * 201, "name": "03.png"}}, 422, "at most 200 characters"),
        ("search", {"data": {"text": "a", "name": "03.png", "k": 21}}, 422, "less than or equal to 20"),
        ("search", {"data": {"text": "a"}, "files": {"image": b"no picture"}}, 422, "can't be read as a picture"),
        ("search", {"data": {"text": "a"}, "files": {"image": png()[:300]}}, 422, "can't be read as a picture"),
        ("search", {"data": {"text": "a"}, "files": {"image": BOMB.getvalue()}}, 422, "pixels; at most 250,000"),
        ("search", {"data": {"text": "a"}, "files": {"image": b"x" * 400_000}}, 413, "more than 300,000 bytes"),
        ("candidates", {"data": {"text": "a"}, "files": [("images", png())] * 6}, 422, "at most 5 items"),
        ("candidates", {"data": {"text": "a"}}, 422, "images: Field required"),
        ("search", {"content": b"--x", "headers": {"content-type": "multipart/form-data; boundary=x"}}, 422, "text"),
        ("search", {"content": b"--x", "headers": {"content-type": "multipart/form-data"}}, 422, "Missing boundary"),
        ("search", {"data": {str(row): "a" for row in range(1001)}}, 422, "1000"),
        ("search", {"files": [("a", (None, "b"))] * 1001}, 422, "form can't be read (Too many fields"),
        ("search", encoded("punycode", b"x" * 30_000 + b"-" + b"z" * 30_000), 422, "'punycode'; send them in utf-8"),
        ("search", encoded("utf-7", b"+2AA-"), 422, "charset 'utf-7'"),
        ("search", encoded('"UTF-8"; charset=utf-7', b"+2AA-"), 422, "charset 'utf-7'"),
        ("search", encoded("UTF-8", b"\xed\xa0\x80", b"x.png"), 422, "no picture 'x.png'"),
    ],
)  # fmt: skip
def test_what_is_not_as_it_should_be_is_told(client, path, asked, status, said):
    answer = client.post(f"/v1/{path}", **asked)
    assert answer.status_code == status and said in answer.json()["detail"], answer.text


def test_slow_and_broken_uploads_end_and_harm_nobody(server, client):
    head = b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    head += b"Content-Length: 9000\r\n\r\n"
    with contextlib.ExitStack() as stack:
        slow, broken = (stack.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(2))
        for connection in (slow, broken):
            connection.sendall(head + b"--b\r\n")
        broken.close()
        assert client.get("/health").json()["status"] == "ok"
        slow.settimeout(20)
        assert b" 408 " in slow.recv(4096).split(b"\r\n")[0]
    chunked = b"POST /v1/search HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as endless:
        endless.sendall(chunked)
        endless.settimeout(20)
        with contextlib.suppress(ConnectionError):
            for _ in range(40):
                endless.sendall(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
        assert b" 413 " in endless.recv(4096).split(b"\r\n")[0]
    counted = client.get("/metrics").text
    assert 'status="408"' in counted and 'status="413"' in counted and 'status="500"' not in counted


class Slow(Index):
    """Answers when it is told to."""

    def __init__(self, folder, go):
        super().__init__(folder)
        self.go = go

    def search(self, queries, k):
        self.go.wait(60)
        return super().search(queries, k)


def test_more_requests_than_may_be_open_are_refused(system, index, gallery):
    go, asked = threading.Event(), {"text": TEXTS[0], "name": "01.png"}
    server = Server(
        make_app(Service(system, Slow(index.folder, go), gallery=gallery, limits=Limits(requests=2, batch=1)))
    )
    ask = lambda: httpx.post(f"{server.url}/v1/search", data=asked, timeout=60)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(ask) for _ in range(2)]
        while "contextjax_waiting_search 1.0" not in httpx.get(f"{server.url}/metrics").text:  # behind the other
            time.sleep(0.01)
        refused = ask()
        assert refused.status_code == 503 and "2 requests are being answered" in refused.json()["detail"]
        assert refused.headers["retry-after"] == "1" and httpx.get(f"{server.url}/health").status_code == 200
        go.set()
        assert [each.result().status_code for each in waiting] == [200, 200]
    assert ask().status_code == 200
    server.close()


def test_many_thumbnails_wait_for_none_but_themselves(system, index, gallery, monkeypatch):
    """A search by a named picture is answered while all that shrinks pictures is busy, and too many are refused."""
    import dataclasses

    go = threading.Event()

    def slow(name):
        if threading.current_thread().name.startswith("thumbnails"):
            go.wait(60)
        return gallery.picture(name)

    monkeypatch.setattr("contextjax.serving.service.THUMBNAILS", 4)
    changed = dataclasses.replace(gallery, picture=slow)
    server = Server(make_app(Service(system, index, gallery=changed, limits=LIMITS)))
    show = lambda row: httpx.get(f"{server.url}/v1/picture", params={"name": f"{row:02d}.png"}, timeout=60)
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        shown = [pool.submit(show, row) for row in range(6)]
        while sum(each.done() for each in shown) < 2:
            time.sleep(0.01)
        found = httpx.post(f"{server.url}/v1/search", data={"text": "a", "name": "01.png"}, timeout=60)
        assert found.status_code == 200 and sum(each.done() for each in shown) == 2
        go.set()
        answers = [each.result() for each in shown]
    assert sorted(answer.status_code for answer in answers) == [200] * 4 + [429] * 2
    assert next(answer for answer in answers if answer.status_code == 429).headers["retry-after"] == "1"
    server.close()


def test_pictures_that_cannot_be_read_and_those_not_in_the_index_are_told_without_their_place(system, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("whole", "gone", "broken", "folder"):
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(tmp_path / f"{name}.png")
    made = embed(system, folder_gallery(tmp_path), tmp_path / "index")
    Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(tmp_path / "new.png")
    service = Service(system, made, gallery=folder_gallery(tmp_path), limits=LIMITS)
    (tmp_path / "gone.png").unlink()
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "folder.png").unlink()
    (tmp_path / "folder.png").mkdir()
    server = Server(make_app(service))
    with httpx.Client(base_url=server.url, timeout=60) as client:
        assert client.get("/v1/names").json() == ["broken.png", "folder.png", "gone.png", "whole.png"]
        for name, status in (("whole", 200), ("gone", 422), ("broken", 422), ("folder", 422), ("new", 422)):
            for answer in (client.get("/v1/picture", params={"name": f"{name}.png"}),
                           client.post("/v1/search", data={"text": "a", "name": f"{name}.png"})):  # fmt: skip
                assert answer.status_code == status and str(tmp_path) not in answer.text, answer.text
    server.close()


def test_an_index_without_its_pictures_is_counted(system, index):
    server = Server(make_app(Service(system, index, limits=LIMITS)))
    assert httpx.get(f"{server.url}/health").json()["pictures"] == 12
    assert httpx.get(f"{server.url}/v1/names").json() == []
    server.close()


def test_connections_that_ask_nothing_are_closed_and_those_that_do_are_kept(system, index, gallery):
    server = Server(
        make_app(Service(system, index, gallery=gallery, limits=LIMITS)), type("Quick", (HeadLimit,), {"seconds": 0.5})
    )
    whole = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    with contextlib.ExitStack() as stack:
        silent, slow, endless, again = (
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=20)) for _ in range(4)
        )
        slow.sendall(whole[:20])
        again.sendall(whole)
        assert again.recv(4096).startswith(b"HTTP/1.1 200")
        with contextlib.suppress(ConnectionError):
            for _ in range(40):  # a byte now and then does not help
                endless.sendall(whole[:1])
                time.sleep(0.05)
        assert silent.recv(1) == slow.recv(1) == b""
        with pytest.raises(ConnectionError):
            while True:
                endless.sendall(whole[:1])
                time.sleep(0.01)
        again.sendall(whole)  # uvicorn keeps it for 5 seconds
        assert again.recv(4096).startswith(b"HTTP/1.1 200")
        again.sendall(whole[:20])
        assert again.recv(1) == b""
    server.close()


def test_a_full_queue_refuses_and_ends_answer_all_that_was_taken(system, index, gallery):
    go, asked = threading.Event(), {"text": TEXTS[0], "name": "01.png", "k": 2}
    slow = Slow(index.folder, go)
    service = Service(system, slow, gallery=gallery, limits=Limits(batch=1, wait=0.0, waiting=3))
    server = Server(make_app(service))
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        waiting = [pool.submit(httpx.post, f"{server.url}/v1/search", data=asked, timeout=60) for _ in range(10)]
        while sum(future.done() for future in waiting) < 6:  # one is computed, three wait
            time.sleep(0.01)
        refused = [future.result() for future in waiting if future.done()]
        assert {answer.status_code for answer in refused} == {429} and refused[0].headers["retry-after"] == "1"
        server.end()
        time.sleep(0.3)
        go.set()
        assert sorted(future.result().status_code for future in waiting) == [200] * 4 + [429] * 6
    server.close()


def test_a_set_that_is_too_large_for_the_model_and_an_index_that_fails_harm_nobody_else(system, index, gallery):
    from contextjax.types import UserError

    class Broken(Index):
        def search(self, queries, k):
            raise UserError("the cluster at secret.example.org is away")

    class Few:
        image_size, fit, tokenizer, identity = system.image_size, system.fit, system.tokenizer, "few"
        truncated, encode_query = system.truncated, system.encode_query

        def score_sets(self, sets, texts):
            if len(sets[0]) > 3:
                raise UserError("A set has 4 candidates, and this model takes 3; give fewer.")
            return system.score_sets(sets, texts)

    server = Server(make_app(Service(Few(), Broken(index.folder), gallery=gallery, limits=Limits(batch=8, wait=0.2))))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        ask = lambda count: httpx.post(
            f"{server.url}/v1/candidates",
            data={"text": "a"},
            files=[("images", png(i)) for i in range(count)],
            timeout=60,
        )
        few, many, other = pool.map(ask, (2, 4, 3))
    assert few.status_code == other.status_code == 200 and many.status_code == 422 and "takes 3" in many.text
    answer = httpx.post(f"{server.url}/v1/search", data={"text": "a", "name": "01.png"}, timeout=60)
    assert answer.status_code == 503 and "secret" not in answer.text and answer.headers["retry-after"] == "1"
    server.close()


def test_the_page_and_the_health_need_nothing_from_elsewhere(client, system):
    page = client.get("/").text
    assert "v1/search" in page and "http://" not in page and "https://" not in page
    facts = client.get("/health").json()
    assert facts == {"status": "ok", "model": system.identity, "pictures": 12, "can": ["search", "candidates", "maps"]}


def test_without_an_index_candidates_alone_are_scored(system):
    server = Server(make_app(Service(system, None, limits=LIMITS)))
    with httpx.Client(base_url=server.url, timeout=60) as client:
        assert client.get("/health").json()["can"] == ["candidates"]
        assert client.post("/v1/search", data={"text": "a"}).status_code == 404
        asked = {"data": {"text": "a"}, "files": [("images", png())]}
        assert len(client.post("/v1/candidates", **asked).json()["scores"]) == 1
    server.close()


# ------------------------------------------------------------------------------- by its own schema


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("examples", [5, pytest.param(200, marks=pytest.mark.slow)])
def test_the_service_keeps_to_its_own_schema(server, examples):
    """Whatever a client may send, nothing is answered that the schema does not name, and nothing fails."""
    import hypothesis
    import schemathesis

    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    tried = []
    for operation in (found.ok() for found in schema.get_all_operations()):

        @hypothesis.settings(
            max_examples=examples, deadline=None, database=None, derandomize=True,
            suppress_health_check=list(hypothesis.HealthCheck),
        )  # fmt: skip
        @hypothesis.given(case=operation.as_strategy())
        def check(case):
            response = case.call(timeout=60)
            assert response.status_code < 500, response.text
            # No schema can say that bytes are a picture: those that are none are refused.
            case.validate_response(response, excluded_checks=[schemathesis.checks.positive_data_acceptance])

        check()
        tried.append(operation.label)
    assert len(tried) == 6


@pytest.mark.slow
def test_ten_thousand_requests_leave_no_memory_behind(server, client):
    import os

    def resident():
        from pathlib import Path

        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    text, uploaded = {"text": TEXTS[0]}, {"image": png()}
    kinds = [  # status, method, path, what is asked
        (200, "POST", "/v1/search", {"data": text | {"k": 5}, "files": uploaded}),
        (200, "POST", "/v1/search", {"data": text | {"name": "03.png"}}),
        (200, "GET", "/v1/picture", {"params": {"name": "05.png"}}),
        (200, "POST", "/v1/candidates", {"data": text, "files": [("images", png(seed)) for seed in range(3)]}),
        (422, "POST", "/v1/search", {"data": text, "files": {"image": b"no picture"}}),
        (413, "POST", "/v1/search", {"data": text, "files": {"image": b"x" * 400_000}}),
        (422, "POST", "/v1/search", {"data": text | {"name": "none.png"}}),
    ]

    def ask(number):
        status, method, path, asked = kinds[number % len(kinds)]
        answer = client.request(method, path, **asked)
        return "" if answer.status_code == status else f"{path}, not {status}: {answer.text}"

    def send(count):
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            assert set(pool.map(ask, range(count))) == {""}

    send(2000)  # pools and caches fill
    before = resident()
    for _ in range(5):
        send(2000)  # as many as before at a time: the client's own futures are memory, too
    print(f"{before:,} bytes, then {resident():,}")
    assert resident() < 1.02 * before
