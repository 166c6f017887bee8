"""What every reader gives: pictures, captions and records of a split."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Protocol, TypeVar

from PIL import Image

from contextjax import images
from contextjax.types import CandidateRecord, CaptionRecord, ComposedRecord, UserError

Record = TypeVar("Record", bound=ComposedRecord | CandidateRecord | CaptionRecord)


@dataclasses.dataclass(frozen=True)
class Crop:
    """A part of a picture file, filled up with black to a square. It is read as a Path is, by `read_bytes`."""

    path: Path
    box: tuple[float, float, float, float]  # left, top, width, height, in pixels of the file
    dilation: float = 0.0  # what is added to the box, as a share of its sides: see `corners`

    def corners(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of what is cut out of a picture of this size.

        As GeneCIS publishes it: the box begins `dilation` times its width further left and its height further up (at
        the picture's edge at most), and is from there `1 + dilation` times its size. So what is added lies left of and
        above the box, unless the edge is in the way; published figures are of such crops.
        """
        left, top, box_width, box_height = self.box
        left, top = max(0, left - self.dilation * box_width), max(0, top - self.dilation * box_height)
        right = min(width, left + (1 + self.dilation) * box_width)
        bottom = min(height, top + (1 + self.dilation) * box_height)
        return round(left), round(top), round(right), round(bottom)

    def read_bytes(self) -> bytes:
        """The square as a PNG, which loses nothing.

        Raises:
          OSError: there is no such file.
          UserError: it is no picture, or the box lies outside it.
        """
        image = images.decode(self.path.read_bytes(), name=f"Picture {self.path}")
        left, top, right, bottom = self.corners(*image.size)
        width, height = right - left, bottom - top
        if width < 1 or height < 1:
            raise UserError(
                f"The box {list(self.box)} holds no pixel of {self.path}, which has {image.width} x {image.height}; "
                "expected left, top, width and height in pixels."
            )
        square = Image.new("RGB", (side := max(width, height), side))
        square.paste(image.crop((left, top, right, bottom)), ((side - width) // 2, (side - height) // 2))
        file = io.BytesIO()
        square.save(file, "PNG", compress_level=1)
        return file.getvalue()

    def __str__(self) -> str:
        return str(self.path)


PictureFile = Path | Crop


class DatasetReader(Protocol[Record]):
    """A folder as its authors publish it, seen as two tables: pictures (id -> file) and records."""

    name: str
    record_type: type[Record]
    splits: tuple[str, ...]

    def annotation_files(self) -> list[Path]:
        """The files that decide what the set holds."""
        ...

    def pictures(self, split: str) -> Mapping[str, PictureFile]:
        """Picture id -> file, or the part of a file that it is."""
        ...

    def captions(self, split: str) -> dict[str, str]:
        """Picture id -> caption; empty where the set has none."""
        ...

    def records(self, split: str) -> list[Record]:
        """All records of a split."""
        ...


def named_pictures(record: ComposedRecord | CandidateRecord | CaptionRecord) -> Iterator[str]:
    """Ids of all pictures that a record names."""
    if isinstance(record, CaptionRecord):
        yield record.image
    elif isinstance(record, CandidateRecord):
        yield from record.images
    else:
        yield record.reference
        yield from (record.target,) if record.target is not None else ()
        yield from record.subset
        yield from record.truths


def stays_inside(path: str) -> bool:
    """Whether a path that an annotation file names is one in its own folder: relative, and never going up."""
    parsed = PureWindowsPath(path)  # which takes both slashes for separators, and knows drives
    return bool(parsed.parts) and not parsed.anchor and ".." not in parsed.parts and "\0" not in path


def list_pictures(*folders: Path) -> dict[str, Path]:
    """Name without its ending -> file, of all pictures of the folders that are there; the first folder wins."""
    found: dict[str, Path] = {}
    for folder in folders:
        if folder.is_dir():
            for path in sorted(folder.iterdir(), reverse=True):  # .png before .jpg
                if path.suffix.lower() in images.SUFFIXES:
                    found.setdefault(path.stem, path)
    return found


def check_problems(problems: Sequence[str], where: str) -> None:
    """Raises one UserError that lists all problems (the first ten by name), or none."""
    if problems:
        more = f"; and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise UserError(
            f"{where} has {len(problems)} problem(s): {'; '.join(problems[:10])}{more}. "
            "Mend or remove them and try again."
        )
