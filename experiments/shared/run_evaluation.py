"""Evaluates a run, or published weights, on a split by a protocol, and writes evaluation.json."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import contextjax
from contextjax.evaluation import Propositions, evaluate_grounding
from contextjax.files import write_whole
from contextjax.json_files import read_json
from contextjax.sharding import first_process_first, is_first_process
from contextjax.spec import SCORES
from contextjax.system import System
from contextjax.types import EvaluationProtocol, UserError
from data_pipelines import protocols
from data_pipelines.candidate_ops import cleaned
from data_pipelines.concepts import PhraseCache, without_pronouns
from data_pipelines.datasets.imagecode import read_bounds, read_propositions
from data_pipelines.tables import SplitData
from data_pipelines.texts import clean_description, is_negated
from experiments.shared.data import evaluated, load_parts
from experiments.shared.leaderboard_files import write_files
from experiments.shared.run_config import read_config
from experiments.shared.scoring import has_candidates, score

REST = ("n_rest", "rest")  # what single_modality says of the queries that no modality answers alone


@dataclasses.dataclass(frozen=True)
class ChosenSplit:
    """A split and the protocol that it is scored by.

    A changed protocol (rewordings, propositions) has another name, since its figures are not comparable.
    """

    protocol: EvaluationProtocol
    split: str
    parts: Mapping[str, SplitData]  # of the split, see data.load_parts
    data: Mapping[str, Any]  # what the result says of the data, see describe_data
    file: str  # in the workdir, for the result
    propositions: Propositions | None
    share: float  # of the whole text, beside its propositions
    bounds: Mapping[str, float]  # kind -> accuracy that needs no comparison of candidates, where the data say so

    @property
    def is_secret(self) -> bool:
        """True if targets are missing, so that nothing can be scored."""
        return any(record.target is None for data in self.parts.values() for record in data.records)

    @property
    def sentences(self) -> dict[str, Any]:
        """The options of evaluation.score_records that propositions are given by."""
        return {} if self.propositions is None else {"propositions": self.propositions, "share": self.share}

    @property
    def texts(self) -> list[str]:
        """All texts that a system reads."""
        records = [record for data in self.parts.values() for record in data.records]
        texts = [record.text for record in records]
        if self.protocol.averages_rewordings:
            texts += [text for record in records for text in record.rewordings]
        return texts + [text for own in (self.propositions or {}).values() for text, _ in own]


def evaluate_run(
    workdir: Path, *, source: str = "", checkpoint: str = "", submission: str = "", baselines: bool = True,
    query: str = "", **choice: Any,
) -> dict[str, Any]:  # fmt: skip
    """Evaluates and writes the result: evaluation.json, for other splits and data evaluation.*.json.

    Args:
      workdir: the run's, and where the result is written.
      source: a folder or hub id of CLIP or BLIP to evaluate instead of the run.
      checkpoint: best, newest or a step; see contextjax.load.
      submission: a folder for the files that the benchmark's leaderboard takes; "": none are written.
      baselines: whether the simpler ways to query or score are scored too.
      query: of composed queries, "MODE" or "MODE:TEMPLATE", see System.with_query; "": the system's own.
      choice: see choose_split.

    Returns:
      the result; {} for a split whose targets are secret: only the submission is made.

    Raises:
      UserError: the choice fits neither the source nor the data, or the targets are secret and there is no submission.
    """
    if source and not (choice.get("folder") and choice.get("protocol")):
        raise UserError("--data or --protocol is missing; a --source needs both, as --data=FOLDER --protocol=cirr.")
    system = contextjax.load(source or workdir, checkpoint=checkpoint)
    if query:
        mode, _, template = query.partition(":")
        system = system.with_query(mode, template)
        choice["query"] = query
    with first_process_first():
        chosen = choose_split(
            system, None if source else read_config(workdir, system.fingerprint.rpartition("-")[0]), **choice
        )
    title = f"{chosen.protocol.name}, {chosen.split}"
    if chosen.is_secret and not submission:
        raise UserError(
            f"{title}: its targets are secret; give --submission=DIR for the files that its leaderboard scores, or a "
            "--split that publishes them."
        )
    for part, data in chosen.parts.items() if submission and is_first_process() else ():
        for path in write_files(system, chosen.protocol, data, Path(submission) / part, **chosen.sentences):
            print(f"{path} is written and keeps all rules of {title}.")
    texts_cut = _count_cut(system, chosen.texts)
    if chosen.is_secret:
        print(f"{title}: targets are secret, so there are no metrics; submit what is written.")
        return {}
    result: dict[str, Any] = {"protocol": chosen.protocol.name, "split": chosen.split, "data": chosen.data}
    with first_process_first():
        phrases = _count_phrases(chosen)
    result |= score(system, chosen.protocol, chosen.parts, baselines=baselines, phrases=phrases, **chosen.sentences)
    kinds = {f"accuracy/{kind}": row["accuracy"] for kind, row in result["by_kind"].items() if "accuracy" in row}
    bounds = {f"bound/{kind}": bound for kind, bound in chosen.bounds.items() if f"accuracy/{kind}" in kinds}
    result |= kinds | bounds | _grounding(system, chosen)
    result["texts_cut"] = texts_cut
    if chosen.protocol.template or system.template != "{}":
        result["template"] = chosen.protocol.template or system.template
    if chosen.propositions:
        result["share"] = chosen.share
    result |= checkpoint_of(system.fingerprint)
    if is_first_process():
        _keep_other_data(workdir / chosen.file, chosen.data)
        write_whole(workdir / chosen.file, json.dumps(result, indent=2) + "\n")
    print_tables(result)
    return result


def _grounding(system: System, chosen: ChosenSplit) -> dict[str, float]:
    """Returns how well maps cover what texts name, see evaluate_grounding; only of the first of several parts."""
    data = next(iter(chosen.parts.values()))
    values = evaluate_grounding(system, data.records, data.pictures)
    if values:
        shown = (f"{name} {values[f'grounding/{name}']:.1f} (chance {values[f'grounding/{name}_chance']:.1f})"
                 for name in ("pointing", "mass"))  # fmt: skip
        by_themselves = "".join(
            f", {name} alone {values[f'grounding/alone_{name}']:.1f}" for name in ("pointing", "mass")
            if f"grounding/alone_{name}" in values
        )  # fmt: skip
        print(f"Grounding of {values['grounding/phrases']:,} phrases, in percent: {', '.join(shown)}{by_themselves}")
    return values


def _count_phrases(chosen: ChosenSplit) -> dict[str, int] | None:
    """Returns text -> number of its noun phrases that are no pronouns; None for several parts and texts of no edits."""
    if has_candidates(chosen.protocol) or chosen.protocol.both_ways or len(chosen.parts) > 1:
        return None
    (data,) = chosen.parts.values()
    cache = PhraseCache(data.folder)
    cache.add(record.text for record in data.records)
    return {record.text: len(without_pronouns(record.text, cache[record.text])) for record in data.records}


def choose_split(
    system: System,
    config: Any,
    *,
    protocol: str = "",
    folder: str = "",
    split: str | None = None,
    rewordings: bool = False,
    propositions: str = "",
    share: float = 0.5,
    prepared: str = "",
    query: str = "",
) -> ChosenSplit:
    """Loads the named split; whatever is not named is taken from the config, if there is one.

    Args:
      system: for the size of its pictures.
      config: the run's; None: there is none.
      protocol: a name of data_pipelines/protocols.py.
      folder: the data set's.
      split: its split.
      rewordings: whether a query is the mean of a text and its rewordings.
      propositions: a file {description: [short sentences]}; "": descriptions are scored as a whole.
      share: of the whole text in a score, beside its propositions.
      prepared: where the tables of the data go, see prepare; "": where the config says.
      query: the way to query, where it is not the system's own.
    """
    prepared = prepared or (config.data.get("prepared", "") if config else "")
    reader, own_folder = evaluated(config) if config else ("", "")
    own_split, clean = (config.data.val_split, bool(config.data.get("clean"))) if config else ("val", False)
    scored = protocols.named(protocol) if protocol else protocols.of_reader(reader)
    is_own = (
        scored.reader == reader
        and scored == protocols.of_reader(reader)
        and (not folder or _is_same(folder, own_folder))
    )
    if rewordings:
        scored = dataclasses.replace(scored, name=f"{scored.name}+rewordings", averages_rewordings=True)
    chosen = str(split or own_split)
    parts = load_parts(scored, folder or own_folder, chosen, size=system.image_size, fit=system.fit, prepared=prepared)
    sentences = None
    if propositions:
        scored = dataclasses.replace(scored, name=f"{scored.name}+propositions")
        sentences = _propositions(propositions, scored, parts, clean=clean)
    if query:
        scored = dataclasses.replace(scored, name=f"{scored.name}+{safe_name(query)}")
    is_default = is_own and chosen == own_split and not (rewordings or propositions or query)
    data = describe_data(folder or own_folder, parts)
    named = f"{scored.name}." if protocol or folder or rewordings or propositions or query else ""
    # Two folders of one layout are two sets, whatever they are called.
    of = f".{safe_name(data['folder'])}-{data['identity']}" if folder and not _is_same(folder, own_folder) else ""
    file = "evaluation.json" if is_default else f"evaluation.{named}{chosen}{of}.json"
    parts = {part: cleaned(data) for part, data in parts.items()} if clean else parts
    bounds = read_bounds(Path(folder or own_folder)) if has_candidates(scored) else {}
    return ChosenSplit(scored, chosen, parts, data, file, sentences, share, bounds)


def describe_data(folder: str | Path, parts: Mapping[str, SplitData]) -> dict[str, Any]:
    """Returns the name of a data set's folder, the hash of its contents, and how many of its records are odd."""
    identity = json.dumps([[part, data.split, data.identity] for part, data in sorted(parts.items())])
    odd = Counter[str]()
    for data in parts.values():
        odd.update({kind: len(ids) for kind, ids in data.census["odd"].items()})
    described = {
        "folder": Path(folder).resolve().name,
        "identity": hashlib.blake2b(identity.encode(), digest_size=4).hexdigest(),
    }
    return described | ({"odd": dict(odd)} if odd else {})


def safe_name(name: str) -> str:
    """Returns a name that can be a part of a file's."""
    return re.sub(r"[^\w-]+", "_", name)[:60]


def _is_same(one: str, other: str) -> bool:
    return bool(other) and Path(one).resolve() == Path(other).resolve()


def checkpoint_of(fingerprint: str) -> dict[str, Any]:
    """Returns the config's hash and the step of a fingerprint; an export's names no step: it is the hash, of step 0."""
    config_hash, _, step = fingerprint.rpartition("-")
    return {"config_hash": config_hash, "step": int(step)} if config_hash else {"config_hash": fingerprint, "step": 0}


def _keep_other_data(file: Path, data: Mapping[str, Any]) -> None:
    """Renames a result file of other data and prints that, since it is not an older result of these data."""
    if not file.exists():
        return
    before = read_json(file, layout="an evaluation", remedy="remove it").get("data")
    if not isinstance(before, dict) or before.get("identity") == data["identity"]:
        return
    kept = file.with_name(f"{file.stem}.{safe_name(str(before.get('folder')))}-{before.get('identity')}.json")
    write_whole(kept, file.read_bytes())
    print(f"{file} was of other data ({before.get('folder')}, {before.get('identity')}); that result is now in {kept}.")


def _count_cut(system: System, texts: list[str]) -> int:
    """Returns how many texts the system does not read to their end, and prints it."""
    count = len(system.truncated(texts))
    if count:
        print(f"{count} of {len(texts)} texts are longer than {system.tokenizer.length} tokens and were cut.")
    return count


def print_tables(result: dict) -> None:
    """Prints the metrics, beside the baselines, then by kind."""
    ways = ("image", "text", "sum", *SCORES)
    beside = {f"{name} (same towers)" if name in ways else name: row for name, row in result["baselines"].items()}
    rows = {result["query"]: result["metrics"], **beside}
    columns = list(result["metrics"])
    width = max(9, *(len(column) + 2 for column in columns))
    print(
        f"{result['protocol']}, {result['split']}: {result['n_queries']} queries, {result['n_gallery']} pictures"
        + (f", step {result['step']}" if result["step"] else "")
    )
    bounds = {name: {"accuracy": v} for name, v in result.items() if name.startswith("bound/")}
    phrases = {f"noun phrases: {count}": values for count, values in result.get("by_phrases", {}).items()}
    for name, values in {"": dict.fromkeys(columns), **rows, **result["by_kind"], **phrases, **bounds}.items():
        cells = (c if values.get(c, 0) is None else f"{values[c]:.1f}" if c in values else "" for c in columns)
        print(f"{name:<28}{''.join(f'{cell:>{width}}' for cell in cells)}")
    for metric, shares in result.get("single_modality", {}).items():
        alone = ", ".join(f"{name} {value:.1f}" for name, value in shares.items() if name not in REST)
        on_rest = (
            "" if shares["rest"] is None else f"; {metric} on the other {shares['n_rest']:,}: {shares['rest']:.1f}"
        )
        print(f"{metric}, percent answered by one modality alone: {alone}{on_rest}")


def _propositions(
    file: str, protocol: EvaluationProtocol, parts: Mapping[str, SplitData], *, clean: bool
) -> Propositions:
    """Returns the sentences of a file by record id; the file has them by the description before any cleaning."""
    if not has_candidates(protocol):
        raise UserError(f"--propositions are of descriptions of candidate sets, and '{protocol.reader}' has none.")
    read, records = read_propositions(file), [record for data in parts.values() for record in data.records]
    words = (lambda text: clean_description(text, max_words=None)) if clean else str
    propositions = {record.id: [(words(text), is_negated(text)) for text in read[record.text]]
                    for record in records if record.text in read}  # fmt: skip
    if not propositions:
        raise UserError(f"{file} has no description of this split; expected its texts as they stand in the data set.")
    print(f"{len(propositions)} of {len(records)} descriptions have propositions; the others are scored as a whole.")
    return propositions
