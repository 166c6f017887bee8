"""The work behind the HTTP routes: search, embeddings, scores of candidates, maps of phrases, thumbnails.

The service never fetches an address that it is given: pictures are uploaded, or named in the index. They are decoded
beside the model's work, and requests that come at about the same time are computed together (serving.batching).
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import io
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from contextjax import images
from contextjax.serving.batching import Batcher, Full
from contextjax.serving.filters import Value
from contextjax.serving.gallery import Gallery
from contextjax.serving.interface import Hits, VectorIndex, above
from contextjax.tokenizers import check_question
from contextjax.types import UserError

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)  # bounds of the histogram of answers
THUMBNAIL = 256  # pixels: the longer side of the pictures that the page shows
THUMBNAILS = 64  # that are made or wait for it; more are refused

PhraseMaps = list[tuple[str, list[list[float]]]]  # (phrase, map [grid, grid] of values from 0 to 1)


class Unavailable(Exception):
    """An index that can't be searched, through no fault of the client's."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """Bounds of what a client may ask for, and how long it may take."""

    body_bytes: int = 16_000_000  # of a request
    body_seconds: float = 30.0  # that it may take to come
    requests: int = 192  # that are read, waiting or being answered; each may hold its body
    text: int = 2000  # characters
    pixels: int = 40_000_000  # of an uploaded picture
    questions: int = 128  # of one request
    candidates: int = 32  # pictures of one set
    results: int = 100
    batch: int = 32  # requests that are computed together
    wait: float = 0.005  # seconds that a request waits for others
    waiting: int = 128  # requests that may wait; more are refused


class Search(NamedTuple):
    """A search by a picture uint8 [H, W, 3] as the system sees it, a text, or both, for its k best answers."""

    pixels: np.ndarray | None
    text: str | None
    k: int
    threshold: float | None = None  # the least cosine of an answer
    where: str | None = None  # a filter by the pictures' attributes


class Service:
    """A system and an index, with a batcher for each kind of request.

    `await service.search(Search(...))` gives Hits, `service.embeddings((pixels, text))` an embedding,
    `service.candidates((pictures, text))` a score for each picture, `service.maps((pixels, text))` PhraseMaps.
    `service.search.check()` raises Full where too many wait.
    """

    def __init__(
        self, system: Any, index: VectorIndex | None, *, gallery: Gallery | None = None,
        phrases_of: Callable[[str], Sequence[tuple[int, int]]] | None = None, limits: Limits = Limits(),
    ):  # fmt: skip
        """Prepares the service. Nothing is compiled yet.

        Args:
          system: a System or an Exported.
          index: the pictures to search; None: candidates alone are scored.
          gallery: the pictures of the index, where clients may see them.
          phrases_of: returns the characters [start, end) of a text's phrases, where maps of them are wanted.
          limits: how much a client may ask for.
        """
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self.system, self.index, self.limits = system, index, limits
        self.pictures = 0 if index is None else len(index)  # when it was opened
        self._known = frozenset(index.present(gallery.names) if index is not None and gallery is not None else ())
        self.names = [name for name in gallery.names if name in self._known] if gallery is not None else []
        self._gallery, self._phrases_of = gallery, phrases_of
        self.registry = registry = CollectorRegistry()
        self._answers = Counter("contextjax_requests", "Requests by route and status.", ["route", "status"],
                                registry=registry)  # fmt: skip
        self._seconds = Histogram("contextjax_request_seconds", "Seconds to an answer, by route.", ["route"],
                                  buckets=SECONDS, registry=registry)  # fmt: skip
        sizes = Histogram("contextjax_batch_size", "Requests that were computed together.", ["kind"],
                          buckets=[1, 2, 4, 8, 16, 32, 64, 128], registry=registry)  # fmt: skip

        def batcher(kind: str, run: Callable[[Sequence[Any]], Sequence[Any]]) -> Batcher:
            made = Batcher(
                run, largest=limits.batch, wait=limits.wait, waiting=limits.waiting, observe=sizes.labels(kind).observe
            )
            gauge = f"contextjax_waiting_{kind}", f"Requests that wait to be computed: {kind}."
            Gauge(*gauge, registry=registry).set_function(lambda: len(made))
            return made

        self.search = batcher("search", self._search)
        self.embeddings = batcher("embeddings", self._embed)
        self.candidates = batcher("candidates", self._score)
        self.maps = batcher("maps", self._maps)
        self._decoders = ThreadPoolExecutor(4, thread_name_prefix="decode")
        self._shrinkers, self._shrinking = ThreadPoolExecutor(2, thread_name_prefix="thumbnails"), 0
        self._thumbnail = functools.lru_cache(maxsize=1024)(self._small)

    @property
    def has_maps(self) -> bool:
        """True where phrases can be shown on pictures."""
        return self._phrases_of is not None

    def observe(self, route: str, status: int, seconds: float) -> None:
        """Counts an answer in the metrics."""
        self._answers.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def read_of(self, text: str | None) -> str | None:
        """Returns the part that is read of a text that is too long, None for another one.

        Raises:
          UserError: the text is blank or not in UTF-8.
        """
        if text is None:
            return None
        check_question(text)
        return next(iter(self.system.truncated([text])), None)

    def count_tokens(self, texts: Sequence[str]) -> int:
        """Returns how many tokens of some texts are read."""
        return int(self.system.tokenizer(texts).tokens.mask.sum()) if texts else 0

    async def decode(self, data: bytes, name: str) -> np.ndarray:
        """Returns an uploaded picture as the system sees it, uint8 [H, W, 3].

        Raises:
          UserError: the data are no such picture, or too large.
        """
        return await self._prepared(
            lambda: images.decode(data, name=name, max_pixels=self.limits.pixels, formats=images.UPLOADED)
        )

    async def named(self, name: str) -> np.ndarray:
        """Returns a picture of the gallery as the system sees it, uint8 [H, W, 3].

        Raises:
          UserError: there is none of that name, or it can't be read.
        """
        return await self._prepared(lambda: self._opened(name))

    async def _prepared(self, load: Callable[[], Image.Image]) -> np.ndarray:
        prepare = lambda: images.preprocess(load(), self.system.image_size, fit=self.system.fit)
        return await asyncio.get_running_loop().run_in_executor(self._decoders, prepare)

    async def attributes_of(self, names: Sequence[str]) -> list[dict[str, Value]]:
        """Returns the attributes of pictures of the index, by the names of the attributes.

        Raises:
          Unavailable: the index can't be read.
        """
        if self.index is None or not names or not self.index.kinds:
            return [{} for _ in names]
        try:
            return await asyncio.get_running_loop().run_in_executor(self._decoders, self.index.attributes_of, names)
        except Exception as error:
            raise Unavailable from error

    async def thumbnail(self, name: str) -> bytes:
        """Returns a picture of the gallery as JPEG, with at most THUMBNAIL pixels on its longer side.

        Raises:
          UserError: there is none of that name, or it can't be read.
          Full: too many wait.
        """
        if self._shrinking >= THUMBNAILS:
            raise Full
        self._shrinking += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._shrinkers, self._thumbnail, name)
        finally:
            self._shrinking -= 1

    def _small(self, name: str) -> bytes:
        picture = self._opened(name)
        picture.thumbnail((THUMBNAIL, THUMBNAIL))
        picture.save(file := io.BytesIO(), "JPEG", quality=85)
        return file.getvalue()

    def _opened(self, name: str) -> Image.Image:
        """Returns a picture of the gallery. Raises a UserError that says nothing of where it lies."""
        if name not in self._known or self._gallery is None:
            raise UserError(f"There is no picture {name!r} here; upload one, or take a name of v1/names.")
        try:
            source = self._gallery.picture(name)
            return source if isinstance(source, Image.Image) else images.decode(source.read_bytes(), name=name)
        except OSError as error:
            logging.getLogger("contextjax.serving").error("A picture can't be read: %s", error)
            raise UserError(f"The picture {name!r} can't be read; upload it, or take another name.") from error

    def _search(self, requests: Sequence[Search]) -> Sequence[Hits | UserError]:
        """Returns the answers of each search."""
        assert self.index is not None
        answers: list[Any] = list(self._embed([(request.pixels, request.text) for request in requests]))
        groups: dict[str | None, list[int]] = {}
        for row, embedding in enumerate(answers):
            if not isinstance(embedding, UserError):
                groups.setdefault(requests[row].where, []).append(row)
        most = self.limits.results + 1  # always the same, for it is part of the program; one may be the reference
        for where, rows in groups.items():
            try:
                best = self.index.search(np.stack([answers[row] for row in rows]), most, where=where)
            except Exception as error:
                raise Unavailable from error
            for row, hits in zip(rows, best, strict=True):
                answers[row] = above(hits[: requests[row].k], requests[row].threshold)
        return answers

    def _embed(self, questions: Sequence[tuple[np.ndarray | None, str | None]]) -> Sequence[np.ndarray | UserError]:
        """Returns the embedding [D] of each (picture, text), one of which may be None."""
        pictures, texts = zip(*questions, strict=True)
        try:
            return list(self.system.encode(pictures, texts, shares=False))
        except UserError as error:  # there is no program for one kind of question
            return [error] if len(questions) == 1 else [self._embed([question])[0] for question in questions]

    def _score(self, requests: Sequence[tuple[Sequence[np.ndarray], str]]) -> Sequence[list[float] | UserError]:
        """Returns how well each picture fits the text, for each (pictures, text). Sets of one size go together."""
        answers: dict[int, list[float] | UserError] = {}
        sizes = [len(pictures) for pictures, _ in requests]
        for size in set(sizes):
            rows = [row for row, own in enumerate(sizes) if own == size]
            try:
                scores = self.system.score_sets([requests[row][0] for row in rows], [requests[row][1] for row in rows])
                answers |= dict(zip(rows, scores.tolist(), strict=True))
            except UserError as error:  # more than the model has positions for
                answers |= dict.fromkeys(rows, error)
        return [answers[row] for row in range(len(requests))]

    def _maps(self, requests: Sequence[tuple[np.ndarray, str]]) -> Sequence[PhraseMaps]:
        """Returns where each phrase is seen, for each (picture, text)."""
        assert self._phrases_of is not None
        pictures, texts = zip(*requests, strict=True)
        attention = self.system.attention_maps(list(pictures), list(texts))
        return [
            [(text[start:end], _from_0_to_1(map.phrase(start, end))) for start, end in self._phrases_of(text)]
            for text, map in zip(texts, attention, strict=True)
        ]

    def warm(self) -> None:
        """Compiles the programs of searches in batches of every size and length, so that no client waits for them.

        The programs of candidates, one for each number of pictures, and of maps are compiled when they are needed.
        """
        if self.index is None:
            return
        side, size = self.system.image_size, 1
        pictures = [np.full((side, side, 3), (row % 256, row // 256, 0), np.uint8) for row in range(self.limits.batch)]
        length = self.system.tokenizer.length
        filtered = next((_any_value(*each) for each in self.index.kinds.items()), None)
        texts = dict.fromkeys(" ".join(["a"] * max(n - 2, 1)) for n in range(16, length + 16, 16))
        while True:
            self._search([Search(picture, None, 1) for picture in pictures[:size]])
            if filtered is not None:
                self._search([Search(picture, None, 1, where=filtered) for picture in pictures[:size]])
            for text in texts:
                self._search([Search(picture, text, 1) for picture in pictures[:size]])
                self._search([Search(None, text, 1)] * size)
            if size >= self.limits.batch:
                return
            size = min(2 * size, self.limits.batch)

    async def close(self) -> None:
        """Ends the threads. Nothing may be asked any more."""
        for batcher in (self.search, self.embeddings, self.candidates, self.maps):
            await batcher.close()
        self._decoders.shutdown()
        self._shrinkers.shutdown()


def _any_value(column: str, kind: str) -> str:
    """Returns a filter by one attribute."""
    return f"`{column}` = {({'text': chr(39) * 2, 'number': '0'}).get(kind, 'true')}"


def _from_0_to_1(values: np.ndarray) -> list[list[float]]:
    low, high = float(values.min()), float(values.max())
    return ((values - low) / max(high - low, 1e-12)).round(3).tolist()
