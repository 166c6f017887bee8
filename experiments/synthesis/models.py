"""The backends by name: how each model is made, here or in a worker."""

from __future__ import annotations

import functools
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contextjax.json_files import parse_json
from contextjax.types import UserError
from data_pipelines.synthesis.questions import Model

GIVEN = ("model", "messages", "stream", "extra_headers", "extra_query", "extra_body")  # not by --request


def model_makers(flags: Any, *, folder: Path, split: str) -> tuple[Callable[[], Model], Callable[[], Model] | None]:
    """What makes the model that sees pictures, and the one that writes texts (None: the same).

    Args:
      flags: of experiments.synthesize.
      folder: of the pictures.
      split: of the set.

    Raises:
      UserError: a flag is missing or of no use.
    """
    if flags.backend == "rules":
        from data_pipelines.synthesis.rules import with_scenes

        return functools.partial(with_scenes, folder, (split,)), None
    if not flags.model:
        raise UserError(f"--backend={flags.backend} needs the name of a model; give it as --model=NAME.")
    if flags.backend == "transformers":
        from data_pipelines.synthesis.local import LocalModel

        make: Callable[..., Model] = functools.partial(LocalModel, answer_tokens=flags.answer_tokens, side=flags.side)
    else:
        make = _chat_maker(flags)
    return functools.partial(make, flags.model), functools.partial(make, flags.writer) if flags.writer else None


def _chat_maker(flags: Any) -> Callable[..., Model]:
    from data_pipelines.synthesis.chat import ChatModel

    if "@" in urllib.parse.urlsplit(flags.address or "").netloc:
        raise UserError(
            "A password or key goes not in --address but in the environment, as the variable of --key_variable."
        )
    return functools.partial(
        ChatModel,
        address=flags.address,
        key_variable=flags.key_variable,
        body=request_body(flags),
        side=flags.side,
        timeout=flags.timeout,
        tries=flags.tries,
        requests_per_minute=flags.requests_per_minute,
        tokens_per_minute=flags.tokens_per_minute,
    )


def request_body(flags: Any) -> dict[str, Any]:
    """The further fields of a request.

    Raises:
      UserError: --request is no JSON object.
    """
    if not flags.request:
        from data_pipelines.synthesis.chat import BODY

        return dict(BODY) | {"max_completion_tokens": flags.answer_tokens}
    try:
        found = parse_json(flags.request)
    except ValueError as error:
        raise UserError(f"--request is no JSON ({error}); expected an object, as '{{\"temperature\": 0}}'.") from error
    if not isinstance(found, dict) or not found.keys().isdisjoint(GIVEN):
        raise UserError(
            f"--request is to be a JSON object of further fields of a request's body; {', '.join(GIVEN)} are not given "
            "there."
        )
    return found
