"""The routes of the service, and what they take and give. Only what serves imports this: it needs FastAPI."""

from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Response, UploadFile
from fastapi.responses import HTMLResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel

from contextjax.types import UserError

PROBLEMS = {
    408: "The request has not come in time.",
    413: "The request is too large.",
    422: "Something of the request is not as it should be; the sentence says what.",
    429: "Too many requests are waiting; try again in a moment.",
    503: "The service is busy, or about to end; try again in a moment.",
}
Upload = Annotated[UploadFile | None, File(description="A PNG, JPEG or WebP file.")]
Name = Annotated[str | None, Form(max_length=4096, description="Of a picture in the index, instead of a file.")]


class Problem(BaseModel):
    """Why there is no answer: what was got, what was expected, what to do."""

    detail: str


class Found(BaseModel):
    """A picture of the index, and its cosine with the query."""

    name: str
    score: float


class Answer(BaseModel):
    """Pictures, the best first; `read`: what was read of a text that was too long."""

    results: list[Found]
    read: str | None = None


class Scores(BaseModel):
    """How well each candidate fits, in their order; `best`: the index of the best one."""

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
    """What runs here."""

    status: str
    model: str
    pictures: int
    can: list[str]


Responses = dict[int | str, dict[str, Any]]
RESPONSES: Responses = {status: {"model": Problem, "description": told} for status, told in PROBLEMS.items()}
ONLY_MISTAKES: Responses = {422: RESPONSES[422]}
OF_PICTURES: Responses = {status: RESPONSES[status] for status in (422, 429)}


def make_router(service: Any, *, page: str) -> APIRouter:
    """What the service's system and index can do."""
    router = APIRouter()
    _add_facts(router, service, page)
    _add_candidates(router, service)
    if service.index is not None:
        _add_search(router, service)
        _add_gallery(router, service)
    if service.has_maps:
        _add_maps(router, service)
    return router


def _add_facts(router: APIRouter, service: Any, page: str) -> None:
    @router.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def show() -> str:
        return page

    @router.get("/health")
    async def health() -> Facts:
        """Whether the service runs, and what it can do."""
        can = ["search"] * (service.index is not None) + ["candidates"] + ["maps"] * service.has_maps
        return Facts(status="ok", model=service.system.identity, pictures=service.pictures, can=can)

    @router.get("/metrics", response_class=Response, include_in_schema=False)
    async def metrics() -> Response:
        return Response(generate_latest(service.registry), media_type=CONTENT_TYPE_LATEST)


def _add_candidates(router: APIRouter, service: Any) -> None:
    @router.post("/v1/candidates", responses=RESPONSES)
    async def candidates(
        text: _text(service),  # pyright: ignore[reportInvalidTypeForm]
        images: Annotated[list[UploadFile], File(min_length=1, max_length=service.limits.candidates)],
    ) -> Scores:
        """How well each of some pictures fits a text."""
        service.check("candidates")
        cut = _read(service, text)
        pictures = [await service.decode(await image.read(), f"images[{row}]") for row, image in enumerate(images)]
        scores = await service.score(pictures, text)
        return Scores(scores=scores, best=max(range(len(scores)), key=scores.__getitem__), read=cut)


def _add_search(router: APIRouter, service: Any) -> None:
    @router.post("/v1/search", responses=RESPONSES)
    async def search(
        text: _text(service),  # pyright: ignore[reportInvalidTypeForm]
        image: Upload = None,
        name: Name = None,
        k: Annotated[int, Form(ge=1, le=service.limits.results, description="How many.")] = 10,
    ) -> Answer:
        """The pictures of the index that are like the reference, but as the text says."""
        service.check("search")
        cut = _read(service, text)
        found = await service.search(await _reference(service, image, name), text, k + bool(name))
        kept = [Found(name=other, score=score) for other, score in found if other != name][:k]
        return Answer(results=kept, read=cut)


def _add_gallery(router: APIRouter, service: Any) -> None:
    @router.get("/v1/names", responses=ONLY_MISTAKES)
    async def names(start: int = 0, count: int = 60) -> list[str]:
        """Names of the index's pictures that can be seen here, in the gallery's order."""
        if not (0 <= start <= 2**31 and 1 <= count <= 1000):
            raise UserError(f"start is {start} and count is {count}; expected 0 or more, and 1 to 1000.")
        return service.names[start : start + count]

    @router.get("/v1/picture", response_class=Response, responses=OF_PICTURES)
    async def picture(name: str) -> Response:
        """A picture of the gallery, small, as JPEG."""
        made = await service.thumbnail(name)
        return Response(made, media_type="image/jpeg", headers={"cache-control": "max-age=3600"})


def _add_maps(router: APIRouter, service: Any) -> None:
    @router.post("/v1/maps", responses=RESPONSES)
    async def maps(
        text: _text(service),  # pyright: ignore[reportInvalidTypeForm]
        image: Upload = None,
        name: Name = None,
    ) -> Maps:
        """Where each noun phrase of the text is seen in the reference."""
        service.check("maps")
        _read(service, text)
        found = await service.maps(await _reference(service, image, name), text)
        return Maps(phrases=[PhraseMap(text=phrase.text, map=phrase.map) for phrase in found])


def _text(service: Any) -> Any:
    told = "What shall be otherwise, or is shown."
    return Annotated[str, Form(min_length=1, max_length=service.limits.text, description=told)]


def _read(service: Any, text: str) -> str | None:
    """What is read of a text that is too long; None of one that isn't."""
    if not text.strip():
        raise UserError("The text is empty; say what the picture that you look for is like.")
    return next(iter(service.system.truncated([text])), None)


async def _reference(service: Any, image: Any, name: str | None) -> Any:
    if (image is None) == (not name):
        raise UserError("The reference is missing or given twice; expected either a file 'image' or a 'name'.")
    return await (service.named(name) if name else service.decode(await image.read(), "image"))
