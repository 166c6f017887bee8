"""The routes of the service, and what they take and give."""

# Annotations are values here: FastAPI reads them, and they are made of the service's limits. Pyright takes none such.
from typing import Annotated, Any

from contextjax.types import UserError

PROBLEMS = {
    408: "The request has not come in time.",
    413: "The request is too large.",
    422: "Something of the request is not as it should be; the sentence says what.",
    429: "Too many requests are waiting; try again in a moment.",
    503: "The service is busy, or about to end; try again in a moment.",
}


def make_router(service: Any, *, page: str) -> Any:
    """What the service's system and index can do."""
    from fastapi import APIRouter, File, Form, Response, UploadFile
    from fastapi.responses import HTMLResponse
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
    from pydantic import BaseModel

    limits = service.limits

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

    problems: dict[int | str, dict[str, Any]] = {
        status: {"model": Problem, "description": told} for status, told in PROBLEMS.items()
    }
    router = APIRouter()
    Text = Annotated[
        str, Form(min_length=1, max_length=limits.text, description="What shall be otherwise, or is shown.")
    ]
    Upload = Annotated[UploadFile | None, File(description="A PNG, JPEG or WebP file.")]
    Name = Annotated[str | None, Form(max_length=4096, description="Of a picture in the index, instead of a file.")]

    async def reference(image: Any, name: str | None) -> Any:
        if (image is None) == (not name):
            raise UserError("The reference is missing or given twice; expected either a file 'image' or a 'name'.")
        return await (service.named(name) if name else service.decode(await image.read(), "image"))

    def read(text: str) -> str | None:
        if not text.strip():
            raise UserError("The text is empty; say what the picture that you look for is like.")
        return next(iter(service.system.truncated([text])), None)

    @router.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def show() -> str:
        return page

    @router.get("/health")
    async def health() -> Facts:
        """Whether the service runs, and what it can do."""
        can = ["search"] * (service.index is not None) + ["candidates"] + ["maps"] * service.has_maps
        return Facts(status="ok", model=service.system.identity, pictures=len(service.names), can=can)

    @router.get("/metrics", response_class=Response, include_in_schema=False)
    async def metrics() -> Response:
        return Response(generate_latest(service.registry), media_type=CONTENT_TYPE_LATEST)

    @router.post("/v1/candidates", responses=problems)
    async def candidates(
        text: Text,  # pyright: ignore[reportInvalidTypeForm]
        images: Annotated[list[UploadFile], File(min_length=1, max_length=limits.candidates)],
    ) -> Scores:
        """How well each of some pictures fits a text."""
        service.check("candidates")
        cut = read(text)
        pictures = [await service.decode(await image.read(), f"images[{row}]") for row, image in enumerate(images)]
        scores = await service.score(pictures, text)
        return Scores(scores=scores, best=max(range(len(scores)), key=scores.__getitem__), read=cut)

    if service.index is not None:

        @router.post("/v1/search", responses=problems)
        async def search(
            text: Text, image: Upload = None, name: Name = None,  # pyright: ignore[reportInvalidTypeForm]
            k: Annotated[int, Form(ge=1, le=limits.results, description="How many.")] = 10,
        ) -> Answer:  # fmt: skip
            """The pictures of the index that are like the reference, but as the text says."""
            service.check("search")
            cut = read(text)
            found = await service.search(await reference(image, name), text, k + bool(name))
            kept = [Found(name=other, score=score) for other, score in found if other != name][:k]
            return Answer(results=kept, read=cut)

        @router.get("/v1/names", responses={422: problems[422]})
        async def names(start: int = 0, count: int = 60) -> list[str]:
            """Names of the pictures in the gallery, in its order."""
            if not (0 <= start <= 2**31 and 1 <= count <= 1000):
                raise UserError(f"start is {start} and count is {count}; expected 0 or more, and 1 to 1000.")
            return service.names[start : start + count]

        @router.get("/v1/picture", response_class=Response, responses={422: problems[422]})
        async def picture(name: str) -> Response:
            """A picture of the gallery, small, as JPEG."""
            made = await service.thumbnail(name)
            return Response(made, media_type="image/jpeg", headers={"cache-control": "max-age=3600"})

    if service.has_maps:

        @router.post("/v1/maps", responses=problems)
        async def maps(
            text: Text, image: Upload = None, name: Name = None,  # pyright: ignore[reportInvalidTypeForm]
        ) -> Maps:  # fmt: skip
            """Where each noun phrase of the text is seen in the reference."""
            service.check("maps")
            read(text)
            found = await service.maps(await reference(image, name), text)
            return Maps(phrases=[PhraseMap(text=phrase.text, map=phrase.map) for phrase in found])

    return router
