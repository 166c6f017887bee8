"""Reads pictures as uint8 [H, W, 3]: decoding, and the preprocessing that CLIP and BLIP were trained with."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from contextjax.types import Picture, UserError

FORMATS = ("PNG", "JPEG", "WEBP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MAX_BYTES = 256_000_000  # the largest file that is read
MAX_PIXELS = 89_000_000  # checked in the header, against decompression bombs; Pillow's own limit only warns
MAX_ASPECT = 100  # long side to short side: the long side is resized with the short one before it is cut
MAX_SCANS = 16  # passes over MAX_PIXELS: a few bytes of progressive JPEG can ask for thousands
FITS = ("crop", "crop_rounded", "squash")


def decode(data: bytes, *, name: str = "picture", max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decodes PNG, JPEG or WebP bytes to an RGB picture, rotated as its EXIF data says.

    The pixels equal those of Hugging Face's load_image, except for two kinds of picture. Transparency is laid on white,
    as Hugging Face's processors do with a picture object (load_image drops the alpha channel and shows the colour
    under it). 16-bit greys are scaled (Pillow's conversion clips nearly all of them to white).

    Raises:
      UserError: the bytes are no such picture, are incomplete, or hold more pixels or passes than are read.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
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
            ImageOps.exif_transpose(image, in_place=True)  # in place, or upright pictures would be copied too
            return _to_rgb(image)
    except (UserError, MemoryError):  # the picture is not at fault where memory is short
        raise
    except Exception as error:  # broken files make Pillow raise nearly anything
        reason = "unknown format" if isinstance(error, UnidentifiedImageError) else error
        raise UserError(
            f"{name} can't be read as a picture ({reason}); expected a whole PNG, JPEG or WebP file: "
            "replace or remove it."
        ) from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):  # 16 bits: convert() would clip them to white
        return Image.fromarray(((np.asarray(image, np.uint32) + 128) // 257).astype(np.uint8)).convert("RGB")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA"):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def preprocess(image: Image.Image, size: int, *, fit: str = "crop") -> Picture:
    """Resizes a picture (bicubic, antialiased) as Hugging Face's image processors do.

    Args:
      image: an RGB picture.
      size: height and width of the result in pixels.
      fit: CLIP's "crop" resizes the short side to `size` and cuts out the centre; "crop_rounded" is OpenCLIP's, which
        begins one pixel later where half of what is cut is 1.5, 3.5 and so on; BLIP's "squash" resizes both sides to
        `size`, whatever the picture's shape.

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
    if fit == "squash":
        return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))
    short = min(width, height)
    # int() rounds the long side down, as the Hugging Face processor does.
    width, height = int(width * size / short), int(height * size / short)
    half = (lambda rest: round(rest / 2)) if fit == "crop_rounded" else (lambda rest: rest // 2)
    left, top = half(width - size), half(height - size)
    if left:  # Pillow resizes the width, then the height: the second pass is saved for columns that are cut
        image = image.resize((width, image.height), Image.Resampling.BICUBIC).crop((left, 0, left + size, image.height))
        width, left = size, 0
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized.crop((left, top, left + size, top + size)))


def seen(width: int, height: int, *, fit: str = "crop") -> tuple[int, int, int, int]:
    """Returns the box of a picture that `preprocess` keeps, in its own pixels: left, top, right, bottom."""
    if fit == "squash":
        return 0, 0, width, height
    short = min(width, height)
    left, top = (width - short) // 2, (height - short) // 2
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
        return preprocess(_to_rgb(ImageOps.exif_transpose(source)), size, fit=fit)
    path = Path(source)
    if not path.is_file():
        raise UserError(f"There is no picture at {path}; give the path of a PNG, JPEG or WebP file.")
    return preprocess(decode(path.read_bytes(), name=str(path)), size, fit=fit)
