"""What input_speed times: one core's batches beside bare Pillow, loader processes, training steps with and without."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from contextjax.tokenizers import train_tokenizer
from data_pipelines.datasets.cirr import CirrReader
from data_pipelines.loader import batches
from data_pipelines.ops import ComposedSamples
from data_pipelines.tables import all_texts, load_split
from experiments.benchmarks.clock import clocked
from experiments.comparisons import measure

SIZE, LENGTH, VOCABULARY, WARM = 224, 36, 600, 3
KINDS = {
    "JPEG 500x375": ((500, 375), ".jpg"),
    "JPEG 640x480": ((640, 480), ".jpg"),
    "PNG 500x375": ((500, 375), ".png"),
    "PNG 640x480": ((640, 480), ".png"),
}
TARGET = 0.9  # of bare Pillow


def compare(*, pictures: int, batch: int, rounds: int, training_steps: int) -> dict[str, Any]:
    """Timings of every kind of picture; loader processes and training steps on the first kind.

    Args:
      pictures: of each kind.
      batch: references in a batch, each with one target.
      rounds: timings of each.
      training_steps: timed, with the loader and with one batch over and over; 0: none.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folders = {kind: write_cirr(Path(scratch) / kind, kind, count=pictures) for kind in KINDS}
        steps = max(4, -(-4 * pictures // (2 * batch)))
        found: dict[str, Any] = {"one_core": {}, "rounds": rounds, "target": TARGET}
        for kind, folder in folders.items():
            with one_core():
                found["one_core"][kind] = beside_pillow(folder, batch=batch, steps=steps, rounds=rounds)
        first = next(iter(folders.values()))
        found["processes"] = {
            workers: [rate(first, batch=batch, steps=4 * steps, workers=workers) for _ in range(rounds)]
            for workers in (1, 2)
        }
        if training_steps:
            found["training"] = training(first, Path(scratch) / "runs", batch=batch, steps=training_steps)
        return found


def photograph(width: int, height: int, rng: np.random.Generator) -> Image.Image:
    """Smoothed noise of several scales, and grain: a picture that compresses about as photographs do."""
    layers = np.zeros((height, width, 3))
    for cell, strength in ((64, 60), (16, 25), (4, 8)):
        coarse = rng.integers(0, 256, (height // cell + 1, width // cell + 1, 3), np.uint8)
        fine = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        layers += (np.asarray(fine) - 127.5) / 127.5 * strength
    layers += rng.normal(0, 3, layers.shape)
    return Image.fromarray(np.clip(layers + 120, 0, 255).astype(np.uint8))


def write_cirr(folder: Path, kind: str, *, count: int) -> Path:
    """`count` pictures of a kind in CIRR's layout, each asked to become the next one."""
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


def make_samples(folder: Path) -> ComposedSamples:
    """The pictures at 224 x 224 as CLIP reads them, texts tokenised."""
    data = load_split(CirrReader(folder), folder, "train", size=SIZE)
    return ComposedSamples(
        data, train_tokenizer(all_texts(data), vocabulary=VOCABULARY, length=LENGTH), modifications=1
    )


def beside_pillow(folder: Path, *, batch: int, steps: int, rounds: int) -> dict[str, Any]:
    """Seconds a picture, ours and bare Pillow's, in turn."""
    data = load_split(CirrReader(folder), folder, "train", size=SIZE)
    tokenizer = train_tokenizer(all_texts(data), vocabulary=VOCABULARY, length=LENGTH)
    files = [path.read_bytes() for path in CirrReader(folder).pictures("train").values()]

    def ours() -> None:
        samples = ComposedSamples(data, tokenizer, modifications=1)  # tokenises
        for _ in batches(samples, batch_size=batch, steps=steps, seed=0):
            pass

    def bare() -> None:
        for _, file in zip(range(2 * batch * steps), itertools.cycle(files), strict=False):
            bare_pillow(file)

    times = measure.rounds([ours, bare], rounds, seconds=0.0)
    ours_s, bare_s = ([t / (2 * batch * steps) for t in program] for program in times)
    return {
        "seconds": ours_s,
        "pillow_seconds": bare_s,
        "ratio": statistics.median(b / a for a, b in zip(ours_s, bare_s, strict=True)),
        "batches_per_second": 1 / (2 * batch * statistics.median(ours_s)),
        "bytes": round(statistics.mean(map(len, files))),
    }


def bare_pillow(data: bytes) -> Image.Image:
    """Decoding and resizing alone: the short side to 224, nothing cut."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    scale = SIZE / min(image.size)
    return image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.BICUBIC)


def rate(folder: Path, *, batch: int, steps: int, workers: int) -> float:
    """Batches a second of so many loader processes, once they have started."""
    stream = batches(make_samples(folder), batch_size=batch, steps=steps, seed=0, workers=workers)
    for _ in range(2 * workers):  # of each, one it had made before it was asked
        next(stream)
    begin = time.perf_counter()
    return sum(1 for _ in stream) / (time.perf_counter() - begin)


def training(folder: Path, workdir: Path, *, batch: int, steps: int) -> dict[str, Any]:
    """Seconds of training steps fed by the loader, and by one batch over and over: the rest is waiting for data."""
    from configs.base import base
    from experiments.shared.training import train

    config = base()
    config.data.update({
        "folder": str(folder), "batch_size": batch, "text_length": LENGTH, "caption_length": LENGTH,
        "vocabulary": VOCABULARY,
    })  # fmt: skip
    config.model.variant, config.model.query = "S16", "sum"
    config.model.vision.update({"image_size": SIZE})
    config.loss.weights.consistency = 0.0
    config.training.update({"steps": steps + WARM, "checkpoint_every": 10**6, "evaluate_every": 10**6})
    over = lambda stream: itertools.repeat(next(stream), steps + WARM)
    seconds = {}
    for name, change in (("loader", iter), ("one_batch", over)):
        moments: list[float] = []
        train(config.copy_and_resolve_references(), workdir / name, through=clocked(moments, change=change))
        seconds[name] = [b - a for a, b in itertools.pairwise(moments[WARM:])]
    loader, alone = (statistics.median(times) for times in seconds.values())
    return {"seconds": seconds, "wait_share": max(0.0, 1 - alone / loader), "model": "S16 at 224 x 224, sum"}


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Keeps what this process starts meanwhile to its first core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def table(found: Mapping[str, Any]) -> str:
    """Markdown: one core by kind of picture, then loader processes, then the training step."""
    lines = [
        "| one core | KB a picture | ms a picture | bare Pillow, ms | ratio | batches/s |",
        "|---|---|---|---|---|---|",
    ]
    for kind, row in found["one_core"].items():
        ours, bare = (1e3 * statistics.median(row[key]) for key in ("seconds", "pillow_seconds"))
        cells = f"{row['bytes'] / 1e3:.0f} | {ours:.2f} | {bare:.2f} | {row['ratio']:.2f}"
        lines.append(f"| {kind} | {cells} | {row['batches_per_second']:.2f} |")
    one, two = (statistics.median(rates) for rates in found["processes"].values())
    lines += ["", f"Loader processes: {one:.2f} batches/s from 1, {two:.2f} from 2: {two / one:.2f}x."]
    lines.append(f"The target is a ratio of {found['target']}.")
    if "training" in found:
        step = _milliseconds(found["training"]["seconds"])
        share = f"{100 * found['training']['wait_share']:.1f} %"
        lines.append(f"A training step ({found['training']['model']}), in ms: {step}; {share} of it waits for data.")
    return "\n".join(lines)


def _milliseconds(seconds: Mapping[str, Sequence[float]]) -> str:
    loader, alone = (1e3 * statistics.median(times) for times in seconds.values())
    return f"{loader:.0f} with the loader, with one batch over and over {alone:.0f}"
