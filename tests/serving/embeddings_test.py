"""Tests of POST /v1/embeddings: the numbers are the system's, OpenAI's client reads them, and bad input is refused."""

import base64
import io

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from contextjax.serving.app import make_app
from contextjax.serving.service import Service
from tests.serving.conftest import LIMITS, TEXTS, png


@pytest.fixture(scope="module")
def client(system):
    """A client of the application, in this process. An index is not needed."""
    with TestClient(make_app(Service(system, None, limits=LIMITS))) as opened:
        yield opened


def url(data, kind="png"):
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def test_texts_pictures_and_composed_queries_are_the_system_s(client, system):
    pictures = [png(seed) for seed in range(2)]
    arrays = [np.asarray(Image.open(io.BytesIO(data))) for data in pictures]
    asked = [TEXTS[0], url(pictures[0]), {"text": TEXTS[1], "image": url(pictures[1])},
             {"image": base64.b64encode(pictures[1]).decode()}, {"text": TEXTS[2]}]  # fmt: skip
    answer = client.post("/v1/embeddings", json={"model": "any", "input": asked}).json()
    expected = np.concatenate([
        system.encode_text(TEXTS[:1]), system.encode_gallery(arrays[:1]), system.encode_query(arrays[1:], TEXTS[1:2]),
        system.encode_gallery(arrays[1:]), system.encode_text(TEXTS[2:]),
    ])  # fmt: skip
    np.testing.assert_allclose([each["embedding"] for each in answer["data"]], expected, atol=1e-5)
    assert [each["index"] for each in answer["data"]] == [0, 1, 2, 3, 4] and answer["object"] == "list"
    assert answer["model"] == system.identity and "read" not in answer["data"][0]
    assert TEXTS[2].startswith(answer["data"][4]["read"]) and answer["data"][4]["read"] != TEXTS[2]
    tokens = int(system.tokenizer(TEXTS).tokens.mask.sum())
    assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}


def test_openai_s_client_reads_them(client, system):
    """The client asks for base64 by itself."""
    openai = pytest.importorskip("openai")

    made = openai.OpenAI(base_url="http://testserver/v1", api_key="none", http_client=client, max_retries=0)
    answer = made.embeddings.create(model="any", input=TEXTS[:2])
    np.testing.assert_allclose([each.embedding for each in answer.data], system.encode_text(TEXTS[:2]), atol=1e-5)
    one = made.embeddings.create(model="any", input=TEXTS[0], encoding_format="float", dimensions=system.projection)
    np.testing.assert_allclose(one.data[0].embedding, answer.data[0].embedding, atol=1e-6)
    with pytest.raises(openai.UnprocessableEntityError, match="leave it out"):
        made.embeddings.create(model="any", input="a", dimensions=3)


@pytest.mark.parametrize(
    ("request_", "status", "sentence"),
    [
        ({"json": {"model": "any"}}, 422, "input: Field required"),
        ({"json": {"input": [1, 2]}}, 422, "input[0] is a number"),
        ({"json": {"input": ["a"] * 7}}, 422, "7 entries; expected 1 to 6"),
        ({"json": {"input": "a", "encoding_format": "int8"}}, 422, "encoding_format"),
        ({"json": {"input": "a" * 201}}, 422, "at most 200"),
        ({"json": {"input": {"image": "AAAA"}}}, 422, "can't be read as a picture"),
        ({"json": {"input": "data:image/png;base64,%%%"}}, 422, "is no base64"),
        ({"json": {"input": {"image": "http://127.0.0.1/a.png"}}}, 422, "nothing is fetched"),
        ({"content": '{"input": "\\ud800"}', "headers": {"content-type": "application/json"}}, 422, "not UTF-8"),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 422, "JSON decode error"),
        ({"content": b'{"input": "\xe4"}', "headers": {"content-type": "application/json"}}, 422, "not in UTF-8"),
        ({"content": '{"input": "a"}'.encode("utf-16"), "headers": {"content-type": "application/json"}}, 422, "UTF-"),
        ({"content": b"[" * 100_000, "headers": {"content-type": "application/json"}}, 422, "can't be read"),
        ({"json": {"input": "a" * 400_000}}, 413, "more than 300,000 bytes"),
    ],
)
def test_a_bad_request_is_refused_with_a_sentence(client, request_, status, sentence):
    answer = client.post("/v1/embeddings", **request_)
    assert answer.status_code == status and sentence in answer.json()["detail"], answer.text
