"""The settings of commands that ask chat models, as flags, the models that they name, and the log of spending."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import time
import typing
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from absl import flags
from tqdm import tqdm

from contextjax.json_files import parse_json
from contextjax.types import UserError
from data_pipelines.chat.answers import AnswerCache
from data_pipelines.chat.batches import BatchModel
from data_pipelines.chat.costs import Prices, Spending
from data_pipelines.chat.endpoint import BODY, ChatModel
from data_pipelines.synthesis.grammar import is_address
from experiments.shared.paths import Place, define_path

GIVEN = ("model", "messages", "stream", "extra_headers", "extra_query", "extra_body")  # not by --request
PLACES = {"batch": Place.NEW_FOLDER, "answers": Place.NEW_FILE, "prompts": Place.FOLDER}
QUIET = 60  # seconds between lines of progress where there is no terminal
Item = TypeVar("Item")

flags.disclaim_key_flags()  # the flags are those of the command that defines them: --help has them


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChatSettings:
    """Settings of the models that a command asks. A number after a field's sentence is its least value."""

    model: Annotated[str | None, "The model that sees pictures: a name at the endpoint, or a folder or hub id."] = None
    address: Annotated[str | None, "The endpoint, as http://HOST:8000/v1; default: OpenAI's."] = None
    key_variable: Annotated[
        str | None, "The environment variable that holds the key; default: OPENAI_API_KEY, with --address none."
    ] = None
    request: Annotated[str | None, "Further fields of a request as JSON, instead of temperature and answer_tokens."] = (
        None
    )
    side: Annotated[int, "The longer side in pixels of pictures as models see them.", 16] = 768
    concurrency: Annotated[int, "The number of questions under way at a time.", 1] = 8
    requests_per_minute: Annotated[float, "The largest number of requests a minute; 0: no limit.", 0] = 0.0
    tokens_per_minute: Annotated[float, "The largest number of tokens a minute, about; 0: no limit.", 0] = 0.0
    timeout: Annotated[float, "The seconds that one try of a question may take.", 0.1] = 120.0
    tries: Annotated[int, "The number of tries of a question where the endpoint fails.", 1] = 8
    batch: Annotated[str | None, "A folder of batch files to ask by, instead of asking at once."] = None
    dry_run: Annotated[bool, "Asks nothing; prints the number of questions and tokens, and the cost."] = False
    price_in: Annotated[float, "The price of a million tokens of questions.", 0] = 0.0
    price_out: Annotated[float, "The price of a million tokens of answers.", 0] = 0.0
    picture_tokens: Annotated[int, "The tokens of a picture that --dry_run assumes until some were counted."] = 1000

    @property
    def prices(self) -> Prices:
        """The prices of a million tokens."""
        return Prices(self.price_in, self.price_out)


def define_flags(settings: type, places: Mapping[str, Place] = PLACES) -> None:
    """Defines a flag for each field of settings; `places` says which of them are paths."""
    numbers = {int: flags.DEFINE_integer, float: flags.DEFINE_float}
    hints = typing.get_type_hints(settings, include_extras=True)
    for field in dataclasses.fields(settings):
        default: Any = None if field.default is dataclasses.MISSING else field.default
        annotated, sentence, *least = typing.get_args(hints[field.name])
        kinds = [kind for kind in typing.get_args(annotated) or (annotated,) if kind is not type(None)]
        if literal := next((kind for kind in (annotated, *kinds) if typing.get_origin(kind) is Literal), None):
            flags.DEFINE_enum(field.name, default, typing.get_args(literal), sentence)
        elif typing.get_origin(annotated) is tuple:
            flags.DEFINE_list(field.name, list(default), sentence)
        elif kinds[0] is bool:
            flags.DEFINE_bool(field.name, default, sentence)
        elif field.name in places:
            define_path(field.name, places[field.name], sentence, default)
        elif kinds[0] is str:
            flags.DEFINE_string(field.name, default, sentence)
        else:
            numbers[kinds[0]](field.name, default, sentence, lower_bound=least[0] if least else None)


def values_of_flags(settings: type) -> dict[str, Any]:
    """Returns the values of the parsed flags by the fields of settings."""
    values = {field.name: flags.FLAGS[field.name].value for field in dataclasses.fields(settings)}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def chat_maker(settings: ChatSettings, body: Mapping[str, Any]) -> Callable[[str], ChatModel]:
    """Returns what makes a model of the endpoint by its name.

    Args:
      settings: the settings.
      body: further fields of a request, see request_body.

    Raises:
      UserError: the address is wrong, or has a key in it.
    """
    if settings.address is not None and not is_address(settings.address):
        raise UserError(
            f"--address is '{settings.address}'; expected the address of an endpoint, as http://HOST:8000/v1, or none "
            "for OpenAI's."
        )
    if "@" in urllib.parse.urlsplit(settings.address or "").netloc:
        raise UserError(
            "A password or key goes not in --address but in the environment, as the variable of --key_variable."
        )
    return functools.partial(
        ChatModel,
        address=settings.address,
        key_variable=settings.key_variable,
        body=body,
        side=settings.side,
        timeout=settings.timeout,
        tries=settings.tries,
        requests_per_minute=settings.requests_per_minute,
        tokens_per_minute=settings.tokens_per_minute,
    )


def request_body(settings: ChatSettings, *, answer_tokens: int, **more: Any) -> dict[str, Any]:
    """Returns the further fields of a request: those of --request, else temperature, longest answer and `more`.

    Raises:
      UserError: --request is no JSON object, or has fields that are not given there.
    """
    if not settings.request:
        return dict(BODY) | {"max_completion_tokens": answer_tokens} | more
    try:
        body = parse_json(settings.request)
    except ValueError as error:
        raise UserError(f"--request is no JSON ({error}); expected an object, as '{{\"temperature\": 0}}'.") from error
    if not isinstance(body, dict) or not body.keys().isdisjoint(GIVEN):
        raise UserError(
            f"--request is to be a JSON object of further fields of a request's body; {', '.join(GIVEN)} are not given "
            "there."
        )
    return body


def print_batches(batches: Iterable[BatchModel]) -> None:
    """Writes the new questions of batch models, and prints their files and what waits."""
    for batch in batches:
        if (files := batch.write()) or batch.waiting:
            new = f"New questions: {', '.join(map(str, files)) or 'none'}; {batch.waiting:,} of earlier files wait."
            print(f"{new} Put the answers in {batch.folder / 'answers'} and run again.")


def log_spending(
    path: Path, cache: AnswerCache, *, run: str, prices: Prices, facts: Mapping[str, Any], is_empty_logged: bool
) -> None:
    """Prints what a run has asked and paid and what all runs have, and adds a line to the spending log.

    Args:
      path: the log.
      cache: the answers.
      run: the run's name in the cache.
      prices: at which the tokens are counted.
      facts: further values of the line.
      is_empty_logged: whether a run that has asked nothing new is logged, too.

    Raises:
      UserError: the log can't be written.
    """
    own, total = (Spending(cache.asked_by(name), prices) for name in (run, None))
    if not own.counts and not is_empty_logged:
        return
    print("\n".join(own.lines()))
    print(f"All runs so far: {total.summary()}.")
    line = json.dumps({**facts, **own.to_json(), "total": total.to_json()})
    try:
        with path.open("a", encoding="utf-8") as file:
            is_cut = file.tell() and not path.read_bytes().endswith(b"\n")
            file.write("\n" * bool(is_cut) + line + "\n")
    except OSError as error:
        raise UserError(f"{path} can't be written ({error}); make room for it and try again.") from error


def with_progress(items: Iterable[Item], total: int, unit: str) -> Iterator[Item]:
    """Yields the items and shows progress: a bar on a terminal, a line a minute elsewhere. `unit`: in the singular."""
    on_terminal, printed = sys.stderr.isatty(), time.monotonic()
    for number, item in enumerate(tqdm(items, total=total, unit=unit, disable=not on_terminal), start=1):
        if not on_terminal and time.monotonic() - printed > QUIET:
            printed = time.monotonic()
            print(f"{number:,} of {total:,} {unit}s", flush=True)
        yield item
