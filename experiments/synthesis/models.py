"""Makes the models of a synthesis by the names of their backends, here or in a worker."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contextjax.types import UserError
from data_pipelines.chat.batches import BatchModel
from data_pipelines.chat.local import LocalModel
from data_pipelines.chat.questions import Model
from data_pipelines.synthesis.rules import with_scenes
from experiments.shared.chat_settings import chat_maker, request_body
from experiments.synthesis.config import SynthesisConfig

MakeModel = Callable[[], Model]


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
        make = chat_maker(config, _request_body(config))
    return functools.partial(make, config.model), functools.partial(make, config.writer) if config.writer else None


def batch_models(config: SynthesisConfig) -> list[BatchModel]:
    """Returns the models that are asked by batch files: the one that sees pictures, then the writer, if any."""
    folder, body = Path(str(config.batch)), _request_body(config)
    named = [(config.model, folder), *([(config.writer, folder / "writer")] if config.writer else [])]
    return [BatchModel(str(name), place, body=body, side=config.side) for name, place in named]


def _request_body(config: SynthesisConfig) -> dict[str, Any]:
    return request_body(config, answer_tokens=config.answer_tokens)
