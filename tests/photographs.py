"""Photographs with free licences that scikit-image's wheel holds.

astronaut: Eileen Collins, NASA, public domain. chelsea: a cat, by Stefan van der Walt, CC0. coffee: by Rachel Michetti,
CC0. rocket: a Falcon 9, SpaceX, CC0.
"""

from PIL import Image

NAMES = ("astronaut", "chelsea", "coffee", "rocket")


def photograph(name: str) -> Image.Image:
    """Returns one of NAMES, in RGB, 300 to 640 pixels wide."""
    from skimage import data

    return Image.fromarray(getattr(data, name)())
