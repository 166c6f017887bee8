"""SystemSpec: what a trained system needs to be loaded, beside its parameters and its tokenizer.

Training writes it into the workdir as system.json, an export and a converted model hold the same file, and a
reader of any of them needs nothing of the recipe. The file is not trusted: every value is checked, here
(what needs no model) and in `variants.make_model` (the sizes). Importing this module imports no JAX.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from contextjax.files import write_whole
from contextjax.json_files import read_json
from contextjax.types import UserError

FILE = "system.json"
QueryMode = Literal[
    "fusion",
    "combiner",
    "pseudo_word",
    "qformer",
    "composed",
    "token_mean",
    "token_max",
    "image",
    "text",
    "sum",
    "raw_sum",
]
ScoreMode = Literal["itc", "itm_cls", "sum_cls", "itm", "sum", "selection"]
QUERIES: tuple[str, ...] = get_args(QueryMode)
SCORES: tuple[str, ...] = get_args(ScoreMode)
TOKEN_QUERIES = ("token_mean", "token_max")  # of systems with several vectors of a query and of a picture
ENC = 30523  # the id of BLIP's [ENC], in the vocabularies that have it
DTYPES = ("float32", "bfloat16")
FITS = ("crop", "crop_rounded", "squash", "squash_bilinear", "targetpad", "squarepad")  # see images.preprocess
TITLES: Mapping[str, str] = {
    "context_cir": "ConText-CIR", "context_blip": "ContextBLIP", "clip": "CLIP", "blip": "BLIP",
    "composed_blip": "composed BLIP (unverified form)", "blip2": "BLIP-2", "covr2": "CoVR-2",
}  # fmt: skip
LONGEST = 1 << 16  # tokens of a text, and pixels a side: no tower has as many
REMEDY = "copy the run or the export again"


@dataclasses.dataclass(frozen=True)
class SystemSpec:
    """Family, sizes and settings of a trained system.

    Attributes:
      family: a key of TITLES; `variants.FAMILIES` has the module of each.
      vision: every field of VisionConfig. image_size, fit, mean and std are the preprocessing of pictures.
      text: every field of TextConfig, BertConfig or QFormerConfig, by what the family reads texts with.
      projection: the width of the embeddings.
      options: every other field of the family's config (ContextCIRConfig, ContextBLIPConfig, CoVR2Config).
      dtype: the type that the model computes in, "float32" or "bfloat16". Parameters are float32.
      text_length: the most tokens that are read of a text, the first and the last one included.
      propositions: into how many propositions a text is split, and how many tokens each has; (0, 0): not split.
      query: how the gallery is queried, see System.with_query.
      template: the text of a query, around the user's own, "{}"; a "*" in it stands for the picture's pseudo-word.
      score: how candidates are scored, see System.with_score.
      fingerprint: config hash and step, "HASH-STEP", of the parameters beside the file. Empty in a workdir, whose
        checkpoints have one each.
    """

    family: str
    vision: Mapping[str, Any]
    text: Mapping[str, Any]
    projection: int
    options: Mapping[str, Any]
    dtype: str
    text_length: int
    propositions: tuple[int, int]
    query: QueryMode
    score: ScoreMode
    fingerprint: str = ""
    template: str = "{}"

    @property
    def scores(self) -> tuple[ScoreMode, ...]:
        """The ways in which the system can score candidates, its default last."""
        return scores_of(self.family, self.options, vocabulary=self.text["vocabulary"])

    @property
    def title(self) -> str:
        """The system's name as its paper writes it."""
        return "SigLIP" if self.family == "clip" and self.vision.get("pooling") == "attention" else TITLES[self.family]

    @property
    def is_plain(self) -> bool:
        """True for a plain CLIP, SigLIP, BLIP or BLIP-2, which others read in Hugging Face's layout, too."""
        return self.family in ("clip", "blip", "blip2")

    @property
    def preprocessing(self) -> dict[str, Any]:
        """The preprocessing of pictures: before the program (image_size, fit) and in it (mean, std)."""
        return {name: self.vision[name] for name in ("image_size", "fit", "mean", "std")}

    def write(self, folder: Path) -> None:
        """Writes system.json into a folder."""
        write_whole(folder / FILE, json.dumps(dataclasses.asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> SystemSpec:
        """Reads the system.json of a folder.

        Raises:
          UserError: the file is missing, is no JSON, or holds a key or a value that no system has.
        """
        file = folder / FILE
        content = read_json(file, layout="a run or an export", remedy=REMEDY)
        names = {field.name for field in dataclasses.fields(cls)}
        content = {"template": "{}", **content}  # older files have none
        if content.keys() != names:
            odd = sorted(content.keys() ^ names)[0]
            raise UserError(f"{file} {'lacks' if odd in names else 'holds an unknown'} '{odd}'; {REMEDY}.")
        spec = cls(**_tuples(content))
        if problem := _problem(spec):
            raise UserError(f"{file}: {problem}; {REMEDY}.")
        return spec


def scores_of(family: str, options: Mapping[str, Any], *, vocabulary: int) -> tuple[ScoreMode, ...]:
    """Returns the ways in which a family with these options can score candidates, its default last."""
    if family == "context_blip":
        return ("itc", "sum", "itm", "selection") if options["selection"] != "none" else ("itc", "sum", "itm")
    if family == "blip":
        return ("itc", "itm_cls", "sum_cls", "itm", "sum") if vocabulary > ENC else ("itc", "itm", "sum")
    return ("itc", "itm", "sum") if family == "blip2" else ("itc",)


def queries_of(own: str) -> tuple[str, ...]:
    """Returns the ways to query, beside the baselines, of a system whose config has the query `own`."""
    return TOKEN_QUERIES if own in TOKEN_QUERIES else (own,)


def check_template(query: str, template: str) -> None:
    """Raises a UserError where a query of this mode can't have the template."""
    if template.count("{}") != 1 or ("*" in template) != (query == "pseudo_word"):
        star = "one * for the picture's word and " if query == "pseudo_word" else "no * and "
        raise UserError(f"The template of the query '{query}' is '{template}'; expected {star}one {{}} for the text.")


def _tuples(value: Any) -> Any:
    """Returns a JSON value with tuples, which the models' configs hold, instead of lists."""
    if isinstance(value, dict):
        return {key: _tuples(member) for key, member in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _problem(spec: SystemSpec) -> str:
    """Returns what is wrong with a spec that was read from a file, as a clause; "" where nothing is."""
    for name, known in {"family": TITLES, "dtype": DTYPES, "query": QUERIES, "score": SCORES}.items():
        if getattr(spec, name) not in tuple(known):
            return f"{name} is {getattr(spec, name)!r}; expected one of {', '.join(known)}"
    for name in ("vision", "text", "options"):
        if not isinstance(getattr(spec, name), dict):
            return f"{name} is {getattr(spec, name)!r}; expected an object"
    counts = spec.propositions if isinstance(spec.propositions, tuple) else ()
    if len(counts) != 2 or not all(_is_count(x, 0) for x in counts) or bool(counts[0]) != bool(counts[1]):
        return f"propositions is {spec.propositions!r}; expected two numbers, both or neither of them 0"
    vision = spec.vision
    sizes = {"text_length": spec.text_length, "projection": spec.projection, "image_size": vision.get("image_size")}
    for name, value in sizes.items():
        if not _is_count(value, 1):
            return f"{name} is {value!r}; expected a number from 1 to {LONGEST}"
    if vision.get("fit") not in FITS:
        return f"vision.fit is {vision.get('fit')!r}; expected one of {', '.join(FITS)}"
    for name in ("mean", "std"):
        values = vision.get(name)
        numbers = [x for x in values if type(x) in (int, float) and math.isfinite(x)] if type(values) is tuple else []
        if len(numbers) != 3 or (name == "std" and 0 in numbers):
            return f"vision.{name} is {values!r}; expected three numbers, one for each colour"
    if not isinstance(spec.template, str) or spec.template.count("{}") != 1:
        return f"template is {spec.template!r}; expected a text with one {{}} in it"
    if not isinstance(spec.fingerprint, str):
        return f"fingerprint is {spec.fingerprint!r}; expected a text"
    return ""


def _is_count(value: Any, least: int) -> bool:
    return type(value) is int and least <= value <= LONGEST
