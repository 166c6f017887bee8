"""Any endpoint that speaks OpenAI's chat completions with pictures: a hosted model, vLLM and the like.

The key comes from the environment. It goes into the request's header and nowhere else: what a server sends back, or a
library says of an error, loses it before it is kept or shown.
"""

from __future__ import annotations

import base64
import functools
import io
import os
import re
from collections.abc import Mapping
from typing import Any

from PIL import Image

from contextjax import images
from contextjax.json_files import parse_json
from contextjax.types import UserError
from data_pipelines.synthesis.drafts import Reply
from data_pipelines.synthesis.questions import Question
from data_pipelines.synthesis.retries import TRIES, RateLimit, Retry, with_retries

BODY: Mapping[str, Any] = {"temperature": 0, "max_completion_tokens": 800}
SIDE = 768  # pixels of a picture's longer side as it is sent
# In a 400: this question, not the setup. A quoted word is the name of a field, image_url a part that a model lacks.
_REFUSED = re.compile(
    r"content[ _](?:policy|filter|management)|(?<![\"'`])\b(?:safety|moderation)\b|"
    r"\b(?:valid|invalid|corrupt(?:ed)?|identify) image\b(?! url)|"
    r"\bimage (?:(?:data|file|size) )?is (?:invalid|corrupt(?:ed)?|too large)\b",
    re.IGNORECASE,
)
MAX_BODY = 5_000_000  # characters of an answer
_MARK = "[key]"


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
        first_wait: float = 1.0,
        requests_per_minute: float = 0.0,
        tokens_per_minute: float = 0.0,
    ):
        """Args:
          name: the model's, as the endpoint knows it.
          address: the endpoint's, as http://HOST/v1; None: OpenAI's.
          key_variable: the environment variable that holds the key; None: OPENAI_API_KEY without an address, and with
            one no key: a hosted model's is not for another server.
          body: further fields of a request; default: BODY.
          side: the longer side of pictures as they are sent.
          timeout: seconds for one try.
          tries: of a question.
          first_wait: seconds before the second try.
          requests_per_minute: at most, by this process; 0: no limit.
          tokens_per_minute: likewise.
        """  # fmt: skip
        self.name, self.side = name, side
        self.body = dict(BODY if body is None else body)
        self.settings: Mapping[str, Any] = {"body": self.body, "side": side}
        self._key_variable = key_variable or ("" if address else "OPENAI_API_KEY")
        self._key = os.environ.get(self._key_variable, "")
        self._tries, self._first_wait = tries, first_wait
        self._limit = RateLimit(requests=requests_per_minute, tokens=tokens_per_minute)
        self._address, self._timeout = address, timeout

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
                "--backend=openai needs the package openai; install it with pip install 'contextjax[synthesis]'."
            ) from error
        key = self._key or "none"  # a server of one's own asks for none
        return openai.OpenAI(api_key=key, base_url=self._address, timeout=self._timeout, max_retries=0)

    def answer(self, question: Question) -> Reply:
        """The model's answer, refusals included.

        Raises:
          UserError: the endpoint is not to be had, or refuses the setup rather than the question.
        """
        request = chat_request(self, question)
        try:
            found = with_retries(
                lambda: self._ask(request),
                what=f"The model '{self.name}'",
                limit=self._limit,
                tries=self._tries,
                first_wait=self._first_wait,
            )
        except UserError as error:
            raise UserError(self._without_key(str(error))) from None
        return read_completion(found, question.key(self), self.name, question.prompt.id, hide=self._without_key)

    def _ask(self, request: Mapping[str, Any]) -> Any:
        """The body of the answer; or {"refusal": why} where the question is refused."""
        create = self._client.chat.completions.with_raw_response.create
        import openai

        self._limit.wait(_tokens_of(request))
        own = ("model", "messages")  # other fields are the server's business: openai's client does not name all
        fields = {name: value for name, value in request.items() if name not in own}
        try:
            text = create(**{name: request[name] for name in own}, extra_body=fields).http_response.text
            return read_body(text)
        except openai.APIStatusError as error:
            raise_for_status(error.status_code, self._without_key(str(error)), dict(error.response.headers))
            return {"refusal": self._without_key(str(error))}
        except (openai.APIError, ValueError) as error:  # no connection, time-outs, bodies that are cut or no JSON
            raise Retry(self._without_key(str(error))) from None

    def _without_key(self, text: str) -> str:
        return hidden(text, self._key)


def hidden(text: str, key: str) -> str:
    """The text without the key."""
    return text.replace(key, _MARK) if len(key) > 3 else text


def read_body(text: str) -> Any:
    """The JSON of an answer.

    Raises:
      ValueError: it is none, or larger than any answer.
    """
    if len(text) > MAX_BODY:
        raise ValueError(f"it has {len(text):,} characters")
    return parse_json(text)


def is_refusal(status: Any, message: str) -> bool:
    """Whether an error status is about this question alone: another one may well be answered."""
    return status == 413 or (status in (400, 422) and _REFUSED.search(message) is not None)


def raise_for_status(status: int, message: str, headers: Mapping[str, str]) -> None:
    """What an error status means. Returns where the question itself was refused.

    Raises:
      Retry: the service is busy, or failed.
      UserError: the setup is wrong: key, model, address, fields of the request.
    """
    message = " ".join(message.split())[:300]
    if status in (408, 409, 425, 429) or status >= 500:
        if status == 429 and "insufficient_quota" in message:
            raise UserError(f"The account has no quota left ({message}); the same command goes on once it has.")
        raise Retry(message or f"status {status}", after=_seconds(headers.get("retry-after")))
    if is_refusal(status, message):
        return
    raise UserError(
        f"The endpoint refuses with status {status} ({message}); check --model, --address, --request and key."
    )


def _seconds(value: str | None) -> float | None:
    try:
        found = float(value or "")
    except ValueError:  # a date, or nothing
        return None
    return found if 0 <= found < float("inf") else None


def chat_request(model: Any, question: Question) -> dict[str, Any]:
    """The fields of a chat completion that asks the question of a model with `name`, `side` and `body`."""
    content: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": sent_picture(picture.data, model.side)}}
        for picture in question.pictures
    ]
    content.append({"type": "text", "text": question.text})
    return {"model": model.name, "messages": [{"role": "user", "content": content}], **model.body}


def sent_picture(data: bytes, side: int) -> str:
    """A picture as a data: URI, JPEG, its longer side at most `side`: without whatever else the file holds."""
    image = images.decode(data)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _tokens_of(request: Mapping[str, Any]) -> float:
    """About how many tokens a request may take, for the rate limit: its text, 1,000 a picture, and the answer."""
    content = request["messages"][0]["content"]
    most = request.get("max_completion_tokens", request.get("max_tokens", 800))
    most = most if isinstance(most, int | float) else 0  # whatever --request gives is for the server to judge
    return sum(len(part["text"]) / 4 if part["type"] == "text" else 1000 for part in content) + most


def read_completion(found: Any, key: str, model: str, prompt: str, *, hide: Any = lambda text: text) -> Reply:
    """A chat completion as a Reply. A body without a text is a refusal that says so."""
    text, refused = "", ""
    choice = _at(found, "choices", 0)
    message = _at(choice, "message")
    content = _at(message, "content")
    if isinstance(content, list):
        content = "".join(str(_at(part, "text") or "") for part in content)
    if isinstance(content, str) and content.strip():
        text = content
    finish = _at(choice, "finish_reason")
    refusal = _at(found, "refusal") or _at(message, "refusal")
    if refusal:
        refused = str(refusal)[:500]
    elif finish == "content_filter":
        refused = "the endpoint's content filter"
    elif not text:
        refused = f"an answer without a text (finish_reason {finish})"
    usage = [_at(found, "usage", name) for name in ("prompt_tokens", "completion_tokens")]
    tokens = [n if isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 1 << 40 else 0 for n in usage]
    sound = lambda value: hide(value).encode(errors="replace").decode()
    return Reply(key, model, prompt, sound(text), sound(refused), *tokens)


def _at(found: Any, *path: str | int) -> Any:
    for step in path:
        if isinstance(step, str):
            found = found.get(step) if isinstance(found, dict) else None
        else:
            found = found[step] if isinstance(found, list) and len(found) > step else None
    return found
