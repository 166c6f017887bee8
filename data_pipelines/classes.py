"""Folders of classes, as torchvision's ImageFolder has them: a folder a class, within a split or without.

FOLDER/{train,val,test}/CLASS/*.jpg, or FOLDER/CLASS/*.jpg
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from contextjax.images import find_pictures
from contextjax.json_files import read_json
from contextjax.types import UserError, listed

SPLITS = ("train", "val", "test")
LAYOUT = "expected a folder of pictures for each class, as FOLDER/dog/1.jpg, or those within splits, FOLDER/test/dog"


@dataclasses.dataclass(frozen=True)
class ClassPictures:
    """The pictures of a split, and the class of each, a row of `classes`, which are sorted by the folders' names."""

    classes: tuple[str, ...]
    files: tuple[Path, ...]
    labels: np.ndarray  # int32 [N]


def find_splits(folder: Path) -> tuple[str, ...]:
    """Returns the splits of a folder of classes: those of SPLITS that it has; none where classes stand in it directly.

    A folder in which all folders are called as splits are, and hold folders, has splits.
    """
    names = [path.name for path in _folders(folder)]
    splits = tuple(split for split in SPLITS if split in names and _folders(folder / split))
    return splits if splits and not set(names) - set(SPLITS) else ()


def read_classes(folder: Path, split: str = "") -> ClassPictures:
    """Finds the pictures of a split of a folder of classes ("": of the folder, which then has no splits).

    Raises:
      UserError: there is no such split, there are fewer than two classes, or one without a picture.
    """
    known = find_splits(folder)
    if split and split not in known:
        raise UserError(f"{folder} has no split '{split}'; it has {', '.join(known) or 'classes alone'}.")
    if known and not split:
        raise UserError(f"{folder} has the splits {', '.join(known)}; name one of them.")
    place = folder / split if split else folder
    folders = _folders(place)
    if len(folders) < 2:
        raise UserError(f"{place} holds {len(folders)} folders; {LAYOUT}: check the path.")
    pictures_of = [find_pictures(each)[0] for each in folders]
    if empty := [each.name for each, pictures in zip(folders, pictures_of, strict=True) if not pictures]:
        raise UserError(f"{place} has classes without a picture ({listed(empty)}); add pictures or remove them.")
    return ClassPictures(
        classes=tuple(each.name for each in folders),
        files=tuple(each / name for each, pictures in zip(folders, pictures_of, strict=True) for name in pictures),
        labels=np.repeat(np.arange(len(folders), dtype=np.int32), [len(pictures) for pictures in pictures_of]),
    )


def class_names(classes: tuple[str, ...], file: Path | None = None) -> list[str]:
    """Returns the words for each class: what a file {folder: words} says, else the folder's name with spaces.

    Raises:
      UserError: the file lacks a class, or is no such object.
    """
    given: Mapping[str, object] = {} if file is None else read_json(file, dict, layout="names of classes")
    if odd := [name for name in classes if file is not None and not _is_words(given.get(name))]:
        raise UserError(f'{file} has no words for {listed(odd)}; expected {{"{odd[0]}": words}} with every class.')
    return [str(given[name]) if file is not None else " ".join(name.replace("_", " ").split()) for name in classes]


def _is_words(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
