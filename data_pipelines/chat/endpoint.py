"""Any endpoint that speaks OpenAI's chat completions with pictures: a hosted model, vLLM and the like.

The key comes from the environment. It goes into the request's header and nowhere else: a server's answer or a library's
error loses it before it is kept or shown.

The client of the package openai tries again what is busy or fails (408, 409, 429, 5xx, time-outs, lost connections).
Two hooks around each of its tries add what it does not know: rate limits, bodies that are no JSON, and accounts without
quota.
"""

from __future__ import annotations

import base64
import functools
import io
import json
import os
import re
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from PIL import Image

from contextjax import images
from contextjax.json_files import parse_json
from contextjax.types import UserError
from data_pipelines.chat.questions import Question, Reply

BODY: Mapping[str, Any] = {"temperature": 0, "max_completion_tokens": 800}
SIDE = 768  # pixels of a picture's longer side as it is sent
TRIES = 8  # of a question where the endpoint fails
# In a 400: this question, not the setup. A quoted word is the name of a field, image_url a part that a model lacks.
_REFUSED = re.compile(
    r"content[ _](?:policy|filter|management)|(?<![\"'`])\b(?:safety|moderation)\b|"
    r"\b(?:valid|invalid|corrupt(?:ed)?|identify) image\b(?! url)|"
    r"\bimage (?:(?:data|file|size) )?is (?:invalid|corrupt(?:ed)?|too large)\b",
    re.IGNORECASE,
)
_ABOUT_PICTURES = re.compile(r"image|multi-?modal|support\w* (?:\w+ )?(?:vision|pictures)", re.IGNORECASE)
_NO_QUOTA = "insufficient_quota"  # in a 429: waiting does not help
MAX_ODDS = 40  # tokens of an answer whose log-probabilities are kept
MAX_BODY = 5_000_000  # characters of an answer
LONGEST_PAUSE = 600.0  # seconds that a server may ask to wait
CLIENT_PAUSE = 120.0  # seconds that openai's client waits where a server asks for it; it gives up on longer ones
_HIDDEN_KEY = "[key]"


class RateLimit:
    """Limits requests and tokens a minute over all threads. Calls are spread evenly, not let through in bursts."""

    def __init__(self, *, requests: float = 0.0, tokens: float = 0.0):
        """Sets the limits for a minute; 0 means no limit."""
        self._requests, self._tokens = requests, tokens
        self._lock = threading.Lock()
        self._free_at = 0.0  # when the next call may begin

    def wait(self, tokens: float = 0.0) -> None:
        """Sleeps until a call of about so many tokens may begin."""
        need = max(60 / self._requests if self._requests else 0.0, 60 * tokens / self._tokens if self._tokens else 0.0)
        with self._lock:
            begin = max(time.monotonic(), self._free_at)
            self._free_at = begin + need
        time.sleep(max(0.0, begin - time.monotonic()))

    def pause(self, seconds: float) -> None:
        """Lets no call begin for so long, since the service is busy."""
        with self._lock:
            self._free_at = max(self._free_at, time.monotonic() + seconds)


class _Tries:
    """Hooks around each try of openai's client; an object of its own, so that the client is not held by a cycle."""

    def __init__(self, limit: RateLimit):
        self._limit = limit
        self._own = threading.local()

    def expect(self, tokens: float) -> None:
        """Notes how many tokens the tries of this thread's question may take."""
        self._own.tokens = tokens

    def before(self, request: Any) -> None:
        """Waits for this try's turn under the rate limit."""
        del request
        self._limit.wait(self._own.tokens)

    def after(self, response: Any) -> None:
        """Checks a response before openai's client does.

        A body that is no JSON becomes an error of the connection, which the client tries again. All threads pause for
        as long as a busy server asks.
        """
        import httpx2  # comes with openai

        text, status = response.read().decode(errors="replace"), response.status_code
        if response.is_success:
            try:
                read_body(text)
            except ValueError as error:
                raise httpx2.DecodingError(f"the body is no JSON ({error})", request=response.request) from None
        elif status == 425:
            response.headers["x-should-retry"] = "true"
        elif status == 429 and _NO_QUOTA in text:
            response.headers["x-should-retry"] = "false"
        if not response.is_success and (seconds := _seconds(response.headers.get("retry-after"))):
            self._limit.pause(min(seconds, LONGEST_PAUSE))
            if seconds > CLIENT_PAUSE:
                del response.headers["retry-after"]  # the next try waits for the rate limit instead


class ChatModel:
    """A model behind an endpoint."""

    def __init__(
        self,
        name: str,
        *,
        address: str | None = None,
        key_variable: str | None = None,
        body: Mapping[str, Any] | None = None,
        side: int = SIDE,
        timeout: float = 120.0,
        tries: int = TRIES,
        requests_per_minute: float = 0.0,
        tokens_per_minute: float = 0.0,
    ):
        """Args:
          name: the model's name at the endpoint.
          address: the endpoint's address, as http://HOST/v1; None: OpenAI's.
          key_variable: the environment variable that holds the key; None: OPENAI_API_KEY without an address, and no key
            with one, since a hosted model's key is not for another server.
          body: further fields of a request; default: BODY.
          side: pixels of the longer side of pictures as they are sent.
          timeout: seconds for one try.
          tries: tries of a question.
          requests_per_minute: at most so many, by this process; 0: no limit.
          tokens_per_minute: at most about so many, likewise.
        """  # fmt: skip
        self.name, self.side = name, side
        self.body = dict(BODY if body is None else body)
        self.settings: Mapping[str, Any] = {"body": self.body, "side": side}
        self._key_variable = key_variable or ("" if address else "OPENAI_API_KEY")
        self._key = os.environ.get(self._key_variable, "")
        self._hooks = _Tries(RateLimit(requests=requests_per_minute, tokens=tokens_per_minute))
        self._address, self._timeout, self._tries = address, timeout, tries

    @functools.cached_property
    def _client(self) -> Any:
        if self._key_variable and not self._key:
            raise UserError(
                f"The environment has no {self._key_variable}; put the key there, or give the --address of a server "
                "that asks for none, without --key_variable."
            )
        try:
            import openai
        except ImportError as error:
            raise UserError(
                "An endpoint is asked by the package openai, which is missing; pip install 'contextjax[synthesis]'."
            ) from error
        hooks = {"request": [self._hooks.before], "response": [self._hooks.after]}
        connections = openai.DefaultHttpxClient(event_hooks=hooks)
        weakref.finalize(self, connections.close)
        return openai.OpenAI(
            api_key=self._key or "none",  # a local server asks for none
            base_url=self._address,
            timeout=self._timeout,
            max_retries=self._tries - 1,
            http_client=connections,
        )

    def answer(self, question: Question) -> Reply:
        """Returns the model's answer, which may be a refusal.

        Raises:
          UserError: the endpoint is unavailable, or refuses the setup rather than the question.
        """
        client, request = self._client, chat_request(self, question)
        import openai

        named = ("model", "messages")  # other fields are the server's business: openai's client does not name all
        fields = {name: value for name, value in request.items() if name not in named}
        self._hooks.expect(_tokens_of(request))
        create = client.chat.completions.with_raw_response.create
        try:
            answer = create(**{name: request[name] for name in named}, extra_body=fields)
            body = read_body(answer.http_response.text)
        except openai.APIStatusError as error:
            reason = self._without_key(str(error))
            if not is_refusal(error.status_code, reason):
                raise self._failed(error.status_code, reason) from None
            body = {"refusal": reason}
        except openai.APIError as error:  # no connection, time-outs, bodies that are cut or no JSON
            raise self._failed(None, self._without_key(str(error.__cause__ or error))) from None
        return read_completion(body, question.key(self), self.name, question.prompt.id, hide=self._without_key)

    def _failed(self, status: int | None, reason: str) -> UserError:
        """Returns the error of an endpoint that is unavailable, has no quota left, or refuses the setup."""
        reason = " ".join(reason.split())[:300]
        if status == 429 and _NO_QUOTA in reason:
            return UserError(f"The account has no quota left ({reason}); the same command continues once it has.")
        if status is None or status in (408, 409, 425, 429) or status >= 500:
            return UserError(
                f"The model '{self.name}' failed {self._tries} times ({reason}); the same command continues where it "
                "stopped, since answers are kept."
            )
        remedy = "check --model, --address, --request and key."
        if _ABOUT_PICTURES.search(reason):
            remedy = (
                "it is asked with pictures: give a vision-language model as --model, or check --address and --request."
            )
        if "logprob" in reason:
            remedy = "give --nologprobs where a model has no log-probabilities."
        return UserError(f"The endpoint refuses with status {status} ({reason}); {remedy}")

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, _HIDDEN_KEY) if len(self._key) > 3 else text


def read_body(text: str) -> Any:
    """Parses the JSON of an answer.

    Raises:
      ValueError: it is no JSON, or larger than any answer.
    """
    if len(text) > MAX_BODY:
        raise ValueError(f"it has {len(text):,} characters")
    return parse_json(text)


def is_refusal(status: Any, message: str) -> bool:
    """Returns whether an error is about this question alone, so that another one may well be answered."""
    return status == 413 or (status in (400, 422) and _REFUSED.search(message) is not None)


def _seconds(value: str | None) -> float | None:
    """Parses a Retry-After header; None where it is a date, or missing."""
    try:
        seconds = float(value or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None


class Chat(Protocol):
    """A model that is asked by chat completions, at once or by batch files."""

    name: str
    side: int  # pixels of a picture's longer side
    body: dict[str, Any]  # further fields of a request


def chat_request(model: Chat, question: Question) -> dict[str, Any]:
    """Returns the fields of a chat completion that asks the model the question."""
    content = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": sent_picture(part.data, model.side)}}
        for part in question.parts
    ]
    system = [{"role": "system", "content": question.instructions}] if question.instructions else []
    return {"model": model.name, "messages": [*system, {"role": "user", "content": content}], **model.body}


def sent_picture(data: bytes, side: int) -> str:
    """Encodes a picture as a data: URI, JPEG, at most `side` pixels long, without the file's metadata."""
    image = images.decode(data)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _tokens_of(request: Mapping[str, Any]) -> float:
    """Estimates the tokens of a request for the rate limit: its text, 1,000 a picture, and the longest answer."""
    *system, user = request["messages"]
    content = [*({"type": "text", "text": message["content"]} for message in system), *user["content"]]
    most = request.get("max_completion_tokens", request.get("max_tokens", 800))
    most = most if isinstance(most, int | float) else 0  # the server checks what --request gives
    return sum(len(part["text"]) / 4 if part["type"] == "text" else 1000 for part in content) + most


def read_completion(
    body: Any, key: str, model: str, prompt: str, *, hide: Callable[[str], str] = lambda text: text
) -> Reply:
    """Reads a chat completion as a Reply. A body without a text is a refusal that says so."""
    text, refused = "", ""
    choice = _at(body, "choices", 0)
    message = _at(choice, "message")
    content = _at(message, "content")
    if isinstance(content, list):
        content = "".join(str(_at(part, "text") or "") for part in content)
    if isinstance(content, str) and content.strip():
        text = content
    finish = _at(choice, "finish_reason")
    refusal = _at(body, "refusal") or _at(message, "refusal")
    if refusal:
        refused = str(refusal)[:500]
    elif finish == "content_filter":
        refused = "the endpoint's content filter"
    elif not text:
        refused = f"an answer without a text (finish_reason {finish})"
    usage = [_at(body, "usage", name) for name in ("prompt_tokens", "completion_tokens")]
    tokens_in, tokens_out = (
        n if isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 1 << 40 else 0 for n in usage
    )
    clean = lambda value: hide(value).encode(errors="replace").decode()  # no lone surrogates
    served = _at(body, "model")
    served = clean(served[:200]) if isinstance(served, str) else ""
    return Reply(key, model, prompt, clean(text), clean(refused), tokens_in, tokens_out, served, _odds(choice, clean))


def _odds(choice: Any, clean: Callable[[str], str]) -> str:
    """Returns Reply.odds of a choice: the log-probabilities of its first tokens; "" where there are none."""
    content = _at(choice, "logprobs", "content")
    odds = []
    for place in content[:MAX_ODDS] if isinstance(content, list) else ():
        others = _at(place, "top_logprobs")
        pairs = [(_at(other, "token"), _at(other, "logprob")) for other in (others if isinstance(others, list) else ())]
        read = {clean(t): float(p) for t, p in pairs if isinstance(t, str) and isinstance(p, int | float) and p <= 0}
        odds.append([clean(str(_at(place, "token") or "")), read])
    return json.dumps(odds) if odds else ""


def _at(value: Any, *path: str | int) -> Any:
    """Returns the part of a JSON value at a path of keys and indices; None where there is none."""
    for step in path:
        if isinstance(step, str):
            value = value.get(step) if isinstance(value, dict) else None
        else:
            value = value[step] if isinstance(value, list) and len(value) > step else None
    return value
