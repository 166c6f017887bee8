"""MtebEncoder, a system as an encoder of MTEB, the Massive Text Embedding Benchmark (package `mteb`, version 2).

MTEB hands over batches as dicts of lists: "text", "image", or both. A query with both is embedded as a composed query,
a picture alone as the gallery's are, a text alone by the text tower. The class has the methods of mteb's
EncoderProtocol; mteb itself is imported only where it asks for the model's metadata.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from contextjax.metrics import similarities
from contextjax.types import UserError

MODALITIES = ("text", "image")


class MtebEncoder:
    """A run, an export, a CLIP or a BLIP as an encoder of mteb's.

    Example:
      mteb.evaluate(MtebEncoder(contextjax.load("runs/one")), mteb.get_tasks(["CIRRIT2IRetrieval"]))
    """

    def __init__(self, system: Any, *, name: str = ""):
        """Takes what `contextjax.load` returns.

        Args:
          system: a system or an export.
          name: "organisation/model", by which mteb files the results; default: "contextjax/" and how it is queried.
            The revision, its other half, is the system's identity: equal parameters and preprocessing have equal ones.
        """
        self.model = system
        self.name = name or f"contextjax/{system.query}"
        if self.name.count("/") != 1 or not all(self.name.split("/")):
            raise UserError(f"The model's name is '{self.name}'; mteb expects organisation/model.")

    def encode(
        self, inputs: Iterable[Mapping[str, Any]], *, task_metadata: Any = None, prompt_type: Any = None, **_: Any
    ) -> np.ndarray:
        """Returns the embeddings float32 [N, D], L2-normalised, of all rows of the batches.

        A system that is queried by "token_max" has several vectors of a query and of a picture: [N, L, D].

        Args:
          inputs: batches {"text": [text], "image": [picture]} with one of the keys or both.
          task_metadata: what mteb knows of the task; its name is in messages.
          prompt_type: "query" or "document". A document's blank text counts as none; a query's does not.

        Raises:
          UserError: the task is about sounds or videos, or a row has neither text nor picture.
        """
        is_document = getattr(prompt_type, "value", prompt_type) == "document"
        parts = [self._encode(batch, task_metadata, is_document) for batch in inputs]
        return np.concatenate(parts) if parts else np.zeros((0, self.model.projection), np.float32)

    def _encode(self, batch: Mapping[str, Any], task: Any, is_document: bool) -> np.ndarray:
        columns = {key: list(batch[key]) for key in MODALITIES if key in batch}
        if not columns or {"audio", "video"} & set(batch):
            check_modalities(task, batch)
            name = getattr(task, "name", "The task")
            raise UserError(f"{name} has rows of {', '.join(batch)}; expected text, image or both: give another task.")
        count = len(next(iter(columns.values())))
        images = [None if x is None else _picture(x) for x in columns.get("image", [None] * count)]
        texts = columns.get("text", [None] * count)
        if is_document and "image" in columns:  # a corpus of both kinds has blank texts beside pictures
            texts = [
                None if image is not None and not (text or "").strip() else text
                for image, text in zip(images, texts, strict=True)
            ]
        if self.model.query != "token_max":
            return self.model.encode(images, texts)
        return self._encode_tokens(images, texts)

    def _encode_tokens(self, images: list[Any], texts: list[str | None]) -> np.ndarray:
        """Returns the vectors [N, L, D] of rows that are all composed queries, or all pictures."""
        kinds = {(image is not None, text is not None) for image, text in zip(images, texts, strict=True)}
        if kinds == {(True, True)}:
            return self.model.encode_query_tokens(images, texts)
        if kinds == {(True, False)}:
            return self.model.encode_gallery_tokens(images)
        raise UserError("A system queried by 'token_max' has no vectors of a text alone; give --query=token_mean.")

    def similarity(self, embeddings1: Any, embeddings2: Any) -> np.ndarray:
        """Returns the cosines [N, M] of all pairs; of several vectors of each, the largest of all pairs of them."""
        return similarities(_rows(embeddings1), _rows(embeddings2))

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> np.ndarray:
        """Returns the cosine [N] of each pair."""
        pairs = zip(_rows(embeddings1), _rows(embeddings2), strict=True)
        return np.asarray([similarities(one[None], other[None])[0, 0] for one, other in pairs], np.float32)

    @property
    def mteb_model_meta(self) -> Any:
        """The metadata, an mteb.models.ModelMeta. Nothing is claimed that the system does not know of itself."""
        from mteb.models import ModelMeta

        unknown = ("release_date", "languages", "n_parameters", "memory_usage_mb", "license", "open_weights",
                   "public_training_code", "public_training_data", "training_datasets")  # fmt: skip
        known: dict[str, Any] = {
            "loader": None, "name": self.name, "revision": f"{self.model.identity}-{self.model.query}",
            "max_tokens": self.model.tokenizer.length, "embed_dim": self.model.projection, "framework": ["JAX"],
            "similarity_fn_name": None, "use_instructions": False, "modalities": [*MODALITIES],
        }  # fmt: skip
        return ModelMeta(**dict.fromkeys(unknown), **known)


def check_modalities(task: Any, more: Iterable[str] = ()) -> None:
    """Checks that a task is about texts and pictures alone.

    Args:
      task: a task's metadata, with its `name` and `modalities`.
      more: keys of its batches.

    Raises:
      UserError: it is about something else.
    """
    asked = [*getattr(task, "modalities", ()), *(key for key in more if key in ("audio", "video"))]
    if other := sorted(set(asked) - {*MODALITIES}):
        raise UserError(
            f"The task {getattr(task, 'name', '')} asks for {' and '.join(other)}, and this library embeds texts and "
            "pictures; give a task of these."
        )


def _picture(image: Any) -> Any:
    """Returns a picture as `Retriever` takes it: tensors [3, H, W], as some tasks have them, become [H, W, 3]."""
    if not hasattr(image, "shape"):
        return image
    pixels = np.asarray(image)
    pixels = pixels.transpose(1, 2, 0) if pixels.ndim == 3 and pixels.shape[0] == 3 != pixels.shape[2] else pixels
    return np.rint(pixels * 255).astype(np.uint8) if np.issubdtype(pixels.dtype, np.floating) else pixels


def _rows(embeddings: Any) -> np.ndarray:
    """Returns embeddings as an array of rows: mteb gives arrays or tensors, of one row or of several."""
    rows = np.asarray(embeddings, np.float32)
    return rows[None] if rows.ndim == 1 else rows
