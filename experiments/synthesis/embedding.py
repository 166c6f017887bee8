"""Embeds pictures and texts by a CLIP: for mining pairs, and for the agreement of texts with a change."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contextjax import images
from contextjax.files import path_of
from contextjax.serving.embedding import Spread
from contextjax.serving.gallery import Gallery, folder_gallery
from contextjax.serving.storage import unpack
from data_pipelines.synthesis.drafts import Draft
from data_pipelines.synthesis.filters import Agreement
from data_pipelines.synthesis.pairs import SourcePictures
from experiments.shared.galleries import Speed, kept_index


def load_system(workdir: str) -> Any:
    """Loads the system that embeds: a workdir, an export, or a CLIP's folder or hub id."""
    import contextjax

    return contextjax.load(workdir if not Path(workdir).exists() else path_of(workdir))


def embedded(
    system: Any, folder: Path, cache: Path, *, spread_of: Callable[[Gallery], Spread | None] = lambda gallery: None
) -> tuple[list[str], np.ndarray]:
    """Embeds a folder's pictures: ids and embeddings float32 [N, D] of those that can be read, in order of their names.

    They are kept as an index of experiments.embed, so that pictures embedded by an earlier call, even a killed one, are
    not embedded again.
    """
    speed, gallery = Speed(system), folder_gallery(folder)
    spread = spread_of(gallery)  # see contextjax.serving.embedding.embed
    index = kept_index(system, gallery, cache, progress=speed.progress, spread=spread)
    print(speed.summary(workers=spread is not None))
    rows = np.concatenate([unpack(packed) for packed in index.embeddings()])
    order = sorted(range(len(rows)), key=index.names.__getitem__)  # later pictures were appended
    return [index.names[row] for row in order], rows[order]


def _pixels(system: Any, pictures: SourcePictures, name: str) -> np.ndarray:
    return images.preprocess(images.decode(pictures.show(name).data), system.image_size, fit=system.fit)


def agreement_of(workdir: str, pictures: SourcePictures) -> Agreement:
    """Returns the measure of how well texts describe a change: how much more each is like the target.

    It is the cosine of a text's embedding with the target's, minus that with the reference's.
    """
    system = load_system(workdir)
    embed = functools.lru_cache(4096)(lambda name: system.encode_gallery([_pixels(system, pictures, name)])[0])

    def agreement(draft: Draft, texts: Sequence[str]) -> Sequence[float]:
        change = embed(draft.target) - embed(draft.reference)
        return (system.encode_text(list(texts)) @ change).tolist()

    return agreement
