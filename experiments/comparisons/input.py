"""The speed of the input: files to uint8 batches beside Pillow's bare decoding and resizing, and what a step waits.

python -m experiments.comparisons input [--pairs=5] [--pictures=64] [--steps=20] [--output=results/input_speed.json]

All pictures are synthetic: smoothed noise with grain, as large and about as large in bytes as photographs. Bare Pillow
opens, converts to RGB and resizes the same bytes from memory, on the same single core and in the same rounds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from contextjax.tokenizers import train_tokenizer
from data_pipelines.datasets.cirr import CirrReader
from data_pipelines.loader import batches
from data_pipelines.ops import ComposedSamples
from data_pipelines.tables import all_texts, load_split
from experiments.comparisons.harness import Table, alternate, option, ratio

SIZE, LENGTH, VOCABULARY = 224, 36, 600
KINDS = {
    "JPEG 500x375": ((500, 375), ".jpg"),
    "JPEG 640x480": ((640, 480), ".jpg"),
    "PNG 500x375": ((500, 375), ".png"),
    "PNG 640x480": ((640, 480), ".png"),
}
TARGET = 0.9  # of bare Pillow
PACKAGES = ("PIL",)
NOTES = {"one core": "seconds are of a picture", "training": "a step of S16 at 224 x 224, sum; waits: a share of it"}


@dataclasses.dataclass(frozen=True)
class Options:
    """Flags of the case."""

    pairs: int = option(5, "Rounds: a timing of each.", lower_bound=1)
    pictures: int = option(64, "Pictures of each kind.", lower_bound=8)
    batch: int = option(16, "References in a batch, each with its target.", lower_bound=1)
    steps: int = option(20, "Training steps timed; 0: none.", lower_bound=0)


def compare(options: Options) -> dict[str, Table]:
    """Returns "one core" by kind of picture, "processes" of the loader, "training", and "ratios".

    Loader processes and training steps read the first kind.
    """
    batch, tables = options.batch, {"one core": {}, "ratios": {}}
    with tempfile.TemporaryDirectory() as scratch:
        folders = {kind: write_cirr(Path(scratch) / kind, kind, count=options.pictures) for kind in KINDS}
        steps = max(4, -(-4 * options.pictures // (2 * batch)))
        for kind, folder in folders.items():
            with one_core():
                row = beside_pillow(folder, batch=batch, steps=steps, pairs=options.pairs)
            tables["one core"][kind] = row
            tables["ratios"][f"Pillow / ours, {kind}"] = ratio(row["Pillow, seconds"], row["seconds"])
            tables["ratios"][f"Pillow / ours, {kind}"]["target"] = TARGET
        first = next(iter(folders.values()))
        rates = [
            [rate(first, batch=batch, steps=4 * steps, workers=workers) for _ in range(options.pairs)]
            for workers in (1, 2)
        ]
        tables["processes"] = {str(n + 1): {"batches/s": rounds} for n, rounds in enumerate(rates)}
        tables["ratios"]["2 processes / 1"] = ratio(rates[1], rates[0])
        if options.steps:
            tables["training"] = training(first, Path(scratch) / "runs", batch=batch, steps=options.steps)
    return tables


def photograph(width: int, height: int, rng: np.random.Generator) -> Image.Image:
    """Returns smoothed noise of several scales, and grain: a picture that compresses about as photographs do."""
    layers = np.zeros((height, width, 3))
    for cell, strength in ((64, 60), (16, 25), (4, 8)):
        coarse = rng.integers(0, 256, (height // cell + 1, width // cell + 1, 3), np.uint8)
        fine = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        layers += (np.asarray(fine) - 127.5) / 127.5 * strength
    layers += rng.normal(0, 3, layers.shape)
    return Image.fromarray(np.clip(layers + 120, 0, 255).astype(np.uint8))


def write_cirr(folder: Path, kind: str, *, count: int) -> Path:
    """Writes `count` pictures of a kind in CIRR's layout, each with a text that leads to the next one."""
    (width, height), suffix = KINDS[kind]
    rng = np.random.default_rng(0)
    for split, number in (("train", count), ("val", 8)):
        names = [f"{split}-{i}" for i in range(number)]
        files = {name: f"{split}/{name}{suffix}" for name in names}
        for file in files.values():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            photograph(width, height, rng).save(folder / file, quality=90)
        pairs = [
            {"pairid": i, "reference": name, "target_hard": names[i - 1], "caption": f"make it {i} shades bluer",
             "img_set": {"members": names[:2]}}
            for i, name in enumerate(names)
        ]  # fmt: skip
        for file, content in ((f"captions/cap.rc2.{split}", pairs), (f"image_splits/split.rc2.{split}", files)):
            path = folder / f"{file}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(content), encoding="utf-8")
    return folder


def load_samples(folder: Path) -> tuple[Any, Any]:
    """Returns the pictures at 224 x 224 as CLIP reads them, and a tokenizer of the texts."""
    data = load_split(CirrReader(folder), folder, "train", size=SIZE)
    return data, train_tokenizer(all_texts(data), vocabulary=VOCABULARY, length=LENGTH)


def beside_pillow(folder: Path, *, batch: int, steps: int, pairs: int) -> dict[str, Any]:
    """Returns seconds a picture, ours and bare Pillow's, in turn."""
    data, tokenizer = load_samples(folder)
    files = [path.read_bytes() for path in CirrReader(folder).pictures("train").values()]
    count = 2 * batch * steps

    def ours() -> None:
        samples = ComposedSamples(data, tokenizer, modifications=1)  # tokenises
        for _ in batches(samples, batch_size=batch, steps=steps, seed=0):
            pass

    def bare() -> None:
        for file in itertools.islice(itertools.cycle(files), count):
            bare_pillow(file)

    times = alternate({"ours": ours, "bare": bare}, pairs)
    seconds, pillow = ([t / count for t in times[name]] for name in ("ours", "bare"))
    return {
        "seconds": seconds,
        "Pillow, seconds": pillow,
        "batches/s": 1 / (2 * batch * statistics.median(seconds)),
        "bytes a picture": round(statistics.mean(map(len, files))),
    }


def bare_pillow(data: bytes) -> Image.Image:
    """Decodes and resizes alone: the short side to 224, nothing cut."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    scale = SIZE / min(image.size)
    return image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.BICUBIC)


def rate(folder: Path, *, batch: int, steps: int, workers: int) -> float:
    """Returns batches a second of so many loader processes, once they have started."""
    samples = ComposedSamples(*load_samples(folder), modifications=1)
    stream = batches(samples, batch_size=batch, steps=steps, seed=0, workers=workers)
    for _ in range(2 * workers):  # each process has made one batch before it was asked
        next(stream)
    begin = time.perf_counter()
    return sum(1 for _ in stream) / (time.perf_counter() - begin)


def training(folder: Path, workdir: Path, *, batch: int, steps: int) -> Table:
    """Returns seconds of training steps fed by the loader, and the share of a step that waits for data."""
    from configs.base import base
    from experiments.benchmarks import runs

    config = base()
    config.data.update({
        "folder": str(folder), "batch_size": batch, "text_length": LENGTH, "caption_length": LENGTH,
        "vocabulary": VOCABULARY,
    })  # fmt: skip
    config.model.variant, config.model.query = "S16", "sum"
    config.model.vision.update({"image_size": SIZE})
    config.loss.weights.consistency = 0.0
    timing = runs.training(config, steps=steps, real=True, workdir=workdir)
    return {"loader": {"seconds": timing.seconds, "waits": timing.data_wait}}


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Restricts this process, and all that it starts in the block, to its first core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
