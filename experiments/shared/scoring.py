"""What experiments.evaluate is to score, and how it tells the numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from contextjax.evaluation import Propositions
from contextjax.system import System
from contextjax.types import CandidateRecord, EvaluationProtocol, UserError
from data_pipelines import protocols
from data_pipelines.candidate_ops import cleaned
from data_pipelines.datasets import READERS
from data_pipelines.datasets.imagecode import read_propositions
from data_pipelines.tables import SplitData
from data_pipelines.texts import clean_description, is_negated
from experiments.shared.data import load_parts
from experiments.shared.evaluations import evaluated


@dataclasses.dataclass(frozen=True)
class Task:
    """A split by a protocol. What is not scored as the protocol says has another name: its numbers are others."""

    protocol: EvaluationProtocol
    split: str
    parts: Mapping[str, SplitData]  # of the split, see data.load_parts
    file: str  # of the workdir, for the result
    propositions: Propositions | None
    share: float  # of the whole text, beside its propositions

    @property
    def is_secret(self) -> bool:
        """Whether targets are missing, so that nothing can be scored."""
        return any(record.target is None for data in self.parts.values() for record in data.records)

    @property
    def facts(self) -> dict[str, Any]:
        """What else has to stand beside the numbers."""
        template = {"template": self.protocol.template} if self.protocol.template else {}
        return template | ({"share": self.share} if self.propositions else {})

    def texts(self) -> list[str]:
        """All that a system reads."""
        records = [record for data in self.parts.values() for record in data.records]
        found = [record.text for record in records]
        if self.protocol.averages_rewordings:
            found += [text for record in records for text in record.rewordings]
        return found + [text for own in (self.propositions or {}).values() for text, _ in own]


def make_task(
    system: System,
    config: Any,
    *,
    protocol: str,
    folder: str,
    split: str | None,
    rewordings: bool,
    propositions: str,
    share: float,
) -> Task:
    """What the flags of experiments.evaluate ask for; what they leave out is the config's, where there is one."""
    reader, own_folder = evaluated(config) if config else ("", "")
    own_split, clean = (config.data.val_split, bool(config.data.get("clean"))) if config else ("val", False)
    scored = protocols.named(protocol) if protocol else protocols.of_reader(reader)
    is_own = scored.reader == reader and scored == protocols.of_reader(reader) and folder in ("", own_folder)
    if rewordings:
        scored = dataclasses.replace(scored, name=f"{scored.name}+rewordings", averages_rewordings=True)
    chosen = str(split or own_split)
    parts = load_parts(scored, folder or own_folder, chosen, size=system.image_size, fit=system.fit)
    sentences = None
    if propositions:
        scored = dataclasses.replace(scored, name=f"{scored.name}+propositions")
        sentences = _propositions(propositions, scored, parts, clean=clean)
    is_default = is_own and chosen == own_split and not (rewordings or propositions)
    named = f"{scored.name}." if protocol or folder or rewordings or propositions else ""
    file = "evaluation.json" if is_default else f"evaluation.{named}{chosen}.json"
    parts = {part: cleaned(data) for part, data in parts.items()} if clean else parts
    return Task(scored, chosen, parts, file, sentences, share)


def count_cut(system: System, texts: list[str]) -> int:
    """How many texts the system does not read to their end; says so."""
    count = len(system.truncated(texts))
    if count:
        print(f"{count} of {len(texts)} texts are longer than {system.tokenizer.length} tokens and were cut.")
    return count


def print_tables(result: dict) -> None:
    """The metrics, beside the baselines, then by kind."""
    ways = ("image", "text", "sum", "itc", "itm")
    beside = {f"{name} (same towers)" if name in ways else name: row for name, row in result["baselines"].items()}
    rows = {result["query"]: result["metrics"], **beside}
    columns = list(result["metrics"])
    width = max(9, *(len(column) + 2 for column in columns))
    print(
        f"{result['protocol']}, {result['split']}: {result['n_queries']} queries, {result['n_gallery']} pictures"
        + (f", step {result['step']}" if result["step"] else "")
    )
    for name, values in {"": dict.fromkeys(columns), **rows, **result["by_kind"]}.items():
        cells = (c if values.get(c, 0) is None else f"{values[c]:.1f}" if c in values else "" for c in columns)
        print(f"{name:<28}{''.join(f'{cell:>{width}}' for cell in cells)}")


def _propositions(
    file: str, protocol: EvaluationProtocol, parts: Mapping[str, SplitData], *, clean: bool
) -> Propositions:
    """Record id -> sentences of the file, which has them by the description as it is before any cleaning."""
    if READERS[protocol.reader].record_type is not CandidateRecord:
        raise UserError(f"--propositions are of descriptions of candidate sets, and '{protocol.reader}' has none.")
    read, records = read_propositions(file), [record for data in parts.values() for record in data.records]
    words = (lambda text: clean_description(text, max_words=None)) if clean else str
    found = {record.id: [(words(text), is_negated(text)) for text in read[record.text]]
             for record in records if record.text in read}  # fmt: skip
    if not found:
        raise UserError(f"{file} has no description of this split; expected its texts as they stand in the data set.")
    print(f"{len(found)} of {len(records)} descriptions have propositions; the others are scored as a whole.")
    return found
