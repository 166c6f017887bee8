"""The route POST /v1/embeddings, in the form of OpenAI's API, with pictures and composed queries beside texts."""

# No `from __future__ import annotations`: FastAPI reads the annotations of functions within functions.
import base64
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter
from pydantic import BaseModel, WithJsonSchema

from contextjax.serving.questions import input_schema, read_input
from contextjax.serving.service import Service
from contextjax.types import UserError

EMBEDDINGS = "/v1/embeddings"


class Embedding(BaseModel):
    """An embedding, as numbers or as float32 in base64; `read`: the part that was read of a text that was too long."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str
    read: str | None = None


class Usage(BaseModel):
    """The tokens of all texts."""

    prompt_tokens: int
    total_tokens: int


class Embeddings(BaseModel):
    """The embeddings, in the order of the input."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: Usage


def add_embeddings(router: APIRouter, service: Service, responses: dict[int | str, dict[str, Any]]) -> None:
    """Adds the route to a router; `responses` describe its errors in the OpenAPI schema."""
    limits, width = service.limits, service.system.projection

    class Request(BaseModel):
        """Texts, pictures or both, as OpenAI's clients send texts; `model` is not read, for there is one."""

        input: Annotated[Any, WithJsonSchema(input_schema(limits.questions))]
        model: str | None = None
        encoding_format: Literal["float", "base64"] = "float"
        dimensions: int | None = None

    @router.post(EMBEDDINGS, responses=responses, response_model_exclude_none=True)
    async def embeddings(request: Request) -> Embeddings:
        """Embeds texts, pictures (base64 or data URLs) and composed queries, L2-normalised, in the index's space."""
        service.embeddings.check()
        if request.dimensions not in (None, width):
            raise UserError(f"dimensions is {request.dimensions}; this model's embeddings have {width}: leave it out.")
        questions = read_input(request.input, most=limits.questions, text_limit=limits.text)
        service.embeddings.check(len(questions))
        names = [f"The image of input[{row}]" for row in range(len(questions))]
        pixels = [
            None if question.image is None else await service.decode(question.image, name)
            for question, name in zip(questions, names, strict=True)
        ]
        texts = [question.text for question in questions]
        rows = await service.embeddings.many(list(zip(pixels, texts, strict=True)))
        tokens = service.count_tokens([text for text in texts if text is not None])
        data = [
            Embedding(index=row, embedding=_encoded(embedding, request.encoding_format), read=service.read_of(text))
            for row, (embedding, text) in enumerate(zip(rows, texts, strict=True))
        ]
        usage = Usage(prompt_tokens=tokens, total_tokens=tokens)
        return Embeddings(data=data, model=service.system.identity, usage=usage)


def _encoded(embedding: np.ndarray, form: str) -> list[float] | str:
    if form == "float":
        return embedding.tolist()
    return base64.b64encode(np.asarray(embedding, "<f4").tobytes()).decode()
