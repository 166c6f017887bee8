"""Writes the pictograms in the official CIRR layout, so that readers of CIRR read them as they are."""

from __future__ import annotations

import functools
import hashlib
import json
import multiprocessing
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from random import Random

from PIL import Image

from contextjax.threads import available_cpus
from data_pipelines.datasets.pictograms.edits import caption
from data_pipelines.datasets.pictograms.groups import SPLITS, Query, Split, compose_groups
from data_pipelines.datasets.pictograms.scene import Scene, draw, folder_pictograms, twemoji_pictograms
from data_pipelines.datasets.pictograms.vocabulary import choose

VERSION = 1  # of the generator: raise it when the same settings would write something else
TRAIN_CHUNKS = 100  # folders of the training pictures; each is composed on its own, in any process
PICTURE_FOLDERS = {"train": "train", "val": "dev", "test1": "test1", "unseen": "unseen"}
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
    seed: int = 0,
    canvas: int = 64,
    pictograms: str | Path | None = None,
    processes: int | None = None,
) -> Path:
    """Writes the data set into `folder` and returns it; does nothing if the same data set is there already.

    The bytes depend on the settings alone, not on `processes` (default: one per core for large data
    sets). `pictograms` is a folder of pictures to use instead of Twemoji, each named after what it
    shows. More than one process are spawned, so scripts need their `if __name__ == "__main__"`.
    """
    folder = Path(folder)
    counts = {"train": train_groups, "val": val_groups, "test1": test_groups, "unseen": unseen_groups}
    _check(counts, canvas)
    art = folder_pictograms(pictograms) if pictograms else twemoji_pictograms()
    seen, held_out = choose(art)
    if not held_out:
        raise ValueError("Got no held-out pictogram, but the split 'unseen' needs some: add pictures.")
    art = {name: art[name] for name in (*seen, *held_out)}
    settings = {
        "version": VERSION,
        "seed": seed,
        "canvas": canvas,
        "groups": counts,
        "pictograms": "folder" if pictograms else "twemoji",
        "art": _fingerprint(art),
        "seen": list(seen),
        "held_out": list(held_out),
    }
    if _is_written(folder, settings):
        return folder
    # Nothing half-written may be taken for a data set: it gets its name when it is complete.
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    _make_folders(partial)
    chunks = list(_chunks(counts))
    write = functools.partial(_write_chunk, partial, settings, str(pictograms) if pictograms else None)
    if processes is None:
        processes = available_cpus() if sum(counts.values()) >= 500 else 1
    if processes == 1:
        _join(partial, chunks, map(write, chunks))
    else:
        with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
            _join(partial, chunks, pool.map(write, chunks))
    (partial / "LICENSE-pictograms.txt").write_text(OWN_LICENSE if pictograms else LICENSE)
    (partial / "pictograms.json").write_text(json.dumps(settings, indent=1) + "\n")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial.rename(folder)
    return folder


def _check(counts: Mapping[str, int], canvas: int) -> None:
    for split, count in counts.items():
        if count < 1:
            raise ValueError(f"Got {count} groups for the split '{split}', expected at least 1: ask for more.")
    if canvas < 16 or canvas % 2:
        raise ValueError(f"Got canvas={canvas}, expected an even number of at least 16 pixels: try 64.")


def _fingerprint(art: Mapping[str, Image.Image]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for name, picture in art.items():
        digest.update(f"{name} {picture.size} ".encode() + picture.tobytes())
    return digest.hexdigest()


def _is_written(folder: Path, settings: dict) -> bool:
    """Whether the folder holds this very data set. Raises ValueError if it holds something else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    path = folder / "pictograms.json"
    found = json.loads(path.read_text()) if path.exists() else None
    if found == settings:
        return True
    if found is None:
        raise ValueError(f"Got the folder {folder}, which is no pictograms data set: choose a new or empty folder.")
    differing = [key for key in settings if found.get(key) != settings[key]]
    got, expected = ({key: kept[key] for key in differing if key in kept} for kept in (found, settings))
    raise ValueError(
        f"Got a pictograms data set in {folder} written with {_short(got)}, expected {_short(expected)}: "
        "use those settings, remove the folder, or choose another one."
    )


def _short(values: dict) -> str:
    return ", ".join(f"{k}={v if len(str(v)) < 100 else str(v)[:97] + '…'}" for k, v in values.items()) or "nothing"


# ---- Chunks: what one process composes and draws in one go


def _chunks(counts: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    # The small splits are one chunk each, for no two of their scenes may be equal. Long ones first.
    for split in SPLITS[1:]:
        yield split, 0
    for chunk in range(min(TRAIN_CHUNKS, counts["train"])):
        yield "train", chunk


def _make_folders(partial: Path) -> None:
    for name in ("captions", "image_splits", "image_captions", "scenes"):
        (partial / name).mkdir(parents=True)
    for name in PICTURE_FOLDERS.values():
        (partial / "img_raw" / name).mkdir(parents=True)


@functools.cache
def _art(source: str | None) -> dict[str, Image.Image]:
    # Once a process.
    return folder_pictograms(source) if source else twemoji_pictograms()


def _write_chunk(partial: Path, settings: dict, source: str | None, chunk: tuple[str, int]) -> dict[str, list[str]]:
    """Draws a chunk's pictures; returns the JSON rows of its tables, without the pairs' numbers."""
    split, number = chunk
    groups, name = settings["groups"][split], PICTURE_FOLDERS[split]
    ids = range(number, groups, TRAIN_CHUNKS) if split == "train" else range(groups)
    if split == "train":
        name = f"{name}/{number}"
        (partial / "img_raw" / name).mkdir()
    held_out = tuple(settings["held_out"]) if split == "unseen" else ()
    rng = Random(f"{settings['seed']}/{split}/{number}")
    composed = compose_groups(
        Split(split, tuple(settings["seen"]), held_out), rng, count=len(ids), unique=split != "train"
    )
    rows: dict[str, list[str]] = {"pairs": [], "paths": [], "captions": [], "scenes": []}
    for group, (scenes, queries) in zip(ids, composed, strict=True):
        names = [f"{PICTURE_FOLDERS[split]}-{group}-{i // 2}-img{i % 2}" for i in range(len(scenes))]
        rows["pairs"] += [_compact(_item(query, group, names)) for query in queries]
        for picture, scene in zip(names, scenes, strict=True):
            _save(scene, partial / "img_raw" / name / f"{picture}.png", _art(source), settings["canvas"])
            rows["paths"].append(f'"{picture}":"./{name}/{picture}.png"')
            rows["captions"].append(_compact({"image": f"{name}/{picture}.png", "caption": caption(scene, rng)}))
            rows["scenes"].append(f'"{picture}":{_compact(scene.to_json())}')
    return rows


def _save(scene: Scene, path: Path, art: Mapping[str, Image.Image], canvas: int) -> None:
    Image.fromarray(draw(scene, art, canvas=canvas)).save(
        path, compress_level=4
    )  # higher levels take longer than they save


def _item(query: Query, group: int, names: list[str]) -> dict:
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


def _join(partial: Path, chunks: list[tuple[str, int]], results: Iterator[dict[str, list[str]]]) -> None:
    """Joins the chunks' rows into one file a table and split, in the order of the chunks."""
    tables: dict[str, dict[str, list[str]]] = {split: {} for split in SPLITS}
    for (split, _), rows in zip(chunks, results, strict=True):
        for table, lines in rows.items():
            tables[split].setdefault(table, []).extend(lines)
    pair_id = 0
    for split, rows in tables.items():
        pairs = rows["pairs"]
        if split == "val" and len(rows["paths"]) == 6 * OFFICIAL_VAL_GROUPS:
            pairs = pairs[:OFFICIAL_VAL_QUERIES]  # a round number; all pictures stay in the gallery
        numbered = [f'{{"pairid":{pair_id + i},{pair[1:]}' for i, pair in enumerate(pairs)]
        pair_id += len(numbered)
        _write_rows(partial / "captions" / f"cap.rc2.{split}.json", "[", numbered, "]")
        _write_rows(partial / "image_splits" / f"split.rc2.{split}.json", "{", rows["paths"], "}")
        _write_rows(partial / "image_captions" / f"captions.{split}.json", "[", rows["captions"], "]")
        _write_rows(partial / "scenes" / f"scenes.{split}.json", "{", rows["scenes"], "}")


def _write_rows(path: Path, start: str, rows: list[str], end: str) -> None:
    path.write_text(start + ",\n".join(rows) + end + "\n")
