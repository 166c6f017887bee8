"""An HTTP server that speaks chat completions, and misbehaves as a test says."""

import contextlib
import hashlib
import http.server
import json
import threading
import time

KEY = "sk-test-0123456789abcdef"
SECONDS_ASLEEP = 1.5


def parts_of(body):
    """The texts of a request, its system message first, and its pictures."""
    contents = [message["content"] for message in body["messages"]]
    parts = [part for c in contents for part in ([{"type": "text", "text": c}] if isinstance(c, str) else c)]
    texts = [part["text"] for part in parts if part["type"] == "text"]
    return texts, [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]


def question_of(body):
    """A request's question: its text and a digest of its pictures."""
    texts, pictures = parts_of(body)
    return "\n".join(texts), hashlib.blake2b("".join(pictures).encode(), digest_size=8).hexdigest()


class Endpoint:
    """A record of the requests, and the answers of the next ones.

    `faults` are used up first, one a request; every other request gets `answer(*question_of(its body))`.
    """

    def __init__(self, answer, *, question_of=question_of):
        self.answer, self.faults, self.question_of = answer, [], question_of
        self.requests, self.finished, self.headers = [], [], []
        self.lock = threading.Lock()

    @property
    def texts(self):
        return [self.question_of(body) for body in self.requests]

    @contextlib.contextmanager
    def failing(self, *, after):
        """After so many more answers no key is good enough."""
        answer, left = self.answer, iter(range(after - 1))

        def then(*question):
            if next(left, None) is None:
                self.faults = [error(401, "no key of ours")] * 99
            return answer(*question)

        self.answer = then
        try:
            yield
        finally:
            self.answer, self.faults = answer, []


def completion(content, **message):
    """The body of a whole answer."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content, **message}}
    usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    return {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}


def sensible(text, digest):
    """Objects named after the picture, and texts named after the question: another question, another answer."""
    if "Two lists" in text:
        name = hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
        return json.dumps([f"Add the {name} ball.", f"Make the {name} box red."])
    return json.dumps([{"object": f"ball {digest}", "details": "red"}])


def _respond(handler, status, body, headers=()):
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    handler.send_response(status)
    for name, value in (("Content-Type", "application/json"), ("Content-Length", str(len(data))), *headers):
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(data)


def _cut(handler):
    data = json.dumps(completion("[]")).encode()
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data[: len(data) // 2])
    handler.close_connection = True


def _hang_up(handler):
    handler.close_connection = True


def error(status, message, **headers):
    """An error's answer."""
    body = {"error": {"message": message, "type": "x", "code": None}}
    return lambda handler: _respond(handler, status, body, tuple(headers.items()))


FAULTS = {
    "429": lambda handler: _respond(handler, 429, {"error": {"message": "slow down"}}, [("Retry-After", "0.4")]),
    "500": error(500, "oops"),
    "503 in HTML": lambda handler: _respond(handler, 503, "<html>busy</html>", [("Retry-After", "never")]),
    "time-out": lambda handler: time.sleep(SECONDS_ASLEEP),
    "cut": _cut,
    "hung up": _hang_up,
    "malformed": lambda handler: _respond(handler, 200, '{"choices": [{'),
    "no JSON": lambda handler: _respond(handler, 200, "welcome to the login page"),
}


@contextlib.contextmanager
def serving(endpoint):
    """The endpoint's address, while it is served."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments):
            pass

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with endpoint.lock:
                endpoint.requests.append(body)
                endpoint.headers.append({name.lower(): value for name, value in self.headers.items()})
                fault = endpoint.faults.pop(0) if endpoint.faults else None
            with contextlib.suppress(OSError):  # whoever asked may be gone
                if fault:
                    return fault(self)
                found = endpoint.answer(*endpoint.question_of(body))
                _respond(self, 200, found if isinstance(found, dict) else completion(found))
                with endpoint.lock:
                    endpoint.finished.append(endpoint.question_of(body))
            return None

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *arguments):
            pass

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            server.shutdown()
