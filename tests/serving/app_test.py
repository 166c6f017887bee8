"""Tests of the routes: answers, what is refused, and the application's own schema."""

import concurrent.futures
import io

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from contextjax.serving.app import make_app
from contextjax.serving.attributes import Attributes
from contextjax.serving.embedding import embed
from contextjax.serving.gallery import folder_gallery
from contextjax.serving.service import Service
from tests.serving.conftest import LIMITS, TEXTS, png


@pytest.fixture(scope="module")
def client(system, index, gallery):
    """A client of the application, in this process."""
    service = Service(system, index, gallery=gallery, phrases_of=lambda text: [(0, 4), (5, len(text))], limits=LIMITS)
    with TestClient(make_app(service)) as opened:
        yield opened


def test_search_answers_as_the_system_and_the_index_do(client, system, index):
    picture = png()
    answer = client.post("/v1/search", data={"text": TEXTS[0], "k": 5}, files={"image": picture}).json()
    query = system.encode_query([np.asarray(Image.open(io.BytesIO(picture)))], [TEXTS[0]])
    expected = index.search(query, 5)[0]
    assert [each["name"] for each in answer["results"]] == [name for name, _ in expected]
    np.testing.assert_allclose(
        [each["score"] for each in answer["results"]], [score for _, score in expected], atol=1e-5
    )
    assert answer["read"] is None


def test_a_text_or_a_picture_alone_is_asked_and_scores_have_a_threshold(client, system, index):
    picture = png()
    array = np.asarray(Image.open(io.BytesIO(picture)))
    for asked, query in (
        ({"data": {"text": TEXTS[0]}}, system.encode_text([TEXTS[0]])),
        ({"files": {"image": picture}}, system.encode_gallery([array])),
    ):
        expected = index.search(query, 12)[0]
        middle = expected[5][1]
        for threshold, count in ((-1, 12), (middle - 1e-4, 6), (middle + 1e-4, 5)):
            asked["data"] = {**asked.get("data", {}), "k": 12, "threshold": threshold}
            hits = client.post("/v1/search", **asked).json()["results"]
            assert [hit["name"] for hit in hits] == [name for name, _ in expected[:count]]
            np.testing.assert_allclose([hit["score"] for hit in hits], [s for _, s in expected[:count]], atol=1e-5)
    alone = client.post("/v1/search", data={"name": "03.png", "k": 12}).json()["results"]
    assert len(alone) == 11 and "03.png" not in {hit["name"] for hit in alone}


def test_several_questions_of_one_request_are_answered_like_each_alone(client):
    alone = lambda **asked: client.post("/v1/search", data={"k": 3, **asked}).json()
    several = lambda **asked: client.post("/v1/search", data={"k": 3, **asked}).json()["answers"]
    for answers, expected in (
        (several(text=TEXTS), [alone(text=text) for text in TEXTS]),
        (several(name=["01.png", "02.png"]), [alone(name="01.png"), alone(name="02.png")]),
        (several(name="01.png", text=TEXTS[:2]), [alone(name="01.png", text=text) for text in TEXTS[:2]]),
        (several(name=["01.png", "02.png"], text=TEXTS[:2]),
         [alone(name=f"0{row + 1}.png", text=TEXTS[row]) for row in range(2)]),
    ):  # fmt: skip
        assert [answer["read"] for answer in answers] == [answer["read"] for answer in expected]
        for answer, single in zip(answers, expected, strict=True):
            assert len(answer["results"]) == 3
            assert [hit["name"] for hit in answer["results"]] == [hit["name"] for hit in single["results"]]


def test_a_picture_of_the_index_is_a_reference_and_no_answer(client):
    hits = client.post("/v1/search", data={"text": TEXTS[1], "name": "03.png", "k": 20}).json()["results"]
    assert len(hits) == 11 and "03.png" not in {each["name"] for each in hits}
    assert client.get("/v1/names", params={"start": 2, "count": 3}).json() == ["02.png", "03.png", "04.png"]
    shown = Image.open(io.BytesIO(client.get("/v1/picture", params={"name": "03.png"}).content))
    assert shown.format == "JPEG" and shown.size == (24, 20)


def test_candidates_and_maps_are_the_systems(client, system):
    pictures = [png(seed) for seed in range(3)]
    arrays = [np.asarray(Image.open(io.BytesIO(data))) for data in pictures]
    asked = {"data": {"text": TEXTS[2]}, "files": [("images", data) for data in pictures]}
    answer = client.post("/v1/candidates", **asked).json()
    expected = system.score_candidates(arrays, TEXTS[2])
    np.testing.assert_allclose(answer["scores"], expected, atol=1e-5)
    assert (
        answer["best"] == int(np.argmax(expected))
        and TEXTS[2].startswith(answer["read"])
        and answer["read"] != TEXTS[2]
    )
    maps = client.post("/v1/maps", data={"text": TEXTS[0]}, files={"image": pictures[0]}).json()["phrases"]
    own = system.attention_maps([arrays[0]], [TEXTS[0]])[0].phrase(0, 4)
    assert [phrase["text"] for phrase in maps] == [TEXTS[0][:4], TEXTS[0][5:]]
    np.testing.assert_allclose(maps[0]["map"], (own - own.min()) / (own.max() - own.min()), atol=2e-3)


def test_many_at_once_are_answered_in_batches_each_with_its_own(client):
    asked = [{"text": TEXTS[i % 3], "name": f"{i % 12:02d}.png", "k": 3} for i in range(48)]
    alone = {}
    for each in asked:
        key = (each["text"], each["name"])
        alone[key] = alone.get(key) or client.post("/v1/search", data=each).json()

    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda each: client.post("/v1/search", data=each).json(), asked))
    for each, answer in zip(asked, answers, strict=True):
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


def test_searches_are_filtered_by_attributes(system, gallery, tmp_path):
    index = embed(system, gallery, tmp_path)
    index.set_attributes(Attributes(gallery.names, {"price": [*range(12)], "kind": ["a", "b"] * 6}))
    with TestClient(make_app(Service(system, index, gallery=gallery, limits=LIMITS))) as client:
        ask = lambda **more: client.post("/v1/search", data={"text": ["a dog", "two owls"], "k": 12, **more})
        assert client.get("/health").json()["attributes"] == {"price": "number", "kind": "text"}
        every, some = ask().json()["answers"], ask(where="price >= 3 and kind = 'b'").json()["answers"]
        for all_, filtered in zip(every, some, strict=True):
            kept = [hit["name"] for hit in all_["results"] if int(hit["name"][:2]) in (3, 5, 7, 9, 11)]
            assert [hit["name"] for hit in filtered["results"]] == kept and len(kept) == 5
            for hit in filtered["results"]:
                assert hit["attributes"] == {"price": int(hit["name"][:2]), "kind": "b"}
        for where, sentence in (("price = 'x'", "price is a number"), ("size = 1", "'size', and there are price, kind"),
                                ("price <", "can't be read")):  # fmt: skip
            refused = ask(where=where)
            assert refused.status_code == 422 and sentence in refused.json()["detail"]


CAN = ["search", "candidates", "embeddings", "maps"]
BOMB = io.BytesIO()


Image.new("L", (30_000, 2_000)).save(BOMB, "PNG")

TIFF = io.BytesIO()


Image.new("RGB", (9, 9)).save(TIFF, "TIFF")


def encoded(charset, text, name=b"03.png"):
    """Returns a request that says its texts are in a charset."""
    fields = ((b"text", text), (b"name", name))
    body = b"".join(b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % field for field in fields)
    return {
        "content": body + b"--b--\r\n",
        "headers": {"content-type": f"multipart/form-data; boundary=b; charset={charset}"},
    }


@pytest.mark.parametrize(
    ("path", "asked", "status", "sentence"),
    [
        ("search", {"data": {"k": "5"}}, 422, "neither a picture nor a text"),
        ("search", {"data": {"text": ["a", "b"], "name": ["1.png"] * 3}}, 422, "3 pictures and 2 texts; expected as"),
        ("search", {"data": {"text": ["a"] * 7}}, 422, "at most 6 items"),
        ("search", {"data": {"text": "a", "threshold": "nan"}}, 422, "threshold: Input should be"),
        ("search", {"data": {"text": "a", "threshold": "2"}}, 422, "less than or equal to 1"),
        ("search", {"data": {"text": "a", "where": "price < 5"}}, 422, "the index has none"),
        ("maps", {"data": {"text": "a"}}, 422, "Maps are of one text and one reference"),
        ("maps", {"data": {"text": ["a", "b"], "name": "03.png"}}, 422, "Maps are of one text and one reference"),
        ("search", {"data": {"text": "a", "name": "03.png"}, "files": {"image": png()}}, 422, "given twice"),
        ("search", {"data": {"text": "  ", "name": "03.png"}}, 422, "The text is empty"),
        ("candidates", {"files": [("images", png())]}, 422, "text: Field required"),
        ("search", {"data": {"text": "a", "name": "../secret.png"}}, 422, "There is no picture '../secret.png' here"),
        ("search", {"data": {"text": "a", "name": "http://example.org/a.png"}}, 422, "There is no picture 'http"),
        ("search", {"data": {"text": "a" * 201, "name": "03.png"}}, 422, "at most 200 characters"),
        ("search", {"data": {"text": "a", "name": "03.png", "k": 21}}, 422, "less than or equal to 20"),
        ("search", {"data": {"text": "a"}, "files": {"image": b"no picture"}}, 422, "can't be read as a picture"),
        ("search", {"data": {"text": "a"}, "files": {"image": png()[:300]}}, 422, "can't be read as a picture"),
        ("search", {"data": {"text": "a"}, "files": {"image": TIFF.getvalue()}}, 422, "can't be read as a picture"),
        ("search", {"data": {"text": "a"}, "files": {"image": BOMB.getvalue()}}, 422, "pixels; at most 250,000"),
        ("search", {"data": {"text": "a"}, "files": {"image": b"x" * 400_000}}, 413, "more than 300,000 bytes"),
        ("candidates", {"data": {"text": "a"}, "files": [("images", png())] * 6}, 422, "at most 5 items"),
        ("candidates", {"data": {"text": "a"}}, 422, "images: Field required"),
        ("search", {"content": b"--x", "headers": {"content-type": "multipart/form-data; boundary=x"}}, 422, "text"),
        ("search", {"content": b"--x", "headers": {"content-type": "multipart/form-data"}}, 422, "Missing boundary"),
        ("search", {"data": {str(row): "a" for row in range(1001)}}, 422, "1000"),
        ("search", {"files": [("a", (None, "b"))] * 1001}, 422, "request can't be read (Too many fields"),
        ("search", encoded("punycode", b"x" * 30_000 + b"-" + b"z" * 30_000), 422, "'punycode'; send them in utf-8"),
        ("search", encoded("utf-7", b"+2AA-"), 422, "charset 'utf-7'"),
        ("search", encoded('"UTF-8"; charset=utf-7', b"+2AA-"), 422, "charset 'utf-7'"),
        ("search", encoded("UTF-8", b"\xed\xa0\x80", b"x.png"), 422, "is not in UTF-8 (byte 0xED at 0)"),
    ],
)  # fmt: skip
def test_a_bad_request_is_refused_with_a_sentence(client, path, asked, status, sentence):
    answer = client.post(f"/v1/{path}", **asked)
    assert answer.status_code == status and sentence in answer.json()["detail"], answer.text


def test_pictures_that_cannot_be_read_and_those_not_in_the_index_are_refused_without_their_place(system, tmp_path):
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
    with TestClient(make_app(service)) as client:
        assert client.get("/v1/names").json() == ["broken.png", "folder.png", "gone.png", "whole.png"]
        for name, status in (("whole", 200), ("gone", 422), ("broken", 422), ("folder", 422), ("new", 422)):
            for answer in (client.get("/v1/picture", params={"name": f"{name}.png"}),
                           client.post("/v1/search", data={"text": "a", "name": f"{name}.png"})):  # fmt: skip
                assert answer.status_code == status and str(tmp_path) not in answer.text, answer.text


def test_an_index_without_its_pictures_is_counted(system, index):
    with TestClient(make_app(Service(system, index, limits=LIMITS))) as client:
        assert client.get("/health").json()["pictures"] == 12
        assert client.get("/v1/names").json() == []


def test_the_page_and_the_health_need_nothing_from_elsewhere(client, system):
    page = client.get("/").text
    assert "v1/search" in page and "http://" not in page and "https://" not in page
    facts = client.get("/health").json()
    assert facts == {"status": "ok", "model": system.identity, "pictures": 12, "can": CAN, "attributes": {}}


def test_without_an_index_candidates_alone_are_scored(system):
    with TestClient(make_app(Service(system, None, limits=LIMITS))) as client:
        assert client.get("/health").json()["can"] == ["candidates", "embeddings"]
        assert client.post("/v1/search", data={"text": "a"}).status_code == 404
        asked = {"data": {"text": "a"}, "files": [("images", png())]}
        assert len(client.post("/v1/candidates", **asked).json()["scores"]) == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("examples", [5, pytest.param(200, marks=pytest.mark.slow)])
def test_the_service_keeps_to_its_own_schema(server, examples):
    """Nothing is answered that the schema does not name, and nothing fails, whatever a client may send."""
    import hypothesis
    import schemathesis

    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    tried = []
    for operation in (result.ok() for result in schema.get_all_operations()):

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
    assert len(tried) == 7
