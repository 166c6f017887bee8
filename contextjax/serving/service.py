"""The HTTP service: search by picture and text, scores of candidates, health, metrics, and a page to try them.

It never fetches an address that it is given: pictures are uploaded, or named in the index. A request is read whole and
checked, its pictures are decoded beside the model's work, and it is answered in a batch with others (serving.batching).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import io
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from contextjax import images
from contextjax.serving.batching import Batcher, Full
from contextjax.serving.gallery import Gallery
from contextjax.serving.interface import VectorIndex
from contextjax.serving.limits import BodyLimit, Count
from contextjax.types import UserError

PAGE = Path(__file__).parent / "page.html"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)  # bounds of the histogram of answers
THUMBNAIL = 256  # pixels: the longer side of the pictures that the page shows
THUMBNAILS = 64  # that are made or wait for it; more are refused
VERSION = "1"  # of the routes


class Unavailable(Exception):
    """The index can't be searched: no fault of the client's."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a client may ask for, and how long it may take."""

    body_bytes: int = 16_000_000  # of a request
    body_seconds: float = 30.0  # that it may take to come
    requests: int = 192  # that are read, waiting or being answered; each may hold its body
    text: int = 2000  # characters
    pixels: int = 40_000_000  # of an uploaded picture
    candidates: int = 32  # pictures of one set
    results: int = 100
    batch: int = 32  # requests that are computed together
    wait: float = 0.005  # seconds that a request waits for others
    waiting: int = 128  # requests that may wait; more are refused


@dataclasses.dataclass(frozen=True)
class Phrase:
    """A phrase of a text, and where it is seen: map [grid, grid] of values from 0 to 1."""

    text: str
    map: list[list[float]]


class Service:
    """What the routes call: a system, an index, and the batches of each."""

    def __init__(
        self, system: Any, index: VectorIndex | None, *, gallery: Gallery | None = None,
        phrases_of: Callable[[str], Sequence[tuple[int, int]]] | None = None, limits: Limits = Limits(),
    ):  # fmt: skip
        """`system`: a System or an Exported; `gallery`: the pictures of the index, where clients may see them;
        `phrases_of`: the characters [start, end) of a text's phrases, where maps of them are wanted."""
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self.system, self.index, self.limits = system, index, limits
        self.pictures = 0 if index is None else len(index)  # when it was opened
        self._known = frozenset(index.present(gallery.names) if index is not None and gallery is not None else ())
        self.names = [name for name in gallery.names if name in self._known] if gallery is not None else []
        self._gallery, self._phrases_of = gallery, phrases_of
        self.registry = registry = CollectorRegistry()
        self.answers = Counter("contextjax_requests", "Requests by route and status.", ["route", "status"],
                               registry=registry)  # fmt: skip
        self.seconds = Histogram("contextjax_request_seconds", "Seconds to an answer, by route.", ["route"],
                                 buckets=SECONDS, registry=registry)  # fmt: skip
        sizes = Histogram("contextjax_batch_size", "Requests that were computed together.", ["kind"],
                          buckets=[1, 2, 4, 8, 16, 32, 64, 128], registry=registry)  # fmt: skip
        self._batchers = {}
        for kind, run in {"search": self._search, "candidates": self._score, "maps": self._maps}.items():
            self._batchers[kind] = Batcher(
                run, largest=limits.batch, wait=limits.wait, waiting=limits.waiting, observe=sizes.labels(kind).observe
            )
            gauge = Gauge(
                f"contextjax_waiting_{kind}", f"Requests that wait to be computed: {kind}.", registry=registry
            )
            gauge.set_function(lambda kind=kind: len(self._batchers[kind]))
        self._decoders = ThreadPoolExecutor(4, thread_name_prefix="decode")
        self._shrinkers, self._shrinking = ThreadPoolExecutor(2, thread_name_prefix="thumbnails"), 0
        self._thumbnail = functools.lru_cache(maxsize=1024)(self._small)

    @property
    def has_maps(self) -> bool:
        """Whether phrases can be shown on pictures."""
        return self._phrases_of is not None

    async def decode(self, data: bytes, name: str) -> np.ndarray:
        """uint8 [H, W, 3] as the system sees it.

        Raises:
          UserError: it is no such picture, or too large.
        """
        load = lambda: images.decode(data, name=name, max_pixels=self.limits.pixels)
        return await self._beside(self._decoders, self._seen, load)

    async def named(self, name: str) -> np.ndarray:
        """`decode` of a picture of the gallery."""
        return await self._beside(self._decoders, self._seen, lambda: self._opened(name))

    async def _beside(self, pool: ThreadPoolExecutor, run: Callable, *given: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(pool, run, *given)

    def _seen(self, load: Callable[[], Image.Image]) -> np.ndarray:
        return images.preprocess(load(), self.system.image_size, fit=self.system.fit)

    async def thumbnail(self, name: str) -> bytes:
        """A picture of the gallery as JPEG, its longer side at most THUMBNAIL pixels.

        Raises:
          UserError: there is none of that name, or it can't be read.
          Full: too many wait.
        """
        if self._shrinking >= THUMBNAILS:
            raise Full
        self._shrinking += 1
        try:
            return await self._beside(self._shrinkers, self._thumbnail, name)
        finally:
            self._shrinking -= 1

    def _small(self, name: str) -> bytes:
        shown = self._opened(name)
        shown.thumbnail((THUMBNAIL, THUMBNAIL))
        shown.save(file := io.BytesIO(), "JPEG", quality=85)
        return file.getvalue()

    def _opened(self, name: str) -> Image.Image:
        """A picture of the gallery. Raises a UserError that says nothing of where it lies."""
        if name not in self._known or self._gallery is None:
            raise UserError(f"There is no picture {name!r} here; upload one, or take a name of v1/names.")
        try:
            source = self._gallery.picture(name)
            return source if isinstance(source, Image.Image) else images.decode(source.read_bytes(), name=name)
        except OSError as error:
            logging.getLogger("contextjax.serving").error("A picture can't be read: %s", error)
            raise UserError(f"The picture {name!r} can't be read; upload it, or take another name.") from error

    def check(self, kind: str) -> None:
        """Raises Full where a request of this kind ("search", "candidates", "maps") would wait too long."""
        self._batchers[kind].check()

    async def search(self, pixels: np.ndarray, text: str, k: int) -> list[tuple[str, float]]:
        """The best k (name, cosine) for a picture and what shall be otherwise."""
        return await self._batchers["search"]((pixels, text, k))

    async def score(self, pictures: np.ndarray, text: str) -> list[float]:
        """How well each picture fits the text."""
        return await self._batchers["candidates"]((pictures, text))

    async def maps(self, pixels: np.ndarray, text: str) -> list[Phrase]:
        """Where each phrase of a text is seen in a picture."""
        return await self._batchers["maps"]((pixels, text))

    def _search(self, asked: Sequence[tuple[np.ndarray, str, int]]) -> Sequence[Any]:
        assert self.index is not None
        pictures, texts, ks = zip(*asked, strict=True)
        queries = self.system.encode_query(list(pictures), list(texts), shares=False)
        most = self.limits.results + 1  # always the same, for it is part of the program; one may be the reference
        try:
            found = self.index.search(queries, most)
        except Exception as error:
            raise Unavailable from error
        return [list(each)[:k] for each, k in zip(found, ks, strict=True)]

    def _score(self, asked: Sequence[tuple[np.ndarray, str]]) -> Sequence[Any]:
        found: dict[int, Any] = {}
        sizes = [len(pictures) for pictures, _ in asked]
        for size in set(sizes):  # sets of one size go together
            rows = [row for row, own in enumerate(sizes) if own == size]
            try:
                scores = self.system.score_sets([asked[row][0] for row in rows], [asked[row][1] for row in rows])
                found |= dict(zip(rows, scores.tolist(), strict=True))
            except UserError as error:  # more than the model has positions for
                found |= dict.fromkeys(rows, error)
        return [found[row] for row in range(len(asked))]

    def _maps(self, asked: Sequence[tuple[np.ndarray, str]]) -> Sequence[list[Phrase]]:
        assert self._phrases_of is not None
        pictures, texts = zip(*asked, strict=True)
        made = self.system.attention_maps(list(pictures), list(texts))
        return [
            [_phrase(text[start:end], map.phrase(start, end)) for start, end in self._phrases_of(text)]
            for text, map in zip(texts, made, strict=True)
        ]

    def warm(self) -> None:
        """Compiles what searches in batches of every size and length need, so that no client waits for it.

        Not: candidates, whose programs are of each number of pictures, and maps.
        """
        if self.index is None:
            return
        side, size = self.system.image_size, 1
        pictures = [np.full((side, side, 3), (row % 256, row // 256, 0), np.uint8) for row in range(self.limits.batch)]
        length = self.system.tokenizer.length
        texts = dict.fromkeys(" ".join(["a"] * max(n - 2, 1)) for n in range(16, length + 16, 16))
        while True:
            for text in texts:
                self._search([(picture, text, 1) for picture in pictures[:size]])
            if size >= self.limits.batch:
                return
            size = min(2 * size, self.limits.batch)

    async def close(self) -> None:
        """Ends its threads; nothing may be asked any more."""
        for batcher in self._batchers.values():
            await batcher.close()
        self._decoders.shutdown()
        self._shrinkers.shutdown()


def _phrase(text: str, found: np.ndarray) -> Phrase:
    low, high = float(found.min()), float(found.max())
    return Phrase(text, ((found - low) / max(high - low, 1e-12)).round(3).tolist())


def make_app(service: Service) -> Any:
    """The FastAPI application of a service."""
    from fastapi import FastAPI, Request, Response
    from fastapi.exception_handlers import http_exception_handler
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse
    from starlette.exceptions import HTTPException

    from contextjax.serving.routes import make_router

    @contextlib.asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        yield
        await service.close()  # every request has been answered

    app = FastAPI(title="contextjax", version=VERSION, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.include_router(make_router(service, page=PAGE.read_text(encoding="utf-8")))

    def refuse(status: int, sentence: str) -> JSONResponse:
        headers = {"retry-after": "1"} if status in (429, 503) else None
        return JSONResponse({"detail": sentence}, status, headers)

    @app.exception_handler(UserError)
    async def _mistake(request: Request, error: UserError) -> JSONResponse:
        return refuse(422, str(error))

    @app.exception_handler(Unavailable)
    async def _unavailable(request: Request, error: Unavailable) -> JSONResponse:
        logging.getLogger("contextjax.serving").error("The index can't be searched: %s", error.__cause__)
        return refuse(503, "The index can't be searched now; try again in a moment.")

    @app.exception_handler(Full)
    async def _full(request: Request, error: Full) -> JSONResponse:
        return refuse(429, "Too many requests are waiting; try again in a moment.")

    @app.exception_handler(HTTPException)
    async def _refused(request: Request, error: HTTPException) -> Response:
        if error.status_code != 400:
            return await http_exception_handler(request, error)
        return refuse(422, f"The form can't be read ({error.detail}); send one as /openapi.json tells.")

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        told = [f"{'.'.join(map(str, each['loc'][1:]))}: {each['msg']}" for each in error.errors()]
        return refuse(422, "; ".join(told))

    def tell(route: str, status: int, seconds: float) -> None:
        service.answers.labels(route, str(status)).inc()
        service.seconds.labels(route).observe(seconds)

    limits = service.limits
    app.add_middleware(BodyLimit, size=limits.body_bytes, seconds=limits.body_seconds, requests=limits.requests)
    app.add_middleware(Count, tell=tell)
    return app
