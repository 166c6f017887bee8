"""Writes composed triplets of pictograms in the official CIRR layout, as the reader of CIRR reads it."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random

from PIL import Image

from contextjax.threads import available_cpus
from data_pipelines.datasets.pictograms.captions import caption
from data_pipelines.datasets.pictograms.groups import SPLITS, AllowedScenes, Query, compose_groups
from data_pipelines.datasets.pictograms.names import choose
from data_pipelines.datasets.pictograms.scenes import draw, pictogram_art
from data_pipelines.datasets.pictograms.three_steps import MULTI, compose_three_step_groups
from data_pipelines.datasets.pictograms.written_set import LICENSE_FILE, fingerprint, write_once
from data_pipelines.processes import map_in_processes

VERSION = 2  # of the generator: raise it when the same settings would write something else
TRAIN_CHUNKS = 100  # folders of the training pictures; each is composed on its own, in any process
PICTURE_FOLDERS = {"train": "train", "val": "dev", "test1": "test1", "unseen": "unseen", MULTI: "multi"}
OFFICIAL_VAL_GROUPS, OFFICIAL_VAL_QUERIES = 334, 2000
LICENSE = """The pictograms are Twemoji (https://github.com/jdecked/twemoji),
Copyright 2019 Twitter, Inc and other contributors, licensed under CC-BY 4.0
(https://creativecommons.org/licenses/by/4.0/). They were resized and composed into scenes.
"""
OWN_LICENSE = "The pictograms were taken from a folder of yours: their terms are those of that folder.\n"


def write_cirr(
    folder: str | Path,
    *,
    train_groups: int = 9000,
    val_groups: int = 334,
    test_groups: int = 334,
    unseen_groups: int = 100,
    multi_groups: int = 0,
    seed: int = 0,
    canvas: int = 64,
    pictograms: str | Path | None = None,
    processes: int | None = None,
) -> Path:
    """Writes the data set and returns the folder; does nothing if the same set is there already.

    The bytes depend on the settings alone, not on `processes`.

    Args:
      folder: absent, empty, or written by this function.
      train_groups, val_groups, test_groups, unseen_groups: groups of six scenes in each split.
      multi_groups: at most so many of the split "multi", whose queries ask for three edits each; 0: no such split.
      seed: decides everything that is drawn.
      canvas: side of the pictures in pixels.
      pictograms: a folder of pictures to use instead of Twemoji, each named after what it shows.
      processes: None: one, or one for each available CPU where the set is large. Several are spawned, so scripts need
        `if __name__ == "__main__"`.

    Raises:
      ValueError: settings, names or numbers of pictograms cannot be used, or the folder holds something else.
    """
    counts = {"train": train_groups, "val": val_groups, "test1": test_groups, "unseen": unseen_groups}
    counts |= {MULTI: multi_groups} if multi_groups else {}
    _check(counts, canvas)
    source = str(pictograms) if pictograms else None
    art = pictogram_art(source)
    seen, held_out = choose(art)
    if not held_out:
        raise ValueError("Got no held-out pictogram, but the split 'unseen' needs some: add pictures.")
    settings = {
        "version": VERSION,
        "seed": seed,
        "canvas": canvas,
        "groups": counts,
        "pictograms": "folder" if source else "twemoji",
        "art": fingerprint({name: art[name] for name in (*seen, *held_out)}, end=" "),
        "seen": list(seen),
        "held_out": list(held_out),
    }
    if processes is None:
        processes = available_cpus() if sum(counts.values()) >= 500 else 1
    write = functools.partial(_write, settings=settings, source=source, processes=processes)
    return write_once(Path(folder), settings, write)


def _write(partial: Path, *, settings: Mapping, source: str | None, processes: int) -> None:
    """Writes all files of a data set."""
    for name in (
        *("captions", "image_splits", "image_captions", "scenes", "boxes"),
        *(f"img_raw/{PICTURE_FOLDERS[split]}" for split in settings["groups"]),
    ):
        (partial / name).mkdir(parents=True)
    # The small splits are one chunk each, since no two of their scenes may be equal. Long ones first.
    train = range(min(TRAIN_CHUNKS, settings["groups"]["train"]))
    small = [split for split in settings["groups"] if split != "train"]
    chunks = [*((split, 0) for split in small), *(("train", number) for number in train)]
    work = functools.partial(_write_chunk, partial, settings, source)
    _join(partial, chunks, map_in_processes(work, chunks, processes))
    (partial / LICENSE_FILE).write_text(OWN_LICENSE if source else LICENSE)


def _check(counts: Mapping[str, int], canvas: int) -> None:
    for split, count in counts.items():
        if count < 1:
            raise ValueError(f"Got {count} groups for the split '{split}', expected at least 1: ask for more.")
    if canvas < 16 or canvas % 2:
        raise ValueError(f"Got canvas={canvas}, expected an even number of at least 16 pixels: try 64.")


def _write_chunk(partial: Path, settings: Mapping, source: str | None, chunk: tuple[str, int]) -> dict[str, list[str]]:
    """Draws the pictures of a chunk; returns the JSON members of its files, without the pairs' numbers."""
    split, number = chunk
    groups, name = settings["groups"][split], PICTURE_FOLDERS[split]
    ids = range(number, groups, TRAIN_CHUNKS) if split == "train" else range(groups)
    if split == "train":
        name = f"{name}/{number}"
        (partial / "img_raw" / name).mkdir()
    held_out = tuple(settings["held_out"]) if split == "unseen" else ()
    rng = Random(f"{settings['seed']}/{split}/{number}")
    allowed = AllowedScenes(split, tuple(settings["seen"]), held_out)
    if split == MULTI:
        composed = [*compose_three_step_groups(allowed, rng, count=len(ids))]
        ids = ids[: len(composed)]
    else:
        composed = compose_groups(allowed, rng, count=len(ids), unique=split != "train")
    members: dict[str, list[str]] = {"pairs": [], "paths": [], "captions": [], "scenes": [], "boxes": []}
    for group, (scenes, queries) in zip(ids, composed, strict=True):
        names = [f"{PICTURE_FOLDERS[split]}-{group}-{i // 2}-img{i % 2}" for i in range(len(scenes))]
        members["pairs"] += [_compact(_item(query, group, names)) for query in queries]
        for picture, scene in zip(names, scenes, strict=True):
            pixels = draw(scene, pictogram_art(source), canvas=settings["canvas"])
            _save(Image.fromarray(pixels), partial / "img_raw" / name / f"{picture}.png")
            members["paths"].append(f'"{picture}":"./{name}/{picture}.png"')
            members["captions"].append(_compact({"image": f"{name}/{picture}.png", "caption": caption(scene, rng)}))
            members["boxes"].append(f'"{picture}":{_compact(scene.boxes(settings["canvas"]))}')
            members["scenes"].append(f'"{picture}":{_compact(scene.to_json())}')
    return members


def _save(picture: Image.Image, path: Path) -> None:
    picture.save(path, compress_level=4)  # higher levels take longer than they save


def _item(query: Query, group: int, names: Sequence[str]) -> dict:
    """Returns a query as CIRR's annotation file has it, without its number."""
    target = names[query.target]
    return {
        "reference": names[query.reference],
        "target_hard": target,
        "target_soft": {target: 1.0},
        "caption": query.text,
        "img_set": {
            "id": group,
            "members": names,
            "reference_rank": query.reference,
            "target_rank": query.target,
        },
        "edit": query.kind,
    }


def _compact(value) -> str:
    return json.dumps(value, separators=(",", ":"))


def _join(partial: Path, chunks: Sequence[tuple[str, int]], results: Iterator[dict[str, list[str]]]) -> None:
    """Joins the chunks' members into one file of each kind and split, in the order of the chunks."""
    splits: dict[str, dict[str, list[str]]] = {split: {} for split in (*SPLITS, MULTI)}
    for (split, _), members in zip(chunks, results, strict=True):
        for kind, lines in members.items():
            splits[split].setdefault(kind, []).extend(lines)
    pair_id = 0
    for split, members in splits.items():
        if not members:
            continue
        pairs = members["pairs"]
        if split == "val" and len(members["paths"]) == 6 * OFFICIAL_VAL_GROUPS:
            pairs = pairs[:OFFICIAL_VAL_QUERIES]  # a round number; all pictures stay in the gallery
        numbered = [f'{{"pairid":{pair_id + i},{pair[1:]}' for i, pair in enumerate(pairs)]
        pair_id += len(numbered)
        for path, (start, end), lines in (
            (f"captions/cap.rc2.{split}.json", "[]", numbered),
            (f"image_splits/split.rc2.{split}.json", "{}", members["paths"]),
            (f"image_captions/captions.{split}.json", "[]", members["captions"]),
            (f"scenes/scenes.{split}.json", "{}", members["scenes"]),
            (f"boxes/boxes.{split}.json", "{}", members["boxes"]),
        ):
            (partial / path).write_text(start + ",\n".join(lines) + end + "\n")
