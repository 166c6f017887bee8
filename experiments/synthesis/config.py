"""The settings of a synthesis. Each field is a flag of experiments.synthesize."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from absl import flags

from contextjax.files import local_path
from contextjax.types import UserError
from experiments.shared import chat_settings
from experiments.shared.chat_settings import ChatSettings
from experiments.shared.paths import Place

PLACES = chat_settings.PLACES | {
    "data": Place.FOLDER, "pictures": Place.FOLDER, "target": Place.NEW_FOLDER, "workdir": Place.SOURCE,
}  # fmt: skip

flags.disclaim_key_flags()  # the flags are those of the command that defines them: --help has them


@dataclasses.dataclass(frozen=True, kw_only=True)
class SynthesisConfig(ChatSettings):
    """Settings of a synthesis, checked against each other. A number after a field's sentence is its least value."""

    data: Annotated[str | None, "A set whose own (reference, target) pairs are taken."] = None
    reader: Annotated[str, "The layout of --data, as in a config's data.reader."] = "cirr"
    split: Annotated[str, "The split of --data; also the split that is written."] = "train"
    pictures: Annotated[str | None, "A folder of pictures, whose pairs are mined, instead of --data."] = None
    target: Annotated[str, "The folder of the written set: a new one, or one of an earlier run."]
    pairs: Annotated[int, "The number of pairs, drawn by --seed; 0: all.", 0] = 0
    seed: Annotated[int, "The seed of all random draws."] = 0
    # Mining.
    workdir: Annotated[str | None, "A CLIP (workdir, export, folder or hub id), for mining and --agreement."] = None
    band: Annotated[tuple[str, ...], "The least and the greatest cosine of a pair; band.html has examples."] = (
        "0.75", "0.95",
    )  # fmt: skip
    group: Annotated[int, "The number of pictures of a group, any two of which are in the band.", 2] = 6
    targets: Annotated[int, "The number of targets of each reference of a group.", 1] = 1
    # Models.
    backend: Annotated[
        Literal["openai", "transformers", "rules"], "The kind of model; rules: no model, for pictograms only."
    ]
    writer: Annotated[str | None, "Another model for the texts."] = None
    concurrency: Annotated[int, "The number of pairs under way at a time.", 1] = 8
    answer_tokens: Annotated[int, "The longest answer; --dry_run assumes half until some were counted."] = 800
    # Texts.
    answers: Annotated[str | None, "The file of answers; default: TARGET/synthesis/answers.sqlite."] = None
    prompts: Annotated[str | None, "A folder of your own prompts, as data_pipelines/synthesis/prompts."] = None
    texts: Annotated[int, "The number of texts asked for, for each pair.", 1] = 6
    characters: Annotated[int, "The longest text; longer ones are removed.", 10] = 100
    grammar: Annotated[str, "A LanguageTool server, as http://HOST:8081; without it grammar is not checked."] = ""
    language: Annotated[str, "The texts' language, for --grammar."] = "en-US"
    agreement: Annotated[
        float | None, "The least agreement of a text with target minus reference, by the CLIP of --workdir."
    ] = None
    decisions: Annotated[
        tuple[str, ...], "Files that review pages saved: rejected triplets are left out, and a later file wins."
    ] = ()
    review: Annotated[int, "The number of triplets on the review page.", 0] = 100
    cluster: Annotated[str | None, "A Ray cluster that does the work: auto, or HOST:PORT (docs/guides/cluster.md)."] = (
        None
    )

    def __post_init__(self):
        """Raises UserError where settings do not go together."""
        if bool(self.data) == bool(self.pictures):
            raise UserError(
                "Expected --data=SET, whose pairs are taken, or --pictures=FOLDER, whose pairs are mined: one."
            )
        if self.pictures and self.target_folder.resolve().is_relative_to(local_path(self.pictures).resolve()):
            raise UserError(
                f"{self.target} lies in --pictures, and its copies would be taken for more of them; give another place."
            )
        if self.pictures and not self.workdir:
            raise UserError("--pictures needs a CLIP to find pairs by; give it as --workdir.")
        if self.agreement is not None and not self.workdir:
            raise UserError("--agreement needs a CLIP to judge by; give it as --workdir.")
        if self.batch and self.backend != "openai":
            raise UserError(f"--batch is for --backend=openai; got --backend={self.backend}.")
        if self.batch and self.cluster:
            raise UserError("--batch asks by files, which one process writes at once; leave out --cluster.")

    @property
    def cosines(self) -> tuple[float, float]:
        """The least and the greatest cosine of a pair."""
        try:
            low, high = map(float, self.band)
        except ValueError as error:
            raise UserError(f"--band is {','.join(self.band)}; expected two cosines, as 0.75,0.95.") from error
        return low, high

    @property
    def target_folder(self) -> Path:
        """The folder of the written set."""
        return local_path(self.target)


def define_flags() -> None:
    """Defines a flag for each field of SynthesisConfig."""
    chat_settings.define_flags(SynthesisConfig, PLACES)


def from_flags() -> SynthesisConfig:
    """Reads the config from the parsed flags.

    Raises:
      UserError: a flag is missing, or flags do not go together.
    """
    values = chat_settings.values_of_flags(SynthesisConfig)
    for name in ("target", "backend"):
        if values[name] is None:
            raise UserError(f"--{name} is missing; give it as --{name}=...")
    return SynthesisConfig(**values)
