"""A small catalogue of noise pictures."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = ("Black", "White", "Navy Blue", "Red", "Green", "Pink", "Grey")
DESCRIPTION = {
    "tables": ["styles.csv"],
    "attributes": {"gender": "audience", "articleType": "kind", "baseColour": "colour", "category": "fixed"},
    "title": "name",
}


def write_catalogue(folder: Path, rows: list[tuple[str, ...]], **changes) -> Path:
    """Writes id, gender, articleType, category, baseColour, name, and a picture for each row."""
    (folder / "images").mkdir(parents=True)
    lines = ["id,gender,articleType,category,baseColour,name", *map(",".join, rows)]
    (folder / "styles.csv").write_text("\n".join(lines) + "\n")
    (folder / "catalogue.json").write_text(json.dumps(DESCRIPTION | changes))
    rng = np.random.default_rng(0)
    for id in {row[0] for row in rows}:
        Image.fromarray(rng.integers(0, 256, (20, 15, 3), np.uint8)).save(folder / "images" / f"{id}.jpg")
    return folder


def product_rows(count: int = 240) -> list[tuple[str, ...]]:
    """Returns products that are drawn at random; every split has some of each."""
    rng = np.random.default_rng(1)
    kinds = (("Shirts", "Apparel"), ("Jeans", "Apparel"), ("Watches", "Accessories"))
    rows = []
    for number in range(count):
        kind, category = kinds[rng.integers(3)]
        gender, colour = ("Men", "Women")[rng.integers(2)], COLOURS[rng.integers(len(COLOURS))]
        rows.append((str(1000 + number % 3 + 10 * (number // 3)), gender, kind, category, colour, f"Brand {number}"))
    return rows
