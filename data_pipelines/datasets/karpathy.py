"""Karpathy's splits of COCO, Flickr30k and Flickr8k: one file of pictures, their captions and their splits.

dataset_{coco,flickr30k,flickr8k}.json: {"images": [{"filename": "COCO_val2014_000000391895.jpg", "filepath": "val2014",
                                                     "split": "test", "sentences": [{"raw": text}]}]}
{train2014,val2014}/COCO_*.jpg, or *.jpg      (pictures; or all of them in one of PLACES)

A picture's id is its path, or its name where the rows have no "filepath". As everywhere in the literature, "restval",
the pictures of COCO's validation set that no split holds, is trained on with "train".
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from contextjax.json_files import LONG_LIST, read_json
from contextjax.types import CaptionRecord, UserError
from data_pipelines import annotations
from data_pipelines.readers import DatasetReader, SplitRecords
from data_pipelines.records import matching

PLACES = ("", "images", "coco", "flickr30k-images", "flickr30k_images", "Flicker8k_Dataset")
SPLITS = ("train", "val", "test")


class KarpathyReader(DatasetReader[CaptionRecord]):
    """Reads a folder with one of Karpathy's files and the pictures that it names."""

    name = "karpathy"
    layout = "Karpathy's splits"
    record_type = CaptionRecord

    def __init__(self, folder: str | Path):
        super().__init__(folder)
        files = matching(self.folder, "dataset*.json")
        if len(files) != 1:
            held = ", ".join(file.name for file in files) or "no dataset_*.json"
            raise UserError(
                f"{self.folder} holds {held}; expected one of Karpathy's files, as dataset_coco.json, and the pictures "
                "beside it: check the path."
            )
        self._file = files[0]

    @functools.cached_property
    def splits(self) -> tuple[str, ...]:  # pyright: ignore  # which splits there are, only the rows say
        """The splits that the file has, those of everybody first."""
        names = dict.fromkeys(split for split, *_ in self._captions[0])
        return tuple(dict.fromkeys((*(name for name in SPLITS if name in names), *names)))

    def annotation_files(self) -> list[Path]:
        """Returns the files that decide what the set holds."""
        return [self._file]

    def pictures(self, split: str) -> dict[str, Path]:
        """Returns picture path -> file, in order of first appearance. `read` reports rows with faults."""
        names = dict.fromkeys(image for of, image, _ in self._captions[0] if of == split)
        first = next(iter(names), "")
        root = next((root for place in PLACES if ((root := self.folder / place) / first).is_file()), self.folder)
        return {image: root / image for image in names}

    def read(self, split: str) -> SplitRecords[CaptionRecord]:
        """Returns all captions of a split in the order of the file; the id is the picture's path and a number.

        Raises:
          UserError: rows lack a split, a picture or a caption, or name a path outside the folder.
        """
        captions, problems = self._captions
        counts: Counter[str] = Counter()
        records = []
        for _, image, text in (caption for caption in captions if caption[0] == split):
            records.append(CaptionRecord(f"{image}/{counts[image]}", image, text))
            counts[image] += 1
        return self._checked(records, problems, self._file, f"captions of split '{split}'")

    @functools.cached_property
    def _captions(self) -> tuple[list[tuple[str, str, str]], list[str]]:
        """(split, picture, caption) of all sound rows, and the problems of the others."""
        content = read_json(self._file, dict, layout=self.layout, limits=LONG_LIST)
        if not isinstance(rows := content.get("images"), list):
            raise UserError(f"{self._file} holds no list of images; expected Karpathy's file: download it again.")
        return annotations.parse(rows, _captions_of, file=self._file.name)


def _captions_of(_: int, row: Any) -> Iterator[tuple[str, str, str]]:
    """Yields (split, picture, caption) of a row. Raises annotations.Fault."""
    split = annotations.text(row, "split")
    image = annotations.path(row, "filename")
    if annotations.has(row, "filepath"):
        image = f"{annotations.path(row, 'filepath')}/{image}"
    sentences = annotations.items(row, "sentences", dict, "a list of sentences")
    if not sentences:
        raise annotations.Fault(f"has no sentence for {image}")
    for sentence in sentences:
        yield "train" if split == "restval" else split, image, annotations.words(sentence, "raw")
