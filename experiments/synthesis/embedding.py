"""Pictures and texts as a CLIP of ours sees them: for mining pairs, and for texts that have to agree with a change."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contextjax import images
from contextjax.files import path_of
from contextjax.types import UserError
from data_pipelines.synthesis.drafts import Draft
from data_pipelines.synthesis.filters import Agreement
from data_pipelines.synthesis.sources import Pictures

CHUNK = 256  # pictures held decoded at a time


def load_system(workdir: str) -> Any:
    """The system that embeds: a workdir, an export, or a CLIP's folder or hub id."""
    import contextjax

    return contextjax.load(workdir if not Path(workdir).exists() else path_of(workdir))


def embed(system: Any, pictures: Pictures, *, cache: Path) -> tuple[list[str], np.ndarray, dict[str, str]]:
    """Ids and embeddings [N, D] of all pictures that can be read, and why the others can't.

    What an earlier call has found of the same files is read from `cache`.
    """
    state = [[name, *_state(file)] for name, file in pictures.files.items()]
    key = hashlib.blake2b(json.dumps([system.fingerprint, state]).encode(), digest_size=8).hexdigest()
    kept, listed = cache / f"embeddings.{key}.npy", cache / f"embeddings.{key}.json"
    if listed.exists() and kept.exists():
        known = json.loads(listed.read_text(encoding="utf-8"))
        return known["ids"], np.load(kept, allow_pickle=False), known["bad"]
    ids, parts, bad = [], [], {}
    names = list(pictures.files)
    for begin in range(0, len(names), CHUNK):
        pixels = []
        for name in names[begin : begin + CHUNK]:
            try:
                pixels.append(_pixels(system, pictures, name))
                ids.append(name)
            except UserError as error:
                bad[name] = str(error)
        if pixels:
            parts.append(system.encode_gallery(pixels))
    if not parts:
        raise UserError(f"None of the {len(names)} pictures can be read; the first: {next(iter(bad.values()))}")
    embeddings = np.concatenate(parts)
    _keep(kept, listed, embeddings, {"ids": ids, "bad": bad})
    return ids, embeddings, bad


def _keep(kept: Path, listed: Path, embeddings: np.ndarray, about: dict) -> None:
    import io

    from contextjax.files import write_whole

    file = io.BytesIO()
    np.save(file, embeddings)
    try:
        write_whole(kept, file.getvalue())
        write_whole(listed, json.dumps(about))
    except OSError as error:
        raise UserError(f"{kept.parent} can't be written ({error}); make room for it and try again.") from error


def _state(file: Any) -> list[int | str]:
    try:
        found = Path(str(file)).stat()
    except OSError:
        return ["missing"]
    return [found.st_size, found.st_mtime_ns, "" if isinstance(file, Path) else repr(file)]


def _pixels(system: Any, pictures: Pictures, name: str) -> np.ndarray:
    return images.preprocess(images.decode(pictures.show(name).data), system.image_size, fit=system.fit)


def agreement_of(workdir: str, pictures: Pictures) -> Agreement:
    """How well texts say what the target has and the reference has not: by how much more each text is like the target.

    The cosine of a text's embedding with the target's, less that with the reference's.
    """
    system = load_system(workdir)
    one = functools.lru_cache(4096)(lambda name: system.encode_gallery([_pixels(system, pictures, name)])[0])

    def agreement(draft: Draft, texts: Sequence[str]) -> Sequence[float]:
        change = one(draft.target) - one(draft.reference)
        return (system.encode_text(list(texts)) @ change).tolist()

    return agreement
