"""What every reader gives: pictures, captions and records of a split."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any, Protocol, TypeVar

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


@dataclasses.dataclass(frozen=True)
class Limits:
    """How much of an annotation file is read."""

    bytes: int
    values: int  # in it: an empty list takes two bytes of a file, and fifty of memory


BENCHMARK = Limits(256_000_000, 20_000_000)
# Pictures with a text each, millions of rows: 5 million captions are some 600 MB and 20 million values (a row's braces
# and commas, those of its text, too), and take 3 GB of memory, about what the worst file within these limits takes.
LONG_LIST = Limits(1_500_000_000, 50_000_000)
MAX_DEPTH = 100


def check_file(path: Path, *, limit: int) -> None:
    """Raises where a path is no regular file of at most `limit` bytes: a pipe or a device would never end.

    Raises:
      OSError: there is nothing, or nothing that may be read.
      UserError: it is something else, or larger.
    """
    try:
        found = path.stat()  # follows links: a folder of links to pictures is as good as one of pictures
    except ValueError as error:
        raise FileNotFoundError(str(error)) from error
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"{path} is no regular file; put a file there or remove it.")
    if found.st_size > limit:
        raise UserError(f"{path} has {found.st_size:,} bytes; at most {limit:,} are read: split or remove it.")


def read_text(path: Path, *, layout: str, limits: Limits = BENCHMARK) -> str:
    """The text of an annotation file, which is UTF-8 with or without a byte order mark.

    Args:
      path: the file.
      layout: whose layout the file belongs to, for the messages.
      limits: how much is read.

    Raises:
      UserError: the file is missing, is no regular file, is larger or holds more than is read, or is not UTF-8.
    """
    try:
        check_file(path, limit=limits.bytes)
        text = path.read_bytes().decode("utf-8-sig")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(
            f"{path} is missing; expected {layout}'s layout: check the folder, or download it again."
        ) from error
    except OSError as error:
        raise UserError(f"{path} can't be read ({error}); expected {layout}'s annotation file.") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 ({error}); expected {layout}'s annotation file: save it as UTF-8."
        ) from error
    values = sum(map(text.count, ",[{"))
    if values > limits.values:
        raise UserError(f"{path} holds some {values:,} values; at most {limits.values:,} are read: split or remove it.")
    return text


def read_json(path: Path, kind: type, *, layout: str, limits: Limits = BENCHMARK) -> Any:
    """The contents of an annotation file.

    Args:
      path: the file.
      kind: dict or list, whichever the file holds.
      layout: whose layout the file belongs to, for the messages.
      limits: how much is read.

    Raises:
      UserError: as read_text; or the file is not JSON as `parse_json` takes it, or holds something else.
    """
    text = read_text(path, layout=layout, limits=limits)
    try:
        found = parse_json(text)
    except ValueError as error:
        raise UserError(
            f"{path} is not JSON ({error}); expected {layout}'s annotation file: download it again."
        ) from error
    if not isinstance(found, kind):
        raise UserError(
            f"{path} holds a {type(found).__name__}; expected {layout}'s {kind.__name__}: download it again."
        )
    return found


def parse_json(text: str) -> Any:
    """The one way in which untrusted JSON is read, from a text of `read_text`.

    Raises:
      ValueError: it is no JSON (NaN isn't), gives keys twice, is nested deeper than MAX_DEPTH, or has halves of
        characters, which no UTF-8 text has.
    """
    twice: list[str] = []

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            counts = Counter(key for key, _ in pairs)
            twice.extend(f"'{key[:60]}' {count} times" for key, count in counts.items() if count > 1)
        return found

    try:
        found = json.loads(text, object_pairs_hook=unique, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep") from error
    if twice:
        raise ValueError(f"it has keys more than once: {', '.join(twice[:10])}{' and more' if len(twice) > 10 else ''}")
    _check_depth(found)
    if re.search(r"\\u[dD][89a-fA-F]", text):
        json.dumps(found, ensure_ascii=False).encode()
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"it holds {name}")


def _check_depth(found: Any) -> None:
    level = [found]
    for _ in range(MAX_DEPTH):
        level = [member for group in level for member in _members(group) if isinstance(member, dict | list)]
        if not level:
            return
    raise ValueError(f"it is nested more than {MAX_DEPTH} deep")


def _members(group: Any) -> Any:
    return group.values() if isinstance(group, dict) else group if isinstance(group, list) else ()


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
