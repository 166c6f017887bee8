"""Tests of charsets: what is not in UTF-8 is refused on every route that takes text, what is in it arrives whole."""

import pytest
from starlette.testclient import TestClient

from contextjax.serving.app import make_app
from contextjax.serving.service import Service
from tests.serving.conftest import LIMITS, png

RUSSIAN = "сделай собаку больше"


@pytest.fixture(scope="module")
def client(system, index, gallery):
    """A client of an application whose phrases are the whole text, so that maps say what has been read."""
    service = Service(system, index, gallery=gallery, phrases_of=lambda text: [(0, len(text))], limits=LIMITS)
    with TestClient(make_app(service)) as opened:
        yield opened


def parts(text, *, head=b"", field=b"text", file=b"a.png", charset=""):
    """Returns a multipart request with a text, which has headers, and a picture, which has a file name."""
    disposition = b"Content-Disposition: form-data; name="
    body = b"--b\r\n" + disposition + b'"' + field + b'"\r\n' + head + b"\r\n" + text
    for name in (b"image", b"images"):
        body += b"\r\n--b\r\n" + disposition + b'"' + name + b'"; filename="' + file + b'"\r\n\r\n' + png()
    return {
        "content": body + b"\r\n--b--\r\n",
        "headers": {"content-type": f"multipart/form-data; boundary=b{charset}"},
    }


def form(content, more=""):
    return {"content": content, "headers": {"content-type": f"application/x-www-form-urlencoded{more}"}}


PLAIN = b"Content-Type: text/plain; charset=%s\r\n"
REFUSED = {
    "bytes of Windows-1251": (parts(RUSSIAN.encode("cp1251")), "A text of the form is not in UTF-8 (byte 0xF1 at 0)"),
    "bytes of Latin-1": (parts("größer".encode("latin-1")), "(byte 0xF6 at 2); send texts in utf-8"),
    "Shift JIS": (parts("犬".encode("shift_jis")), "not in UTF-8"),
    "UTF-16 with its mark": (parts(RUSSIAN.encode("utf-16")), "not in UTF-8"),
    "UTF-16 of ASCII": (parts("a dog".encode("utf-16-le")), "zero byte, as in UTF-16"),
    "a part's charset": (parts(RUSSIAN.encode("cp1251"), head=PLAIN % b"windows-1251"), "charset 'windows-1251'"),
    "a part's charset, all ASCII": (parts(b"a dog", head=PLAIN % b'"ISO-8859-1"'), "charset 'iso-8859-1'; send them"),
    "the form's charset": (parts(b"a dog", charset="; charset=koi8-r"), "charset 'koi8-r'"),
    "a part that is encoded": (parts(b"YQ==", head=b"Content-Transfer-Encoding: base64\r\n"), "encoding 'base64'"),
    "_charset_": (parts(b"windows-1251", field=b"_charset_"), "charset 'windows-1251'"),
    "a file's name": (parts(b"a dog", file="собака".encode("cp1251")), "The name of a field or a file is not in UTF-8"),
    "a file's charset": (parts(b"a dog", file=b"a\"; filename*=\"koi8-r''%D3"), "charset 'koi8-r'"),
    "a field's name": (parts(b"a dog", field=b"\xf1"), "The name of a field"),
    "a form's escapes": (form(b"text=%F1%E4&name=03.png"), "A text of the form is not in UTF-8 (byte 0xF1 at 5)"),
    "a form's bytes": (form(b"text=\xf1&name=03.png"), "byte 0xF1 at 5"),
    "a form's charset": (form(b"text=a&name=03.png", "; charset=windows-1251"), "charset 'windows-1251'"),
    "a form's _charset_": (form(b"text=a&name=03.png&_charset_=windows-1251"), "charset 'windows-1251'"),
    "JSON": ({"json": {"text": "a"}, "headers": {"content-type": "application/json; charset=cp1251"}}, "'cp1251'"),
}  # fmt: skip


@pytest.mark.parametrize("route", ["search", "maps", "candidates"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_in_utf_8_is_refused(client, route, name):
    asked, sentence = REFUSED[name]
    answer = client.post(f"/v1/{route}", **asked)
    assert answer.status_code == 422 and sentence in answer.json()["detail"], answer.text


@pytest.mark.parametrize("path", ["/v1/picture?name=%F1", "/v1/names?x=%F1", "/?%F1", "/health?x=%ff"])
def test_addresses_are_in_utf_8(client, path):
    for ask in (client.get, client.post):
        answer = ask(path)
        assert answer.status_code == 422 and "A parameter of the address is not in UTF-8" in answer.json()["detail"]


@pytest.mark.parametrize(
    "asked",
    [
        parts(RUSSIAN.encode()),
        parts(RUSSIAN.encode(), head=PLAIN % b"UTF-8"),
        parts(RUSSIAN.encode(), file="собака.png".encode(), charset='; charset="utf8"'),
        form(f"text={RUSSIAN}&name=03.png".encode()),  # as curl --data sends it
        {"data": {"text": RUSSIAN, "name": "03.png"}},
    ],
)
def test_what_is_in_utf_8_is_read_letter_by_letter(client, asked):
    assert client.post("/v1/maps", **asked).json()["phrases"][0]["text"] == RUSSIAN


def test_a_picture_with_a_name_beyond_ascii_is_named_in_an_address(client):
    answer = client.get("/v1/picture", params={"name": "собака.png"})
    assert answer.status_code == 422 and "There is no picture 'собака.png' here" in answer.json()["detail"]
