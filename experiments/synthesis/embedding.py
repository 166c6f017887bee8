"""Pictures and texts as a CLIP of ours sees them: for mining pairs, and for texts that have to agree with a change."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contextjax import images
from contextjax.files import path_of
from contextjax.serving.gallery import folder_gallery
from contextjax.serving.storage import unpack
from data_pipelines.synthesis.drafts import Draft
from data_pipelines.synthesis.filters import Agreement
from data_pipelines.synthesis.sources import Pictures
from experiments.shared.galleries import Speed, kept_index


def load_system(workdir: str) -> Any:
    """The system that embeds: a workdir, an export, or a CLIP's folder or hub id."""
    import contextjax

    return contextjax.load(workdir if not Path(workdir).exists() else path_of(workdir))


def embedded(system: Any, folder: Path, cache: Path) -> tuple[list[str], np.ndarray]:
    """Ids and embeddings float32 [N, D] of a folder's pictures that can be read, in the order of their names.

    They are kept as an index of experiments.embed: what an earlier call has embedded, also one that was killed, stays.
    """
    speed = Speed(system)
    index = kept_index(system, folder_gallery(folder), cache, progress=speed.tell)
    print(speed.summary())
    rows = np.concatenate([unpack(packed) for packed in index.embeddings()])
    order = sorted(range(len(rows)), key=index.names.__getitem__)  # pictures that came later stand behind the others
    return [index.names[row] for row in order], rows[order]


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
