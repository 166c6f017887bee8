"""Writes candidate sets of pictograms in the official ImageCoDe layout, as the reader of ImageCoDe reads it."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

from PIL import Image

from contextjax.threads import available_cpus
from data_pipelines.datasets.imagecode import BOUNDS, FEW, KINDS, SIMPLE
from data_pipelines.datasets.pictograms.candidate_sets import CandidateSet, set_of
from data_pipelines.datasets.pictograms.comparisons import comparative_set_of, comparison_bound
from data_pipelines.datasets.pictograms.description_parser import parse
from data_pipelines.datasets.pictograms.names import choose
from data_pipelines.datasets.pictograms.scenes import draw, pictogram_art
from data_pipelines.datasets.pictograms.small_sets import SIZES, small_sets
from data_pipelines.datasets.pictograms.written_set import LICENSE_FILE, fingerprint, write_once
from data_pipelines.processes import map_in_processes

TRAIN_BESIDE = 4  # absolute descriptions of a training set beside comparative ones, which have 4.25 on average
FORMAT = 6  # of the generator: raise it when the same settings give other files
SHORT = ("train", "valid")  # the splits that have texts of a few pictures of a set, too
CHUNK = 25  # sets that a process writes at a time
LICENSE = """The pictures in this folder are composed of Twemoji graphics.
Copyright 2020 Twitter, Inc and other contributors.
Licensed under CC-BY 4.0: https://creativecommons.org/licenses/by/4.0/
Changes made: the graphics were resized and placed together on a white canvas.
"""


def write_imagecode(
    folder: str | Path,
    *,
    train_sets: int = 3000,
    val_sets: int = 300,
    test_sets: int = 300,
    unseen_sets: int = 100,
    seed: int = 0,
    canvas: int = 64,
    comparative: bool = False,
    pictograms: str | Path | None = None,
    processes: int | None = None,
) -> Path:
    """Writes the candidate sets and returns the folder; does nothing if the same set is there already.

    The bytes depend on the settings alone, not on `processes`. The files:

    image-sets/<set>/img0.jpg ... img9.jpg; train_data.json, valid_data.json, test_data.json and unseen_data.json as
    {set: {"<target index>": description}}; test_data_unlabeled.json as {set: [description]}; train_simple.json and
    valid_simple.json as [{directory, pos_idx, neg_idx, caption}]; train_few.json and valid_few.json, the same with a
    list of four as neg_idx; <split>_scenes.json as {set: [ten scene graphs]}; kinds.json as
    {set: {"<target index>": [kinds]}}; with comparative sets bounds.json, see comparison_bound; boxes.json as
    {"<set>/img<N>": [{"name": name, "box": [left, top, right, bottom] in pixels}]}.

    Args:
      folder: absent, empty, or written by this function.
      train_sets, val_sets, test_sets, unseen_sets: candidate sets in each split.
      seed: decides everything that is drawn.
      canvas: side of the pictures in pixels.
      comparative: whether each split has as many sets again whose descriptions compare. Training sets then have four
        absolute descriptions each, so that about half of all are of either kind.
      pictograms: a folder of pictures to use instead of Twemoji, each named after what it shows.
      processes: None: one for each available CPU. Several are spawned, so scripts need `if __name__ == "__main__"`.

    Raises:
      ValueError: names or numbers of pictograms cannot be used, or the folder holds something else.
    """
    counts = {"train": train_sets, "valid": val_sets, "test": test_sets, "unseen": unseen_sets}
    source = str(pictograms) if pictograms else None
    art = pictogram_art(source)
    seen, held_out = choose(art)
    settings = {
        "format": FORMAT,
        "task": "contextual",
        "sets": counts,
        "seed": seed,
        "canvas": canvas,
        "comparative": comparative,
        "source": fingerprint({name: art[name] for name in (*seen, *held_out)}) if source else "twemoji",
        "seen": list(seen),
        "held_out": list(held_out),
    }
    write = functools.partial(_write, settings=settings, source=source, processes=processes or available_cpus())
    return write_once(Path(folder), settings, write)


def _write(partial: Path, *, settings: Mapping, source: str | None, processes: int) -> None:
    """Writes all files of a data set."""
    comparative = settings["comparative"]
    chunks = [
        (split, range(start, min(start + CHUNK, count)), compares)
        for split, count in settings["sets"].items()
        for compares in (False, True)[: 1 + comparative]
        for start in range(0, count, CHUNK)
    ]
    sets: dict[str, list[WrittenSet]] = {split: [] for split in settings["sets"]}
    work = functools.partial(_write_chunk, partial, settings, source)
    for (split, *_), members in zip(chunks, map_in_processes(work, chunks, processes), strict=True):
        sets[split] += members
    for split, members in sets.items():
        _write_texts(partial, split, members)
    every = [made for members in sets.values() for made in members]
    _write_kinds(partial, every, canvas=settings["canvas"], comparative=comparative)
    if not source:
        (partial / LICENSE_FILE).write_text(LICENSE, encoding="utf-8")


@dataclasses.dataclass(frozen=True)
class WrittenSet:
    """A candidate set that was drawn, the name of its folder, and the kinds of each of its descriptions.

    `few` holds texts about some of its pictures, by the ending of their file: (right index, wrong index or indices,
    text) each.
    """

    name: str
    candidates: CandidateSet
    kinds: tuple[tuple[str, ...], ...]
    few: Mapping[str, Sequence[tuple]]


def set_name(split: str, index: int, *, comparative: bool = False) -> str:
    """Returns the folder name of a set; "open-images" marks ImageCoDe's static sets."""
    return f"open-images-pictograms_{split}_{'comparative_' * comparative}{index:05d}"


def _write_chunk(
    partial: Path, settings: Mapping, source: str | None, chunk: tuple[str, range, bool]
) -> list[WrittenSet]:
    """Makes some sets of a split and writes their pictures."""
    split, indices, comparative = chunk
    sets = [_make_set(split, index, settings, comparative) for index in indices]
    for made in sets:
        folder = partial / "image-sets" / made.name
        folder.mkdir(parents=True)
        for number, scene in enumerate(made.candidates.scenes):
            picture = Image.fromarray(draw(scene, pictogram_art(source), canvas=settings["canvas"]))
            picture.save(folder / f"img{number}.jpg", "JPEG", quality=92, subsampling=0)
    return sets


def _make_set(split: str, index: int, settings: Mapping, comparative: bool) -> WrittenSet:
    name, names = set_name(split, index, comparative=comparative), (settings["seen"], settings["held_out"])
    if comparative:
        made, comparisons = comparative_set_of(split, index, *names, seed=settings["seed"])
        rng = Random(f"small sets/{settings['seed']}/{split}/{index}")
        two, few = ([*small_sets(made.scenes, size, rng)] if split in SHORT else [] for size in SIZES)
        pairs = [(right, *wrong, text) for right, wrong, text in two]
        return WrittenSet(name, made, tuple(each.kinds for each in comparisons), {SIMPLE: pairs, FEW: few})
    count = TRAIN_BESIDE if split == "train" and settings["comparative"] else 0
    made = set_of(split, index, *names, seed=settings["seed"], descriptions=count)
    kinds = tuple(("absolute", *families_of(text)) for _, text in made.descriptions)
    return WrittenSet(name, made, kinds, {SIMPLE: made.pairs, FEW: made.few} if split in SHORT else {})


def families_of(text: str) -> list[str]:
    """Returns which of counting, negation, relation and size an absolute description has, by the parser."""
    kinds = set().union(*(predicate.kinds for predicate in parse(text)))
    return sorted({"count": "counting"}.get(kind, kind) for kind in kinds - {"place"})


def _write_texts(folder: Path, split: str, sets: Sequence[WrittenSet]) -> None:
    """Writes a split's descriptions and scene graphs."""
    named = {made.name: made.candidates for made in sets}
    labelled = {name: {str(i): text for i, text in s.descriptions} for name, s in named.items()}
    _write_json(folder / f"{split}_data.json", labelled)
    if split == "test":
        unlabelled = {name: list(texts.values()) for name, texts in labelled.items()}
        _write_json(folder / "test_data_unlabeled.json", unlabelled)
    keys = ("directory", "pos_idx", "neg_idx", "caption")
    for ending in (SIMPLE, FEW):
        rows = [(made.name, *row) for made in sets for row in made.few.get(ending, ())]
        if rows:
            _write_json(folder / f"{split}{ending}", [dict(zip(keys, row, strict=True)) for row in rows])
    graphs = {name: [scene.to_json() for scene in s.scenes] for name, s in named.items()}
    _write_json(folder / f"{split}_scenes.json", graphs)


def _write_kinds(folder: Path, sets: Sequence[WrittenSet], *, canvas: int, comparative: bool) -> None:
    """Writes the kinds of all descriptions, the bound of the comparative ones, and where each thing stands."""
    scenes = ((made.name, number, scene) for made in sets for number, scene in enumerate(made.candidates.scenes))
    _write_json(folder / "boxes.json", {f"{name}/img{number}": scene.boxes(canvas) for name, number, scene in scenes})
    kinds = {
        made.name: {str(i): list(own) for (i, _), own in zip(made.candidates.descriptions, made.kinds, strict=True)}
        for made in sets
    }
    _write_json(folder / KINDS, kinds)
    if comparative:
        _write_json(folder / BOUNDS, {"comparative": round(comparison_bound(), 2)})


def _write_json(path: Path, value: dict | list) -> None:
    path.write_text(json.dumps(value) + "\n", encoding="utf-8")
