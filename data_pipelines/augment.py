"""Random crops, flips and colours of training pictures: Pillow and numpy on the host, uint8 in, uint8 out.

Pictures come from a PictureTable, square and already at the model's size. So a crop is cut from that resolution and
enlarged again, which is a little softer than the published crop from the original file, and saves a second table.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from contextjax.types import Picture, UserError

AUGMENTATION = 1  # separates these draws from those of the order, whose seed has no third number
GREY = (128, 128, 128)  # where a turned or shifted picture leaves nothing
RATIO = (3 / 4, 4 / 3)
TRIES = 10


@dataclasses.dataclass(frozen=True)
class _Mode:
    scale: tuple[float, float]  # share of the area that a crop keeps
    flip: bool = True
    shared: bool = False  # all pictures of a sample get the same crop and the same flip
    operations: int = 0  # of RandAugment
    first: bool = False  # only the first picture of a sample is changed


MODES: Mapping[str, _Mode | None] = {
    "none": None,
    "light": _Mode((0.7, 1.0)),
    "published": _Mode((0.2, 1.0), operations=2),
    "set": _Mode((0.5, 1.0), flip=False, shared=True),  # which leaves most of a picture
    "reference": _Mode((0.5, 1.0), operations=2, first=True),
}


@dataclasses.dataclass(frozen=True)
class Augment:
    """Changes the pictures of a sample at random.

    Attributes:
      name: "none"; "light", a crop that keeps most of a picture, and a flip, each picture by itself; "published", that
        of both stages of ContextBLIP's paper: crop, flip, RandAugment(2, 5), each picture by itself; "set", one crop
        for all pictures of a sample and no flip, so that they still differ in what they show alone and left stays left;
        "reference", CoVR-2's: crop, flip and RandAugment(2, 5) of the reference alone, the first of a sample.
      scale: smallest and largest share of the area that a crop keeps, instead of the mode's own.
      flip: whether half of the pictures are mirrored, instead of the mode's own. A text that says left or right no
        longer fits such a picture.
    """

    name: str
    scale: tuple[float, float] | None = None
    flip: bool | None = None

    def __post_init__(self):
        if self.name not in MODES:
            raise UserError(f"The augmentation is '{self.name}'; known are {', '.join(MODES)}: choose one of them.")
        if self.scale is not None and not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise UserError(
                f"The scale of crops is {self.scale}; expected shares of the area, 0 < smallest <= largest <= 1."
            )

    def __call__(self, pictures: Sequence[Picture], rng: np.random.Generator) -> list[Picture]:
        """Returns the changed pictures of one sample.

        Args:
          pictures: uint8 [size, size, 3] each.
          rng: the same state gives the same pictures.
        """
        mode = MODES[self.name]
        if mode is None:
            return list(pictures)
        scale, flip = self.scale or mode.scale, mode.flip if self.flip is None else self.flip
        side = len(pictures[0])
        draw = lambda: (crop_box(side, scale, rng), flip and bool(rng.random() < 0.5))
        shared = draw() if mode.shared else None
        changed = []
        for place, picture in enumerate(pictures):
            if mode.first and place:
                changed.append(picture)
                continue
            box, mirrored = shared or draw()
            image = Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC, box=box)
            image = ImageOps.mirror(image) if mirrored else image
            changed.append(np.asarray(rand_augment(image, rng, operations=mode.operations)))
        return changed


def crop_box(side: int, scale: tuple[float, float], rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Draws a region of a square picture: left, top, right, bottom in pixels.

    The share of the area is uniform in `scale`, the logarithm of width over height is uniform in that of RATIO, and the
    place is uniform. Where no such region fits in ten tries, the whole picture is returned.
    """
    for _ in range(TRIES):
        area, ratio = rng.uniform(*scale) * side * side, math.exp(rng.uniform(*np.log(RATIO)))
        width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < width <= side and 0 < height <= side:
            left, top = int(rng.integers(side - width + 1)), int(rng.integers(side - height + 1))
            return left, top, left + width, top + height
    return 0, 0, side, side


def rand_augment(
    image: Image.Image, rng: np.random.Generator, *, operations: int = 2, magnitude: float = 5
) -> Image.Image:
    """RandAugment (Cubuk et al. 2020) with the operations of BLIP's list, each drawn independently and always applied.

    At magnitude 10 of 10 a picture is sheared by 0.3, moved by 10 of 224 pixels, turned by 30 degrees, or its
    brightness or sharpness multiplied by 0.1 or 1.9; at 5 by half as much. The sign is drawn. (The published factor of
    brightness and sharpness is 0.1 + 0.18 * magnitude: at 5 it is 1, and they would do nothing.)
    """
    for _ in range(operations):
        operation = _OPERATIONS[int(rng.integers(len(_OPERATIONS)))]
        image = operation(image, (1 if rng.random() < 0.5 else -1) * magnitude / 10)
    return image


def _affine(image: Image.Image, *matrix: float) -> Image.Image:
    """Transforms a picture; `matrix` maps a place in the result to the place in `image` that is shown there."""
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=GREY)


def _shear_x(image: Image.Image, strength: float) -> Image.Image:
    return _affine(image, 1, 0.3 * strength, -0.15 * strength * image.height, 0, 1, 0)


def _shear_y(image: Image.Image, strength: float) -> Image.Image:
    return _affine(image, 1, 0, 0, 0.3 * strength, 1, -0.15 * strength * image.width)


_OPERATIONS: tuple[Callable[[Image.Image, float], Image.Image], ...] = (
    lambda image, _: image,
    lambda image, _: ImageOps.autocontrast(image),
    lambda image, _: ImageOps.equalize(image),
    lambda image, strength: ImageEnhance.Brightness(image).enhance(1 + 0.9 * strength),
    lambda image, strength: ImageEnhance.Sharpness(image).enhance(1 + 0.9 * strength),
    _shear_x,
    _shear_y,
    lambda image, strength: _affine(image, 1, 0, strength * image.width * 10 / 224, 0, 1, 0),
    lambda image, strength: _affine(image, 1, 0, 0, 0, 1, strength * image.height * 10 / 224),
    lambda image, strength: image.rotate(30 * strength, Image.Resampling.BILINEAR, fillcolor=GREY),
)
