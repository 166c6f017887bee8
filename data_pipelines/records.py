"""Records and the pictures that they name; picture files, crops of them, and listings of folders."""

from __future__ import annotations

import dataclasses
import io
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from contextjax import images
from contextjax.types import CandidateRecord, CaptionRecord, ComposedRecord, UserError, listed
from data_pipelines.shards import Member

AnyRecord = ComposedRecord | CandidateRecord | CaptionRecord
Record = TypeVar("Record", bound=AnyRecord)
PICTURE_FIELDS: Mapping[type, tuple[str, ...]] = {  # the fields of a record that hold ids of pictures
    CaptionRecord: ("image",),
    CandidateRecord: ("images",),
    ComposedRecord: ("reference", "target", "subset", "truths"),
}


@dataclasses.dataclass(frozen=True)
class Crop:
    """A region of a picture file, padded with black to a square. Like a Path it has `read_bytes`.

    Attributes:
      path: the file.
      box: left, top, width and height, in pixels of the file.
      dilation: the share of its sides that is added to the box, see `corners`.
    """

    path: Path
    box: tuple[float, float, float, float]
    dilation: float = 0.0

    def corners(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Returns left, top, right and bottom of the region in a picture of this size, in pixels.

        Follows the code that GeneCIS publishes (Vaze et al. 2023): the box begins `dilation` times its width further
        left and its height further up, at the picture's edge at most, and is from there `1 + dilation` times its size.
        So the added area lies left of and above the box, unless the edge is in the way; published figures are of such
        crops.
        """
        left, top, box_width, box_height = self.box
        left, top = max(0, left - self.dilation * box_width), max(0, top - self.dilation * box_height)
        right = min(width, left + (1 + self.dilation) * box_width)
        bottom = min(height, top + (1 + self.dilation) * box_height)
        return round(left), round(top), round(right), round(bottom)

    def read_bytes(self) -> bytes:
        """Returns the square as a PNG, which loses nothing; see `cut`. Raises an OSError where there is no file."""
        return self.cut(self.path.read_bytes())

    def cut(self, data: bytes) -> bytes:
        """Returns the square of the file's bytes as a PNG.

        Raises:
          UserError: the bytes are no picture, or the box lies outside it.
        """
        image = images.decode(data, name=f"Picture {self.path}")
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


PictureFile = Path | Crop | Member


def whole_file(file: PictureFile) -> Path | Member:
    """Returns the file that holds a picture and no other: that of a crop's picture, and any other as it is."""
    return file.path if isinstance(file, Crop) else file


def named_pictures(record: AnyRecord) -> Iterator[str]:
    """Yields the ids of all pictures that a record names."""
    for field in PICTURE_FIELDS[type(record)]:
        value = getattr(record, field)
        if isinstance(value, str):
            yield value
        elif value is not None:
            yield from value


def with_renamed_pictures(record: Record, rename: Callable[[str], str]) -> Record:
    """Returns the record with another id for each picture that it names."""
    changed: dict[str, Any] = {}
    for field in PICTURE_FIELDS[type(record)]:
        value = getattr(record, field)
        if value is not None:
            changed[field] = rename(value) if isinstance(value, str) else tuple(map(rename, value))
    return dataclasses.replace(record, **changed)


def list_pictures(*folders: Path) -> dict[str, Path]:
    """Returns picture name (without suffix, in NFC) -> file of all existing folders; the first file of a name wins."""
    files: dict[str, Path] = {}
    for folder in folders:
        if folder.is_dir():
            for path in sorted(folder.iterdir(), key=_preference):
                if images.is_picture(path):
                    files.setdefault(unicodedata.normalize("NFC", path.stem), path)
    return files


def _preference(path: Path) -> tuple[int, Path]:
    first = (".png", ".jpg", ".jpeg", ".webp")  # of files that differ in their suffix alone
    return first.index(path.suffix.lower()) if path.suffix.lower() in first else len(first), path


def matching(folder: Path, pattern: str) -> list[Path]:
    """Returns the files of a folder that match a pattern, sorted, without hidden ones, as macOS leaves "._val.json"."""
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))


def check_problems(problems: Sequence[str], where: str) -> None:
    """Checks that there are no problems.

    Raises:
      UserError: there are some; the message lists all of them, or the first ten and how many more there are.
    """
    if problems:
        raise UserError(
            f"{where} has {len(problems)} problem(s): {listed(problems, between='; ')}. "
            "Mend or remove them and try again."
        )
