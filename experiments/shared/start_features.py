"""Features of a frozen model, which the run that this one starts from computes once (data.cached)."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contextjax.files import is_remote
from contextjax.sharding import first_process_first
from contextjax.types import UserError
from data_pipelines.features import FeatureSamples


def samples_of_start(config: Any, workdir: Path, make: Callable[[Any, Path], Any]) -> FeatureSamples:
    """Returns the samples that `make` makes of the system in model.start and of the path of the file to keep them in.

    Raises:
      UserError: there is no such run.
    """
    if not config.model.start:
        raise UserError(
            "data.cached is set, but model.start is empty; give the run whose features are trained on, as "
            "--config.model.start=WORKDIR."
        )
    import contextjax

    system = contextjax.load(config.model.start)
    with first_process_first(), tempfile.TemporaryDirectory() as scratch:
        kept = Path(scratch) if is_remote(workdir) else workdir  # of a store, they are made at every start
        return FeatureSamples(make(system, kept / "features.safetensors"))
