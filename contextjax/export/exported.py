"""Exported, an export of programs as an object with the methods of a System.

Importing this module imports neither Flax nor JAX; only the StableHLO form imports JAX, when it is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contextjax.export.folder import read_manifest
from contextjax.retriever import Retriever
from contextjax.spec import SystemSpec
from contextjax.tokenizers import TextTokenizer
from contextjax.types import UserError

RUNTIMES = ("stablehlo", "onnx")
_LEFT_OUT = {
    "attention_maps": "attention maps",
    "with_query": "other ways to query",
    "with_score": "other ways to score",
    "encode_query_tokens": "vectors of tokens",
    "encode_gallery_tokens": "vectors of tokens",
    "set_features": "features of candidate sets",
    "image_features": "features that are not normalised",
    "text_features": "features that are not normalised",
    "model": "a module",
    "params": "parameters",
    "vision": "sizes of its towers",
}


class Exported(Retriever):
    """Runs the programs of an export: encode_query, encode_gallery, encode_text, score_candidates, score_sets."""

    has_attention_maps = False

    def __init__(
        self, manifest: Mapping[str, Any], spec: SystemSpec, tokenizer: TextTokenizer, programs: Mapping[str, Callable]
    ):
        """Makes the object of the contents of export.json and system.json, a tokenizer, and functions by name."""
        super().__init__(
            tokenizer, image_size=spec.vision["image_size"], fit=spec.vision["fit"], projection=spec.projection,
            query=spec.query, score=spec.score, propositions=spec.propositions, fingerprint=manifest["fingerprint"],
            template=spec.template,
        )  # fmt: skip
        self.identity = self.fingerprint
        self.manifest, self.programs = manifest, programs

    @property
    def queries(self) -> tuple[str, ...]:
        """The ways to query: that of the export alone."""
        return (self.query,)

    @property
    def scores(self) -> tuple[str, ...]:
        """The ways to score candidate sets: that of the export alone."""
        return (self.score,)

    def __getattr__(self, name: str) -> Any:
        if name in _LEFT_OUT:
            raise UserError(
                f"An export of programs has no {_LEFT_OUT[name]}; load the run it was made of, or an export with "
                "--format=safetensors alone."
            )
        raise AttributeError(f"'Exported' has no attribute '{name}'")

    def score_sets(
        self, sets: Sequence[Sequence[Any]], texts: Sequence[str], ordered: Sequence[bool] | None = None
    ) -> np.ndarray:
        """Returns the scores float32 [S, K] of S sets of K pictures each, with a text each.

        Raises:
          UserError: a set has more candidates than the model has positions.
        """
        limit, largest = self.manifest["limits"].get("candidates"), max(map(len, sets), default=0)
        if limit and largest > limit:
            raise UserError(f"A set has {largest} candidates, and this export takes {limit}; give fewer.")
        return super().score_sets(sets, texts, ordered)

    def _embed_query(self, pixels: np.ndarray, ids: np.ndarray, mask: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return self.programs["query"](pixels[rows], ids, mask)

    def _embed_gallery(self, pixels: np.ndarray) -> np.ndarray:
        return self.programs["gallery"](pixels)

    def _embed_text(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        if "text" not in self.programs:
            raise UserError("This export has no program for a text alone; give a picture with it, or export again.")
        return self.programs["text"](ids, mask)

    def _score_sets(self, *inputs: np.ndarray) -> np.ndarray:
        return np.stack([self._score_set(inputs, row) for row in range(len(inputs[1]))])

    def _score_set(self, inputs: Sequence[np.ndarray], row: int) -> np.ndarray:
        """Returns the scores [K] of one text and its set; the program has as inputs what its model reads."""
        pixels, *arrays, rows = inputs
        names = ("ids", "mask", "proposition_ids", "proposition_mask", "ordered")
        given = {"pictures": pixels[rows[row]], **dict(zip(names, (x[row] for x in arrays), strict=True))}
        return self.programs["score"](*(given[x["name"]] for x in self.manifest["programs"]["score"]["inputs"]))


def open_export(folder: Path, *, runtime: str = "", manifest: Mapping[str, Any] | None = None) -> Exported:
    """Opens an export after a check of its files.

    Args:
      folder: what experiments.export wrote.
      runtime: "stablehlo" (needs jax) or "onnx" (needs onnxruntime, and no jax); default: the first that is there.
      manifest: what `read_manifest` returned, where that has been called.

    Raises:
      UserError: the folder is no export, is of another version, is damaged, or has no such programs.
    """
    manifest = manifest or read_manifest(folder)
    there = [name for name in RUNTIMES if name in manifest["formats"]]
    if runtime not in ("", *there) or not there:
        raise UserError(
            f"{folder} holds {', '.join(manifest['formats'])}, but {runtime or ' or '.join(RUNTIMES)} is asked for; "
            "export with that --format."
        )
    spec = SystemSpec.read(folder)
    tokenizer = _read_tokenizer(folder, spec, manifest)
    return Exported(manifest, spec, tokenizer, open_programs(folder, manifest, runtime or there[0]))


def open_programs(folder: Path, manifest: Mapping[str, Any], runtime: str) -> dict[str, Callable[..., np.ndarray]]:
    """Returns the programs of an export by name, as functions of numpy arrays. Given no rows, they return none."""
    if runtime == "onnx":
        from contextjax.export.onnx_runtime import open_onnx as opened
    else:
        from contextjax.export.stablehlo import open_stablehlo as opened
    programs = manifest["programs"]
    return {name: _of_any_rows(run, programs[name], name) for name, run in opened(folder, programs).items()}


def _of_any_rows(run: Callable[..., np.ndarray], program: Mapping[str, Any], name: str) -> Callable[..., np.ndarray]:
    """Wraps a program so that zero input rows give zero output rows; none is compiled for that size."""
    output, shapes = program["output"]["shape"], [x["shape"] for x in program["inputs"]]

    def checked(*inputs: np.ndarray) -> np.ndarray:
        sizes = {
            axis: size
            for shape, x in zip(shapes, inputs, strict=True)
            for axis, size in zip(shape, np.shape(x), strict=False)
            if isinstance(axis, str)
        }
        if not sizes.get(output[0], 1):
            return np.zeros([sizes.get(axis, axis) for axis in output], program["output"]["dtype"])
        if empty := [axis for axis, size in sizes.items() if not size]:
            raise UserError(f"The program '{name}' is given 0 {empty[0]}; expected 1 or more.")
        return run(*inputs)

    return checked


def _read_tokenizer(folder: Path, spec: SystemSpec, manifest: Mapping[str, Any]) -> TextTokenizer:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str((folder / "tokenizer.json").read_text(encoding="utf-8"))
    return TextTokenizer(tokenizer, length=spec.text_length, specials=tuple(manifest["tokenizer"]["specials"]))
