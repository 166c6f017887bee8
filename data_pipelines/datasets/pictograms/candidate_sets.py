"""Contextual retrieval on pictograms: ten nearly identical scenes and descriptions that pick one.

A set starts from a base scene; its other nine members are the base after one or two small edits.
Which member a description is about is drawn before the set is made and kept through every retry,
so neither the base nor a scene that is easy to describe is the target more often than another:
whoever doesn't read the text guesses at 10 %.

`write_imagecode` writes ImageCoDe's official folder layout.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import hashlib
import io
import json
import multiprocessing
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from contextjax.threads import available_cpus
from data_pipelines.datasets.pictograms.description_reading import FUNCTION_WORDS
from data_pipelines.datasets.pictograms.descriptions import describe, options_about, tell_apart
from data_pipelines.datasets.pictograms.scene import (
    PLACES,
    SIZES,
    Scene,
    Thing,
    draw,
    make_scene,
    share_of,
    twemoji_pictograms,
)
from data_pipelines.datasets.pictograms.vocabulary import choose

CANDIDATES = 10
DESCRIPTIONS = 2  # in a set, each of another target
TRAIN_DESCRIPTIONS = CANDIDATES  # with two, whoever trains on 3,000 sets learns their texts by heart
PAIRS = 5  # short statements that tell a described candidate from one other
SECOND_EDIT_SHARE = 0.35
REPEATED_NAME_SHARE = 0.3  # of the base scenes: two things of one name, to be counted
BASE_THINGS = (2, 3, 3, 3, 4)  # drawn uniformly
RANGES = {"train": (0.0, 0.8), "valid": (0.8, 0.9), "test": (0.9, 1.0)}  # of share_of(names)
SPLITS = (*RANGES, "unseen")
SETTINGS_FILE = "pictograms.json"
FORMAT = 3  # raise it when the same settings give other files
LICENSE = """The pictures in this folder are composed of Twemoji graphics.
Copyright 2020 Twitter, Inc and other contributors.
Licensed under CC-BY 4.0: https://creativecommons.org/licenses/by/4.0/
Changes made: the graphics were resized and placed together on a white canvas.
"""

Accept = Callable[[Scene], bool]  # whether a scene may appear in a split


@dataclasses.dataclass(frozen=True)
class CandidateSet:
    """Ten different scenes and (target index, description) pairs, each target once.

    `base` is the index of the scene that the others were made from (for tests of fairness). `pairs` are short
    statements (right index, wrong index, text), true of the one and false of the other.
    """

    scenes: tuple[Scene, ...]
    descriptions: tuple[tuple[int, str], ...]
    base: int
    pairs: tuple[tuple[int, int, str], ...] = ()


def make_set(
    names: Sequence[str], rng: Random, *, accept: Accept = lambda scene: True, descriptions: int = DESCRIPTIONS
) -> CandidateSet:
    """Draws one candidate set over `names`; every scene in it passes `accept`."""
    roles = rng.sample(range(CANDIDATES), descriptions)  # 0 is the base, the others are edits of it
    for _ in range(1000):
        scenes = _similar_scenes(names, accept, rng)
        if scenes is None:
            continue
        order = rng.sample(range(CANDIDATES), CANDIDATES)  # order[index] = role
        shuffled = tuple(scenes[role] for role in order)
        texts, pairs = [], []
        for role in roles:
            index = order.index(role)
            others = shuffled[:index] + shuffled[index + 1 :]
            options = options_about(shuffled[index], others)
            text = describe(shuffled[index], others, rng, options=options)
            if text is None:
                break
            texts.append((index, text))
            for other, statement in tell_apart(options, Random(text), count=PAIRS):
                pairs.append((index, other + (other >= index), statement))
        if len(texts) == len(roles):
            return CandidateSet(shuffled, tuple(texts), order.index(0), tuple(pairs))
    raise ValueError(
        f"Got {len(names)} pictogram names, with which no set of {CANDIDATES} similar scenes could be found: "
        "add pictograms (about 20 are enough)."
    )


def _similar_scenes(names: Sequence[str], accept: Accept, rng: Random) -> list[Scene] | None:
    """A base scene and nine different edits of it, or None when the base has too few."""
    base = _base_scene(names, accept, rng)
    if base is None:
        return None
    # The set speaks of few names: its edits bring in the same one or two newcomers again and again.
    newcomers = rng.sample([name for name in names if name not in base.names], 3)
    scenes = [base]
    for _ in range(20 * CANDIDATES):
        scene = edit(base, newcomers, names, accept, rng)
        if scene is not None and rng.random() < SECOND_EDIT_SHARE:
            scene = edit(scene, newcomers, names, accept, rng)
        if scene is not None and scene not in scenes:
            scenes.append(scene)
            if len(scenes) == CANDIDATES:
                return scenes
    return None


def _base_scene(names: Sequence[str], accept: Accept, rng: Random) -> Scene | None:
    """An accepted scene, one of whose things can be removed: else splits would differ in their edits."""
    for _ in range(2000):
        count = rng.choice(BASE_THINGS)
        chosen = rng.sample(names, count)
        if rng.random() < REPEATED_NAME_SHARE:
            chosen[1] = chosen[0]
        places = rng.sample(range(len(PLACES)), count)
        things = [
            Thing(place, name, rng.choice(SIZES), _jitter(rng)) for place, name in zip(places, chosen, strict=True)
        ]
        scene = make_scene(things)
        if accept(scene) and any(accept(_without(scene, thing)) for thing in things):
            return scene
    return None


def _jitter(rng: Random) -> tuple[float, float]:
    return rng.uniform(-1, 1), rng.uniform(-1, 1)


def _without(scene: Scene, thing: Thing) -> Scene:
    return make_scene(t for t in scene.things if t.place != thing.place)


# --- Edits: scene -> scene, or None where the edit isn't possible ---------------------------------


def edit(scene: Scene, newcomers: Sequence[str], names: Sequence[str], accept: Accept, rng: Random) -> Scene | None:
    """One random small edit. Names that come in are of `newcomers` if the split allows, else of `names`."""
    kind = rng.choice((_move, _move, _resize, _resize, _replace, _replace, _add, _remove, _duplicate, _swap))
    changed = kind(scene, rng, _newcomer_order(scene, newcomers, names, rng), accept)
    return changed if changed is not None and accept(changed) else None


def _newcomer_order(scene: Scene, newcomers: Sequence[str], names: Sequence[str], rng: Random) -> list[str]:
    """Names to try one after another: the set's newcomers first, then any."""
    present = set(scene.names)
    return [n for n in (*rng.sample(newcomers, len(newcomers)), *rng.sample(names, len(names))) if n not in present]


def _free_places(scene: Scene) -> list[int]:
    return [place for place in range(len(PLACES)) if all(t.place != place for t in scene.things)]


def _with(scene: Scene, old: Thing, **changes) -> Scene:
    return make_scene([*(t for t in scene.things if t.place != old.place), dataclasses.replace(old, **changes)])


def _move(scene: Scene, rng: Random, order: list[str], accept: Accept) -> Scene | None:
    free = _free_places(scene)
    return _with(scene, rng.choice(scene.things), place=rng.choice(free)) if free else None


def _resize(scene: Scene, rng: Random, order: list[str], accept: Accept) -> Scene:
    thing = rng.choice(scene.things)
    return _with(scene, thing, size=SIZES[1 - SIZES.index(thing.size)])


def _replace(scene: Scene, rng: Random, order: list[str], accept: Accept) -> Scene | None:
    thing = rng.choice(scene.things)
    return next((s for name in order if accept(s := _with(scene, thing, name=name))), None)


def _add(scene: Scene, rng: Random, order: list[str], accept: Accept) -> Scene | None:
    if not (free := _free_places(scene)):
        return None
    thing = Thing(rng.choice(free), "", rng.choice(SIZES), _jitter(rng))
    added = (make_scene([*scene.things, dataclasses.replace(thing, name=name)]) for name in order)
    return next((s for s in added if accept(s)), None)


def _remove(scene: Scene, rng: Random, order: list[str], accept: Accept) -> Scene | None:
    if len(scene.things) < 2:
        return None
    fewer = [s for thing in scene.things if accept(s := _without(scene, thing))]
    return rng.choice(fewer) if fewer else None


def _duplicate(scene: Scene, rng: Random, order: list[str], accept: Accept) -> Scene | None:
    """Puts a second thing of a name into a free place, or in the place of another thing."""
    made = []
    for thing in scene.things:
        for place in range(len(PLACES)):
            if place != thing.place:
                twin = dataclasses.replace(thing, place=place, jitter=_jitter(rng))
                made.append(make_scene([*(t for t in scene.things if t.place != place), twin]))
    made = [s for s in made if s != scene and accept(s)]
    return rng.choice(made) if made else None


def _swap(scene: Scene, rng: Random, order: list[str], accept: Accept) -> Scene | None:
    if len(scene.things) < 2:
        return None
    one, two = rng.sample(scene.things, 2)
    rest = [t for t in scene.things if t.place not in (one.place, two.place)]
    swapped = dataclasses.replace(one, place=two.place), dataclasses.replace(two, place=one.place)
    return make_scene([*rest, *swapped])


# --- Splits ---------------------------------------------------------------------------------------


def split_accept(split: str, held_out: frozenset[str]) -> Accept:
    """Which scenes a split may show: cut by the combination of names, so none is in two splits."""
    if split == "unseen":
        return lambda scene: any(t.name in held_out for t in scene.things)
    low, high = RANGES[split]
    return lambda scene: low <= share_of(scene.names) < high


def set_of(split: str, index: int, seen: Sequence[str], held_out: Sequence[str], *, seed: int = 0) -> CandidateSet:
    """The `index`-th candidate set of a split: a pure function of its arguments."""
    names = seen
    if split == "unseen":  # a few held-out names of a small folder are shown among the others
        names = held_out if len(held_out) >= 8 else (*held_out, *seen)
    rng = Random(f"imagecode/{seed}/{split}/{index}")
    count = TRAIN_DESCRIPTIONS if split == "train" else DESCRIPTIONS
    return make_set(names, rng, accept=split_accept(split, frozenset(held_out)), descriptions=count)


def set_name(split: str, index: int) -> str:
    """Folder name of a set; "open-images" marks ImageCoDe's static sets."""
    return f"open-images-pictograms_{split}_{index:05d}"


# --- Writing --------------------------------------------------------------------------------------

CHUNK = 25  # sets a worker writes per task


@dataclasses.dataclass(frozen=True)
class _Job:
    """What a worker needs to write any set, apart from the pictograms."""

    folder: str
    seen: tuple[str, ...]
    held_out: tuple[str, ...]
    seed: int
    canvas: int


_worker_pictograms: Mapping[str, Image.Image] = {}


def _start_worker(pictograms: Mapping[str, Image.Image] | None) -> None:
    global _worker_pictograms
    _worker_pictograms = twemoji_pictograms() if pictograms is None else pictograms


def _write_sets(job: _Job, split: str, indices: range) -> list[CandidateSet]:
    """Draws some sets of a split and writes their pictures."""
    sets = []
    for index in indices:
        candidates = set_of(split, index, job.seen, job.held_out, seed=job.seed)
        folder = Path(job.folder) / "image-sets" / set_name(split, index)
        folder.mkdir(parents=True)
        for n, scene in enumerate(candidates.scenes):
            (folder / f"img{n}.jpg").write_bytes(encode(draw(scene, _worker_pictograms, canvas=job.canvas)))
        sets.append(candidates)
    return sets


def encode(picture: np.ndarray) -> bytes:
    """uint8 [H, W, 3] as JPEG bytes."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=92, subsampling=0)
    return buffer.getvalue()


def write_imagecode(
    folder: str | Path,
    *,
    train_sets: int = 3000,
    val_sets: int = 300,
    test_sets: int = 300,
    unseen_sets: int = 100,
    seed: int = 0,
    canvas: int = 64,
    pictograms: Mapping[str, Image.Image] | None = None,
    processes: int | None = None,
) -> Path:
    """Writes the candidate sets in ImageCoDe's official layout and returns the folder.

    image-sets/<set>/img0.jpg … img9.jpg; train_data.json, valid_data.json, test_data.json and
    unseen_data.json as {set: {"<target index>": description}}; test_data_unlabeled.json as
    {set: [description]}; train_simple.json and valid_simple.json as [{directory, pos_idx, neg_idx, caption}];
    <split>_scenes.json as {set: [ten scene graphs]}.

    The same arguments write the same bytes with any number of `processes` (default: one per core).
    A folder that already holds these settings is left as it is; one with others is a ValueError.
    `pictograms` default to Twemoji's; give {name: RGBA picture} for others.
    """
    folder = Path(folder).absolute()
    counts = {"train": train_sets, "valid": val_sets, "test": test_sets, "unseen": unseen_sets}
    seen, held_out = choose(twemoji_pictograms() if pictograms is None else pictograms)
    _check_names((*seen, *held_out))
    settings = _settings(counts, seed, canvas, seen, held_out, pictograms)
    if _already_there(folder, settings):
        return folder
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    sets = _write_pictures(_Job(str(partial), seen, held_out, seed, canvas), counts, pictograms, processes)
    for split, members in sets.items():
        _write_texts(partial, split, members)
    if pictograms is None:
        (partial / "LICENSE-pictograms.txt").write_text(LICENSE, encoding="utf-8")
    (partial / SETTINGS_FILE).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    if folder.exists():  # empty: _already_there has looked
        folder.rmdir()
    partial.rename(folder)
    return folder


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if FUNCTION_WORDS.intersection(name.split()):
            raise ValueError(
                f"Got the pictogram name '{name}', but names may not contain words that the descriptions use "
                "themselves (such as 'one' or 'same'): rename its file."
            )


def _settings(
    counts: Mapping[str, int],
    seed: int,
    canvas: int,
    seen: Sequence[str],
    held_out: Sequence[str],
    pictograms: Mapping[str, Image.Image] | None,
) -> dict:
    """What decides the files: kept beside them, and compared before writing again."""
    return {
        "format": FORMAT,
        "task": "contextual",
        "sets": counts,
        "seed": seed,
        "canvas": canvas,
        "source": "twemoji" if pictograms is None else _fingerprint(pictograms, (*seen, *held_out)),
        "seen": list(seen),
        "held_out": list(held_out),
    }


def _fingerprint(pictograms: Mapping[str, Image.Image], names: Sequence[str]) -> str:
    """Tells one set of pictures from another with the same names."""
    digest = hashlib.blake2b(digest_size=8)
    for name in names:
        digest.update(f"{name} {pictograms[name].size}".encode() + pictograms[name].tobytes())
    return digest.hexdigest()


def _already_there(folder: Path, settings: dict) -> bool:
    """True when the folder was written with these settings, False when it is absent or empty."""
    if not folder.exists() or not any(folder.iterdir()):
        return False
    path = folder / SETTINGS_FILE
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if found == settings:
        return True
    if not found:
        raise ValueError(
            f"Got the folder '{folder}' with files in it but without {SETTINGS_FILE}, expected an empty or absent "
            "folder: choose another one."
        )
    differing = [key for key in settings if found.get(key) != settings[key]]
    raise ValueError(
        f"Got the folder '{folder}' with pictograms of other settings: "
        f"{_short(found, differing)}, expected {_short(settings, differing)}: "
        "choose another folder or delete this one."
    )


def _short(settings: dict, keys: Sequence[str]) -> str:
    text = json.dumps({key: settings.get(key) for key in keys})
    return text if len(text) <= 160 else text[:157] + "…"


def _write_pictures(
    job: _Job, counts: Mapping[str, int], pictograms: Mapping[str, Image.Image] | None, processes: int | None
) -> dict[str, list[CandidateSet]]:
    """Draws and writes every set; returns them by split, in order."""
    tasks = [
        (split, range(start, min(start + CHUNK, count)))
        for split, count in counts.items()
        for start in range(0, count, CHUNK)
    ]
    splits, ranges = [split for split, _ in tasks], [indices for _, indices in tasks]
    work = functools.partial(_write_sets, job)
    processes = processes or available_cpus()
    if processes == 1:
        _start_worker(pictograms)
        written = list(map(work, splits, ranges))
    else:
        with concurrent.futures.ProcessPoolExecutor(
            processes, multiprocessing.get_context("spawn"), _start_worker, (pictograms,)
        ) as pool:
            written = list(pool.map(work, splits, ranges))
    sets: dict[str, list[CandidateSet]] = {split: [] for split in counts}
    for split, members in zip(splits, written, strict=True):
        sets[split] += members
    return sets


def _write_texts(folder: Path, split: str, sets: Sequence[CandidateSet]) -> None:
    """Writes a split's descriptions and scene graphs."""
    names = [set_name(split, index) for index in range(len(sets))]
    labelled = {name: {str(i): text for i, text in s.descriptions} for name, s in zip(names, sets, strict=True)}
    _write_json(folder / f"{split}_data.json", labelled)
    if split == "test":
        _write_json(
            folder / "test_data_unlabeled.json", {name: list(texts.values()) for name, texts in labelled.items()}
        )
    if split in ("train", "valid"):
        keys = ("directory", "pos_idx", "neg_idx", "caption")
        rows = [(name, *pair) for name, s in zip(names, sets, strict=True) for pair in s.pairs]
        _write_json(folder / f"{split}_simple.json", [dict(zip(keys, row, strict=True)) for row in rows])
    graphs = {name: [scene.to_json() for scene in s.scenes] for name, s in zip(names, sets, strict=True)}
    _write_json(folder / f"{split}_scenes.json", graphs)


def _write_json(path: Path, value: dict | list) -> None:
    path.write_text(json.dumps(value) + "\n", encoding="utf-8")
