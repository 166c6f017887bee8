"""Tests of `convert --push` against a server on this machine that speaks the hub's protocol: arrivals and refusals."""

import base64
import contextlib
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub.constants
import pytest

import contextjax
from tests.commands import in_process

TOKEN = "hf_good"


class Hub:
    """A hub with one user, who may write to the repositories of "shop" and not to those of "closed".

    Attributes:
      url: its address.
      repositories: name -> {"private": bool, "files": {path: bytes}, "commits": [message]}.
      fails: a part of a path -> the status that requests to it are answered with.
    """

    def __init__(self):
        self.repositories, self.objects, self.fails = {}, {}, {}
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    """Answers what huggingface_hub asks for when it uploads a folder."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Prints nothing."""

    def do_GET(self):
        self._answer(b"")

    def do_POST(self):
        self._answer(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def do_PUT(self):
        self.hub.objects[self.path.removeprefix("/lfs/")] = self.rfile.read(int(self.headers["Content-Length"]))
        self._send(200, {})

    def _answer(self, body: bytes):
        path = self.path.partition("?")[0]
        for part, status in self.hub.fails.items():
            if part in path:
                return self._send(status, {"error": "as the test wants it"})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._send(401, {"error": "Invalid username or password."})
        if path == "/api/whoami-v2":
            return self._send(200, {"name": "tester", "type": "user"})
        if path == "/api/validate-yaml":
            return self._send(200, {"errors": [], "warnings": []})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if found := re.fullmatch(r"/(\S+)\.git/info/lfs/objects/batch", path):
            return self._lfs(json.loads(body))
        if found := re.fullmatch(r"/api/models/(\S+/\S+)/(preupload|commit)/main", path):
            return (self._modes if found[2] == "preupload" else self._commit)(found[1], body)
        return self._send(404, {"error": f"no {path} here"})

    def _create(self, asked):
        name = f"{asked['organization']}/{asked['name']}"
        if asked["organization"] == "closed":
            return self._send(403, {"error": "You don't have the rights to create a model under this namespace."})
        if name in self.hub.repositories:
            return self._send(409, {"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"})
        self.hub.repositories[name] = {"private": asked.get("visibility") == "private", "files": {}, "commits": []}
        return self._send(200, {"url": f"{self.hub.url}/{name}", "name": name})

    def _modes(self, name, body):
        large = lambda file: huggingface_hub.constants.HF_HUB_DISABLE_XET and file["path"].endswith(".safetensors")
        files = [
            {"path": file["path"], "uploadMode": "lfs" if large(file) else "regular", "shouldIgnore": False}
            for file in json.loads(body)["files"]
        ]
        self._send(200 if name in self.hub.repositories else 404, {"files": files})

    def _lfs(self, asked):
        upload = lambda oid: {"upload": {"href": f"{self.hub.url}/lfs/{oid}"}}
        objects = [
            {"oid": x["oid"], "size": x["size"], "authenticated": True, "actions": upload(x["oid"])}
            for x in asked["objects"]
        ]
        self._send(200, {"transfer": "basic", "objects": objects})

    def _commit(self, name, body):
        repository = self.hub.repositories[name]
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                repository["commits"].append(value["summary"])
            elif line["key"] == "lfsFile":
                content = self.hub.objects[value["oid"]]
                assert hashlib.sha256(content).hexdigest() == value["oid"] and len(content) == value["size"]
                repository["files"][value["path"]] = content
            else:
                repository["files"][value["path"]] = base64.b64decode(value["content"])
        self._send(200, {"commitUrl": f"{self.hub.url}/{name}/commit/1", "commitOid": "1" * 40})

    def _send(self, status, content):
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError):
            self.wfile.write(data)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    hub = Hub()
    monkeypatch.setattr("experiments.shared.weights._compare_with_torch", lambda *_: None)  # importing it takes long
    monkeypatch.setenv("HF_ENDPOINT", f"{hub.url}/")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    yield hub
    hub.close()


def convert(source, target, *more):
    return in_process("convert", f"--source={source}", f"--target={target}", *more)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("without_xet", [False, True])
def test_a_converted_clip_is_pushed(clip, hub, tmp_path, monkeypatch, without_xet):
    """Small files are in the commit itself; without Xet the weights go by Git LFS."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", without_xet)
    done = convert(clip, tmp_path / "out", "--push=shop/clip", "--private")
    assert done.returncode == 0 and f"to {hub.url}/shop/clip" in done.stdout, done.stderr
    repository = hub.repositories["shop/clip"]
    assert repository["private"] and len(repository["commits"]) == 1 and len(hub.objects) == without_xet
    assert repository["files"] == contents(tmp_path / "out") and "README.md" in repository["files"]


@pytest.mark.long
def test_a_run_is_pushed_with_its_model_card_again_and_again(tiny_run, hub, tmp_path):
    for number in (1, 2):
        done = convert(tiny_run, tmp_path / str(number), "--push=shop/run")
        assert done.returncode == 0, done.stderr
    repository = hub.repositories["shop/run"]
    card = repository["files"]["README.md"].decode()
    assert "## Recipe" in card and "| Trained on | cirr, split train" in card and "Step " in card
    assert len(repository["commits"]) == 2 and not repository["private"]
    assert repository["files"] == contents(tmp_path / "2")
    for path, data in repository["files"].items():
        (tmp_path / "down").mkdir(exist_ok=True)
        (tmp_path / "down" / path).write_bytes(data)
    assert contextjax.load(tmp_path / "down").identity == contextjax.load(tiny_run).identity


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("clip", "it has no owner"),
        ("a/b/c", "is no name of a repository"),
        ("shop/", "is no name of a repository"),
        ("shop/sp ace", "is no name of a repository"),
        ("", "is no name of a repository"),
        ("shop/" + "x" * 120, "is no name of a repository"),
    ],
)
def test_a_malformed_name_is_refused_before_anything_is_read(hub, tmp_path, name, sentence):
    done = convert(tmp_path / "nothing", tmp_path / "out", f"--push={name}")
    assert done.returncode == 2 and sentence in done.stderr and "owner/name" in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("environment", "arguments", "sentence"),
    [
        ({"HF_TOKEN": ""}, [], "There is no token for http"),
        ({"HF_TOKEN": "hf_bad"}, [], "the token is refused"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, [], "check the network and HF_ENDPOINT"),
    ],
)
def test_without_a_token_or_a_server_nothing_begins(hub, tmp_path, monkeypatch, environment, arguments, sentence):
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    done = convert(tmp_path / "nothing", tmp_path / "out", "--push=shop/clip", *arguments)
    assert done.returncode == 2 and sentence in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def test_private_needs_a_push(tmp_path):
    done = convert(tmp_path / "nothing", tmp_path / "out", "--private")
    assert done.returncode == 2 and "--private is about the repository of --push" in done.stderr


@pytest.mark.parametrize(
    ("name", "fails", "sentence"),
    [
        ("closed/clip", {}, "the token may not write to closed/clip"),
        ("shop/clip", {"/commit/": 403}, "the token may not write to shop/clip"),
        ("shop/clip", {"/preupload/": 404}, "the server knows no shop/clip"),
        ("shop/clip", {"/commit/": 413}, "as the test wants it"),
    ],
)
def test_a_refused_push_leaves_the_folder_whole(clip, hub, tmp_path, name, fails, sentence):
    hub.fails = fails
    done = convert(clip, tmp_path / "out", f"--push={name}")
    assert done.returncode == 2 and sentence in done.stderr, done.stderr
    assert f"`hf upload {name} {tmp_path / 'out'}` pushes it" in done.stderr
    assert contextjax.load(tmp_path / "out").identity == contextjax.load(clip).identity
