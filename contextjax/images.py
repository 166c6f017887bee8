"""Reads pictures as uint8 [H, W, 3]: decoding, and the preprocessing that CLIP and BLIP were trained with."""

from __future__ import annotations

import functools
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from contextjax.types import Picture, UserError

# Pillow's formats that are read. Left out are those that start other programs (EPS, WMF), that Pillow knows by
# name only (HDF5, MPEG), and those whose files nothing marks, so that any bytes would pass for a picture (TGA, PCX).
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO", "QOI", "SGI")
UPLOADED = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "AVIF")  # accepted by the service
KINDS = "PNG, JPEG, WebP, AVIF, GIF, TIFF or BMP"  # of pictures, as messages name them
SYSTEM_FILES = (".DS_Store", "__MACOSX", "Thumbs.db", "desktop.ini")  # and those that begin with "._"
MAX_BYTES = 256_000_000  # the largest file that is read
MAX_PIXELS = 89_000_000  # checked in the header, against decompression bombs; Pillow's own limit only warns
MAX_ASPECT = 100  # long side to short side: the long side is resized with the short one before it is cut
MAX_SCANS = 16  # passes over MAX_PIXELS: a few bytes of progressive JPEG can ask for thousands
FITS = ("crop", "crop_rounded", "squash", "squash_bilinear", "targetpad", "squarepad")
SQUASHED = {"squash": Image.Resampling.BICUBIC, "squash_bilinear": Image.Resampling.BILINEAR}
PADDED = {"targetpad": 1.25, "squarepad": 1.0}  # long side to short side of a padded picture, at most
TURNS = dict(enumerate(  # of EXIF's orientations, from 2 on
    (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM,
     Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_270, Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_90),
    start=2,
))  # fmt: skip


@functools.cache
def suffixes() -> frozenset[str]:
    """Returns the endings of picture files' names, in lower case: all that Pillow knows of the formats in FORMATS."""
    return frozenset(suffix for suffix, format in Image.registered_extensions().items() if format in FORMATS)


@functools.cache
def _openable(formats: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the formats that this Pillow has a reader of; an MPO is opened as a JPEG."""
    Image.init()
    return tuple(format for format in formats if format in Image.OPEN)


def is_picture(path: Path) -> bool:
    """Returns whether a file is a picture, by its name; ".jfif" and ".tif" are, "._cat.png" of macOS is not."""
    return path.suffix.lower() in suffixes() and not path.name.startswith(".")


def find_pictures(folder: Path) -> tuple[list[str], list[str]]:
    """Finds the picture files of a folder and its subfolders, following links except those to an enclosing folder.

    Returns:
      the pictures' paths within the folder, and those of all other files, folder by folder; both without the files that
      operating systems leave there. A hidden picture (".cat.png") is among the others.
    """
    pictures: list[tuple[str, ...]] = []
    others: list[tuple[str, ...]] = []
    waiting: list[tuple[tuple[str, ...], frozenset[str]]] = [((), frozenset())]
    while waiting:
        parts, around = waiting.pop()
        place = folder.joinpath(*parts)
        real = os.path.realpath(place)
        if real in around:
            continue
        try:
            entries = list(os.scandir(place))
        except OSError:
            others.append(parts)
            continue
        for entry in entries:
            own = (*parts, entry.name)
            if entry.name.startswith("._") or entry.name in SYSTEM_FILES:
                continue
            try:
                if entry.is_dir() and not entry.name.startswith("."):
                    waiting.append((own, around | {real}))
                else:
                    (pictures if is_picture(Path(entry.name)) and entry.is_file() else others).append(own)
            except OSError:  # a link to itself, or a folder without permission
                others.append(own)
    return ["/".join(parts) for parts in sorted(pictures)], ["/".join(parts) for parts in sorted(others)]


def decode(
    data: bytes, *, name: str = "picture", max_pixels: int = MAX_PIXELS, formats: tuple[str, ...] = FORMATS
) -> Image.Image:
    """Decodes the bytes of a picture file to an RGB picture, rotated as its EXIF data says.

    The pixels equal those of Hugging Face's load_image, except for two kinds of picture. Transparency is laid on white,
    as Hugging Face's processors do with a picture object (load_image drops the alpha channel and shows the colour
    under it). 16-bit greys are scaled (Pillow's conversion clips nearly all of them to white). A picture whose EXIF
    data is broken is not rotated.

    Raises:
      UserError: the bytes are no such picture, are incomplete, or hold more pixels or passes than are read.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_openable(formats)) as image:
            width, height = image.size
            if width * height > max_pixels or max(width, height) > MAX_ASPECT * min(width, height):
                raise UserError(
                    f"{name} has {width} x {height} pixels; at most {max_pixels:,} in sides of at most "
                    f"1:{MAX_ASPECT} are read: shrink or remove it."
                )
            if image.format in ("JPEG", "MPO") and width * height * data.count(b"\xff\xda") > MAX_PIXELS * MAX_SCANS:
                raise UserError(
                    f"{name} has more progressive passes than are read; save it as a plain JPEG or remove it."
                )
            transparent, turn = _transparent(image, data), None
            if image.format == "TIFF":  # Pillow turns it while loading, and gives it up where its EXIF data is broken
                turn, vars(image)["load_end"] = _turn(image), lambda: setattr(image, "_size", image.im.size)
            image.load()
            turn = _turn(image) if turn is None else turn
            picture = _to_rgb(image, transparent)
            return picture if turn is None else picture.transpose(turn)
    except (UserError, MemoryError):  # running out of memory is not the picture's fault
        raise
    except Exception as error:  # broken files make Pillow raise nearly anything
        reason = "unknown format" if isinstance(error, UnidentifiedImageError) else error
        raise UserError(
            f"{name} can't be read as a picture ({reason}); expected a whole {KINDS} file: replace or remove it."
        ) from error


def _turn(image: Image.Image) -> Image.Transpose | None:
    """Returns how a picture is to be turned, as its EXIF data says; None: not at all, or the data is broken."""
    try:
        return TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except MemoryError:
        raise
    except Exception:  # a broken file makes Pillow raise nearly anything
        return None


def _transparent(image: Image.Image, data: bytes) -> Image.Image | None:
    """Returns the mask of the pixels of a PNG's transparent colour, where Pillow can't: it has another depth than 8."""
    key, modes = image.info.get("transparency"), ("L", "I;16", "RGB")
    if image.format != "PNG" or key is None or image.mode not in modes or (depth := data[24]) == 8:
        return None
    if image.mode == "L":  # 2 or 4 bits, which Pillow scales to 8
        image.info["transparency"] = key * 255 // (2**depth - 1)
        return None
    del image.info["transparency"]
    if image.mode == "I;16":
        return Image.fromarray(np.asarray(image.copy()) == key)
    with Image.open(io.BytesIO(data)) as low:  # Pillow reads the upper byte of each value, and here the lower one
        low.tile = [tile._replace(args="RGB;16L") for tile in low.tile]
        values = np.asarray(image.copy(), np.uint16) << 8 | np.asarray(low)
    return Image.fromarray((values == np.asarray(key)).all(-1))


def _to_rgb(image: Image.Image, transparent: Image.Image | None = None) -> Image.Image:
    """Returns a picture in RGB, what is transparent on white: its alpha channel or colour, or a mask of such pixels."""
    if image.mode.startswith("I"):  # 16 bits: convert() would clip them to white
        grey = np.asarray(image).astype(np.int64).clip(0, 65535)
        image = Image.fromarray(((grey + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    image = image if image.mode == "RGB" else image.convert("RGB")
    if transparent is not None:
        image.paste((255, 255, 255), mask=transparent)
    return image


def preprocess(image: Image.Image, size: int, *, fit: str = "crop") -> Picture:
    """Resizes a picture (antialiased) as Hugging Face's image processors do.

    Args:
      image: an RGB picture.
      size: height and width of the result in pixels.
      fit: CLIP's "crop" resizes the short side to `size` and cuts out the centre; "crop_rounded" is OpenCLIP's, which
        begins one pixel later where half of what is cut is 1.5, 3.5 and so on; BLIP's and SigLIP's "squash" resizes
        both sides to `size`, whatever the picture's shape, and SigLIP 2's "squash_bilinear" does so bilinearly;
        CLIP4Cir's "targetpad" and "squarepad" first put black beside the short side, until the long one is 1.25 times
        and as long, and go on as "crop_rounded". All others resize bicubically.

    Returns:
      uint8 [size, size, 3].

    Raises:
      UserError: `fit` is none of these.
    """
    if fit not in FITS:
        raise UserError(f"The fit of pictures is '{fit}'; expected one of {', '.join(FITS)}.")
    width, height = image.size
    if (width, height) == (size, size):
        return np.asarray(image)
    if fit in SQUASHED:
        return np.asarray(image.resize((size, size), SQUASHED[fit]))
    if fit in PADDED:
        image = _pad(image, fit, size)
        width, height = image.size
    short = min(width, height)
    # int() rounds the long side down, as the Hugging Face processor does.
    width, height = int(width * size / short), int(height * size / short)
    half = (lambda rest: rest // 2) if fit == "crop" else (lambda rest: round(rest / 2))
    left, top = half(width - size), half(height - size)
    if left:  # Pillow resizes the width, then the height: the second pass is saved for columns that are cut
        image = image.resize((width, image.height), Image.Resampling.BICUBIC).crop((left, 0, left + size, image.height))
        width, left = size, 0
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized.crop((left, top, left + size, top + size)))


def _padding(width: int, height: int, fit: str) -> tuple[int, int]:
    """Returns how many columns are added on the left and on the right, and how many rows above and below."""
    ratio, long = PADDED[fit], max(width, height)
    if long < ratio * min(width, height):
        return 0, 0
    return max(int((long / ratio - width) / 2), 0), max(int((long / ratio - height) / 2), 0)


def _pad(image: Image.Image, fit: str, size: int) -> Image.Image:
    """Returns a picture with black beside its short side; a very long one is shrunk first, which bounds the memory."""
    if max(image.size) ** 2 > MAX_PIXELS:
        scale = 8 * size / max(image.size)
        image = image.resize([max(round(side * scale), 1) for side in image.size], Image.Resampling.BICUBIC)
    (width, height), (columns, rows) = image.size, _padding(*image.size, fit)
    padded = Image.new("RGB", (width + 2 * columns, height + 2 * rows))
    padded.paste(image, (columns, rows))
    return padded


def size_of(path: Path) -> tuple[int, int] | None:
    """Returns the width and height of a picture file as `decode` shows it, by its header; None where it is broken."""
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
            width, height = image.size
            return (height, width) if turned else (width, height)
    except MemoryError:
        raise
    except Exception:  # a broken file makes Pillow raise nearly anything
        return None


def seen(width: int, height: int, *, fit: str = "crop") -> tuple[int, int, int, int]:
    """Returns the box of a picture that `preprocess` keeps, in its own pixels: left, top, right, bottom.

    Of a padded picture it begins above or left of it.
    """
    if fit in SQUASHED:
        return 0, 0, width, height
    columns, rows = _padding(width, height, fit) if fit in PADDED else (0, 0)
    width, height = width + 2 * columns, height + 2 * rows
    short = min(width, height)
    left, top = (width - short) // 2 - columns, (height - short) // 2 - rows
    return left, top, left + short, top + short


def load(source: Any, size: int, *, fit: str = "crop") -> Picture:
    """Returns a preprocessed picture, uint8 [size, size, 3].

    Args:
      source: a path, a PIL picture or a uint8 array [H, W, 3].
      size: height and width of the result in pixels.
      fit: see `preprocess`.

    Raises:
      UserError: the file is missing or unreadable, the array has another type or shape, or there is no such fit.
    """
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[-1] != 3 or not source.size:
            raise UserError(f"A picture is {source.dtype} {list(source.shape)}; expected uint8 [H, W, 3].")
        source = Image.fromarray(source)
    if isinstance(source, Image.Image):
        source.load()  # before its EXIF data is asked for: Pillow turns a TIFF itself
        turn, picture = _turn(source), _to_rgb(source)
        return preprocess(picture if turn is None else picture.transpose(turn), size, fit=fit)
    if not isinstance(source, str | os.PathLike):
        raise UserError(f"A picture is a {type(source).__name__}; expected a path, a PIL picture or an array.")
    path = Path(source)
    if not path.is_file():
        raise UserError(f"There is no picture at {path}; give the path of a {KINDS} file.")
    return preprocess(decode(path.read_bytes(), name=str(path)), size, fit=fit)
