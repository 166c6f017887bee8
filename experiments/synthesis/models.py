"""Makes the models of a synthesis by the names of their backends, here or in a worker."""

from __future__ import annotations

import functools
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contextjax.json_files import parse_json
from contextjax.types import UserError
from data_pipelines.synthesis.batches import BatchModel
from data_pipelines.synthesis.chat import BODY, ChatModel
from data_pipelines.synthesis.grammar import is_address
from data_pipelines.synthesis.local import LocalModel
from data_pipelines.synthesis.questions import Model
from data_pipelines.synthesis.rules import with_scenes
from experiments.synthesis.config import SynthesisConfig

MakeModel = Callable[[], Model]
GIVEN = ("model", "messages", "stream", "extra_headers", "extra_query", "extra_body")  # not by --request


def model_makers(config: SynthesisConfig, *, folder: Path) -> tuple[MakeModel, MakeModel | None]:
    """Returns what makes the model that sees pictures, and the one that writes texts (None: the same).

    Args:
      config: the settings.
      folder: the folder of the pictures.

    Raises:
      UserError: a setting is missing or wrong.
    """
    if config.backend == "rules":
        return functools.partial(with_scenes, folder, (config.split,)), None
    if not config.model:
        raise UserError(f"--backend={config.backend} needs the name of a model; give it as --model=NAME.")
    if config.backend == "transformers":
        make: Callable[..., Model] = functools.partial(LocalModel, answer_tokens=config.answer_tokens, side=config.side)
    else:
        make = _chat_maker(config)
    return functools.partial(make, config.model), functools.partial(make, config.writer) if config.writer else None


def batch_models(config: SynthesisConfig) -> list[BatchModel]:
    """Returns the models that are asked by batch files: the one that sees pictures, then the writer, if any."""
    folder, body = Path(str(config.batch)), request_body(config)
    named = [(config.model, folder), *([(config.writer, folder / "writer")] if config.writer else [])]
    return [BatchModel(str(name), place, body=body, side=config.side) for name, place in named]


def _chat_maker(config: SynthesisConfig) -> Callable[..., Model]:
    if config.address is not None and not is_address(config.address):
        raise UserError(
            f"--address is '{config.address}'; expected the address of an endpoint, as http://HOST:8000/v1, or none "
            "for OpenAI's."
        )
    if "@" in urllib.parse.urlsplit(config.address or "").netloc:
        raise UserError(
            "A password or key goes not in --address but in the environment, as the variable of --key_variable."
        )
    return functools.partial(
        ChatModel,
        address=config.address,
        key_variable=config.key_variable,
        body=request_body(config),
        side=config.side,
        timeout=config.timeout,
        tries=config.tries,
        requests_per_minute=config.requests_per_minute,
        tokens_per_minute=config.tokens_per_minute,
    )


def request_body(config: SynthesisConfig) -> dict[str, Any]:
    """Returns the further fields of a request.

    Raises:
      UserError: --request is no JSON object, or has fields that are not given there.
    """
    if not config.request:
        return dict(BODY) | {"max_completion_tokens": config.answer_tokens}
    try:
        body = parse_json(config.request)
    except ValueError as error:
        raise UserError(f"--request is no JSON ({error}); expected an object, as '{{\"temperature\": 0}}'.") from error
    if not isinstance(body, dict) or not body.keys().isdisjoint(GIVEN):
        raise UserError(
            f"--request is to be a JSON object of further fields of a request's body; {', '.join(GIVEN)} are not given "
            "there."
        )
    return body
