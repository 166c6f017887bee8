"""A folder of pictures, embedded once and searched exactly."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from contextjax import images, metrics
from contextjax.system import System
from contextjax.types import UserError

CHUNK = 1024  # pictures held decoded at a time


class Gallery:
    """Names and embeddings [N, D], L2-normalised."""

    def __init__(self, names: Sequence[str], embeddings: np.ndarray):
        self.names, self.embeddings = list(names), embeddings

    def __len__(self) -> int:
        return len(self.names)

    def search(self, query: np.ndarray, k: int, *, without: str | Path | None = None) -> list[tuple[str, float]]:
        """The k best (name, cosine) of a query [D], best first; the picture `without` is left out. Ties by name."""
        scores = (self.embeddings @ query)[None].astype(np.float32)
        if without is not None:
            own = os.path.realpath(without)
            scores[0, [os.path.realpath(name) == own for name in self.names]] = -np.inf
        found = metrics.top_k(scores, k)[0]
        return [(self.names[i], float(scores[0, i])) for i in found if np.isfinite(scores[0, i])]


def embed_folder(system: System, folder: Path, *, cache: Path | None = None) -> Gallery:
    """Embeds all pictures of a folder and its subfolders, or reads what an earlier call kept in `cache`.

    The cache is keyed by the system's fingerprint and by name, size and time of every picture.

    Raises:
      UserError: the folder is missing or holds no pictures, or pictures that can't be read: all are named.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}; give a folder of PNG, JPEG or WebP files as the gallery.")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in images.SUFFIXES and path.is_file())
    if not files:
        raise UserError(f"{folder} holds no pictures; expected PNG, JPEG or WebP files.")
    stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    key = hashlib.blake2b(json.dumps([system.fingerprint, stats]).encode(), digest_size=8).hexdigest()
    kept = cache / f"{key}.npy" if cache else None
    if kept is not None and kept.exists():
        return Gallery([str(path) for path in files], np.load(kept, allow_pickle=False))
    parts, problems = [], []
    for begin in range(0, len(files), CHUNK):
        pictures = []
        for path in files[begin : begin + CHUNK]:
            try:
                pictures.append(images.load(path, system.image_size, fit=system.fit))
            except UserError as error:
                problems.append(str(error))
        if pictures and not problems:
            parts.append(system.encode_gallery(pictures))
    if problems:
        more = f" and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise UserError(f"{len(problems)} picture(s) of {folder} can't be read: {' '.join(problems[:10])}{more}")
    embeddings = np.concatenate(parts)
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(f".{os.getpid()}.partial")
        with partial.open("wb") as file:
            np.save(file, embeddings)
        partial.replace(kept)
    return Gallery([str(path) for path in files], embeddings)
