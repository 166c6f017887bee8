"""The cluster of a command: its engine, and the embedding of a gallery by its nodes."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from contextjax.serving.embedding import Chunk, Spread, embed_chunk
from contextjax.serving.gallery import Gallery
from data_pipelines.cluster.engine import RayEngine, Work


@contextlib.contextmanager
def engine_of(
    address: str | None, *, reads: Sequence[Path], writes: Path | None = None, log: Path | None = None
) -> Iterator[RayEngine | None]:
    """Gives the engine of the cluster at an address, see nodes.connected, and None where there is no address.

    Files and folders that are not there, such as a model's hub id, are not looked for on the nodes.
    """
    if address is None:
        yield None
        return
    from data_pipelines.cluster.nodes import connected

    there = [path for path in reads if path.exists()]
    with connected(address, reads=there, writes=writes, log=log or writes) as engine:
        yield engine
        if sentence := engine.summary():
            print(sentence)


def spread_over(engine: RayEngine | None, source: str, gallery: Gallery) -> Spread | None:
    """Returns what has the cluster embed a gallery's chunks; None without a cluster.

    Each accelerator, or each node that has none, loads the system of `source` once.
    """
    if engine is None:
        return None
    pictures = dataclasses.replace(gallery, names=[], stamps=None)  # names come with the chunks

    def spread(chunks: Sequence[Chunk], folder: Path) -> Iterator[int]:
        make = functools.partial(_embedder, source, pictures, folder)
        return engine.map_rows(Work(make, "chunk", place="device"), chunks)

    return spread


def _embedder(source: str, gallery: Gallery, folder: Path) -> Callable[[Chunk], int]:
    """Loads the system in a process of the cluster."""
    import contextjax
    from experiments.shared.compile_cache import use_compile_cache

    use_compile_cache()
    return functools.partial(embed_chunk, contextjax.load(source), gallery, folder)
