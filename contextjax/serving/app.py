"""The HTTP application of a service: its routes, what they take and give, and its errors. Needs the extra [serve]."""

# No `from __future__ import annotations`: FastAPI reads the annotations of functions within functions.
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from fastapi import APIRouter, Depends, FastAPI, File, Form, Request, Response, UploadFile
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, StringConstraints
from starlette.exceptions import HTTPException

from contextjax.serving.batching import Batcher, Full
from contextjax.serving.embeddings import EMBEDDINGS, add_embeddings
from contextjax.serving.filters import LONGEST, parse
from contextjax.serving.limits import BodyLimit, Count
from contextjax.serving.questions import pair
from contextjax.serving.service import Search, Service, Unavailable
from contextjax.types import UserError

PAGE = Path(__file__).parent / "page.html"
VERSION = "1"  # of the routes
BUSY = "Too many requests are waiting; try again in a moment."
PROBLEMS = {
    408: "The request has not come in time.",
    413: "The request is too large.",
    422: "Something in the request is not as it should be; the sentence says what.",
    429: BUSY,
    503: "The service is busy, or about to end; try again in a moment.",
}
TEXT = "How the wanted picture differs from the reference, or what it shows."
UPLOAD = "A picture file: PNG, JPEG, WebP or another common kind; or several."
NAME = "The name of a picture in the index, instead of a file; or several."


class Problem(BaseModel):
    """The reason why there is no answer: what was given, what was expected, what to do."""

    detail: str
    error: dict[str, str] | None = None  # its "message" is the same, where OpenAI's clients look: of embeddings alone


class Hit(BaseModel):
    """A picture of the index, its cosine with the query, and the attributes that it has."""

    name: str
    score: float
    attributes: dict[str, bool | int | float | str] = {}


class Answer(BaseModel):
    """Pictures, the best first; `read`: the part that was read of a text that was too long."""

    results: list[Hit]
    read: str | None = None


class Answers(BaseModel):
    """The answer to each of several questions, in their order."""

    answers: list[Answer]


class Scores(BaseModel):
    """The score of each candidate, in their order; `best`: the index of the best one."""

    scores: list[float]
    best: int
    read: str | None = None


class PhraseMap(BaseModel):
    """A phrase of the text, and how much each patch of the picture has to do with it, 0 to 1, row by row."""

    text: str
    map: list[list[float]]


class Maps(BaseModel):
    """A map of every phrase."""

    phrases: list[PhraseMap]


class Facts(BaseModel):
    """The system that runs here, and what it can do."""

    status: str
    model: str
    pictures: int
    can: list[str]
    attributes: dict[str, str]  # of the pictures: the kind of each, for filters


Responses = dict[int | str, dict[str, Any]]
RESPONSES: Responses = {status: {"model": Problem, "description": sentence} for status, sentence in PROBLEMS.items()}


def make_app(service: Service) -> FastAPI:
    """Returns the ASGI application of a service, with its limits, its metrics and its page."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await service.close()  # every request has been answered

    app = FastAPI(title="contextjax", version=VERSION, lifespan=lifespan, docs_url=None, redoc_url=None)
    router = APIRouter()
    _add_facts(router, service)
    _add_candidates(router, service)
    add_embeddings(router, service, RESPONSES)
    if service.index is not None:
        _add_search(router, service)
        _add_gallery(router, service)
    if service.has_maps:
        _add_maps(router, service)
    app.include_router(router)
    _add_errors(app)
    limits = service.limits
    app.add_middleware(BodyLimit, size=limits.body_bytes, seconds=limits.body_seconds, requests=limits.requests)
    app.add_middleware(Count, observe=service.observe)
    return app


def _add_facts(router: APIRouter, service: Service) -> None:
    page = PAGE.read_text(encoding="utf-8")

    @router.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def show() -> str:
        return page

    @router.get("/health")
    async def health() -> Facts:
        """Says whether the service runs, and what it can do."""
        can = ["search"] * (service.index is not None) + ["candidates", "embeddings"] + ["maps"] * service.has_maps
        kinds = {} if service.index is None else dict(service.index.kinds)
        return Facts(status="ok", model=service.system.identity, pictures=service.pictures, can=can, attributes=kinds)

    @router.get("/metrics", response_class=Response, include_in_schema=False)
    async def metrics() -> Response:
        return Response(generate_latest(service.registry), media_type=CONTENT_TYPE_LATEST)


def _add_candidates(router: APIRouter, service: Service) -> None:
    @router.post("/v1/candidates", responses=RESPONSES)
    async def candidates(
        text: _text_field(service),  # pyright: ignore[reportInvalidTypeForm]
        images: Annotated[list[UploadFile], File(min_length=1, max_length=service.limits.candidates)],
    ) -> Scores:
        """Scores how well each of some pictures fits a text."""
        service.candidates.check()
        read = service.read_of(text)
        pictures = [await service.decode(await image.read(), f"images[{row}]") for row, image in enumerate(images)]
        scores = await service.candidates((pictures, text))
        return Scores(scores=scores, best=int(np.argmax(scores)), read=read)


def _add_search(router: APIRouter, service: Service) -> None:
    @router.post("/v1/search", responses=RESPONSES)
    async def search(
        queries: _query_fields(service, service.search),  # pyright: ignore[reportInvalidTypeForm]
        k: Annotated[int, Form(ge=1, le=service.limits.results, description="How many pictures.")] = 10,
        threshold: Annotated[
            float | None, Form(ge=-1, le=1, allow_inf_nan=False, description="The least score of an answer.")
        ] = None,
        where: Annotated[
            str | None, Form(max_length=LONGEST, description="A filter by attributes: price < 20 and colour = 'red'.")
        ] = None,
    ) -> Answer | Answers:
        """Finds the pictures of the index that are as the text says, like the reference, or like it but as it says.

        Several pictures or texts are several questions: as many of both make pairs, one goes with each of the others.
        """
        if where is not None and service.index is not None:
            parse(where, service.index.kinds)  # a filter that can't be read is refused before anything is computed
        asked = [Search(query.pixels, query.text, k + bool(query.name), threshold, where) for query in queries]
        hits_of_each = await service.search.many(asked)
        answers = []
        for query, hits in zip(queries, hits_of_each, strict=True):
            others = [hit for hit in hits if hit[0] != query.name][:k]
            values = await service.attributes_of([name for name, _ in others])
            results = [Hit(name=n, score=s, attributes=own) for (n, s), own in zip(others, values, strict=True)]
            answers.append(Answer(results=results, read=query.read))
        return answers[0] if len(answers) == 1 else Answers(answers=answers)


def _add_maps(router: APIRouter, service: Service) -> None:
    @router.post("/v1/maps", responses=RESPONSES)
    async def maps(queries: _query_fields(service, service.maps)) -> Maps:  # pyright: ignore[reportInvalidTypeForm]
        """Shows where each noun phrase of the text is seen in the reference."""
        query, *more = queries
        if more or query.pixels is None or query.text is None:
            raise UserError(
                "Maps are of one text and one reference; expected a 'text', and a file 'image' or a 'name'."
            )
        phrases = await service.maps((query.pixels, query.text))
        return Maps(phrases=[PhraseMap(text=text, map=map) for text, map in phrases])


def _add_gallery(router: APIRouter, service: Service) -> None:
    @router.get("/v1/names", responses={422: RESPONSES[422]})
    async def names(start: int = 0, count: int = 60) -> list[str]:
        """Lists the index's pictures that can be seen here, in the gallery's order."""
        if not (0 <= start <= 2**31 and 1 <= count <= 1000):
            raise UserError(f"start is {start} and count is {count}; expected 0 or more, and 1 to 1000.")
        return service.names[start : start + count]

    @router.get("/v1/picture", response_class=Response, responses={status: RESPONSES[status] for status in (422, 429)})
    async def picture(name: str) -> Response:
        """Shows a picture of the gallery, small, as JPEG."""
        thumbnail = await service.thumbnail(name)
        return Response(thumbnail, media_type="image/jpeg", headers={"cache-control": "max-age=3600"})


class Query(NamedTuple):
    """A reference picture, a text, or both, as a client has sent them."""

    pixels: np.ndarray | None  # uint8 [H, W, 3], as the system sees it
    text: str | None
    name: str | None  # of a reference in the index
    read: str | None  # the part that is read of a text that is too long


def _query_fields(service: Service, batcher: Batcher) -> Any:
    """Returns the form fields of a route that takes references and texts, read as Queries."""
    most = service.limits.questions
    texts_of: Any = list[Annotated[str, StringConstraints(min_length=1, max_length=service.limits.text)]]
    names_of: Any = list[Annotated[str, StringConstraints(max_length=4096)]]

    async def read_queries(
        text: Annotated[texts_of | None, Form(max_length=most, description=f"{TEXT} Or several.")] = None,  # pyright: ignore
        image: Annotated[list[UploadFile] | None, File(max_length=most, description=UPLOAD)] = None,
        name: Annotated[names_of | None, Form(max_length=most, description=NAME)] = None,  # pyright: ignore
    ) -> list[Query]:
        if image and name:
            raise UserError("The reference is given twice; expected files 'image' or names 'name', not both.")
        texts, files, names = text or [], image or [], name or []
        questions = pair(range(len(files or names)), range(len(texts)))
        batcher.check(len(questions))
        read = [service.read_of(each) for each in texts]
        several = [f"image[{row}]" if len(files) > 1 else "image" for row in range(len(files))]
        pixels = [await service.decode(await file.read(), own) for file, own in zip(files, several, strict=True)]
        pixels += [await service.named(each) for each in names]
        return [
            Query(
                None if row is None else pixels[row], None if at is None else texts[at],
                names[row] if names and row is not None else None, None if at is None else read[at],
            )
            for row, at in questions
        ]  # fmt: skip

    return Annotated[list[Query], Depends(read_queries)]


def _text_field(service: Service) -> Any:
    return Annotated[str, Form(min_length=1, max_length=service.limits.text, description=TEXT)]


def _add_errors(app: FastAPI) -> None:
    """Answers errors with their status and a sentence, as Problem has it."""

    def refuse(request: Request, status: int, sentence: str) -> JSONResponse:
        headers = {"retry-after": "1"} if status in (429, 503) else None
        content: dict[str, Any] = {"detail": sentence}
        if request.url.path == EMBEDDINGS:
            content["error"] = {"message": sentence}
        return JSONResponse(content, status, headers)

    @app.exception_handler(UserError)
    async def _mistake(request: Request, error: UserError) -> JSONResponse:
        return refuse(request, 422, str(error))

    @app.exception_handler(Unavailable)
    async def _unavailable(request: Request, error: Unavailable) -> JSONResponse:
        logging.getLogger("contextjax.serving").error("The index can't be searched: %s", error.__cause__)
        return refuse(request, 503, "The index can't be searched now; try again in a moment.")

    @app.exception_handler(Full)
    async def _full(request: Request, error: Full) -> JSONResponse:
        return refuse(request, 429, BUSY)

    @app.exception_handler(HTTPException)
    async def _refused(request: Request, error: HTTPException) -> Response:
        if error.status_code != 400:
            return await http_exception_handler(request, error)
        return refuse(
            request, 422, f"The request can't be read ({error.detail}); send one as /openapi.json describes it."
        )

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        sentences = [f"{'.'.join(map(str, each['loc'][1:]))}: {each['msg']}" for each in error.errors()]
        return refuse(request, 422, "; ".join(sentences))
