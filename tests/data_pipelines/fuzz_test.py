"""Mutated pictures and annotation files: each is read or refused in a sentence, within bounds of time and memory.

The seeded mutators make the same inputs on every run. `make test-slow` runs many thousands of them, `make test` some.
"""

import copy
import io
import json
import os
import random
import resource
import signal
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contextjax import images
from contextjax.types import UserError
from data_pipelines.datasets import READERS
from data_pipelines.prepare import fingerprint, prepare
from tests.catalogues import product_rows, write_catalogue
from tests.data_pipelines.datasets.karpathy_test import COCO
from tests.data_pipelines.datasets.karpathy_test import write as write_karpathy
from tests.data_pipelines.layouts import LAYOUTS
from tests.data_pipelines.layouts import fashion200k as write_fashion200k
from tests.data_pipelines.layouts import icir as write_icir

SECONDS, MEMORY = 20, 1 << 30  # of one input, on a machine with other work; of all of them


@pytest.fixture
def bounded():
    """bounded(run): runs it, and fails where it takes too long; at the end, where all took too much memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def hangs(*_):
        raise AssertionError(f"it takes more than {SECONDS} seconds")

    def run(function):
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            return function()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    previous = signal.signal(signal.SIGALRM, hangs)
    yield run
    signal.signal(signal.SIGALRM, previous)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MEMORY


# ---------------------------------------------------------------------------------------- pictures


def encode(image, format, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def sample_pictures() -> list[bytes]:
    """One of every kind: colour models, depths, animation, palettes, EXIF, progressive, lossless."""
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (40, 56, 3), np.uint8))
    deep = Image.fromarray(rng.integers(0, 65536, (12, 9), np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    others = [rgb.rotate(angle) for angle in (90, 180)]
    return [
        encode(rgb, "JPEG"),
        encode(rgb, "JPEG", progressive=True, exif=exif),
        encode(rgb.convert("CMYK"), "JPEG"),
        encode(rgb.convert("L"), "JPEG"),
        encode(rgb, "PNG", exif=exif),
        encode(rgb.convert("RGBA"), "PNG"),
        encode(rgb.convert("P"), "PNG", transparency=3),
        encode(rgb.convert("1"), "PNG"),
        encode(deep, "PNG"),
        encode(rgb, "PNG", save_all=True, append_images=others, duration=10),
        encode(rgb, "WEBP"),
        encode(rgb.convert("RGBA"), "WEBP", lossless=True, exif=exif),
        encode(rgb, "WEBP", save_all=True, append_images=others, duration=10),
    ]


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """A few random changes: bits, cuts, repeats, moved and inserted pieces."""
    found = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        start = rng.randrange(len(found) + 1)
        stop = min(len(found), start + rng.choice([1, 2, 4, 30, 300]))
        change = rng.randrange(7)
        if change == 0 and start < len(found):
            found[start] ^= 1 << rng.randrange(8)
        elif change == 1:
            found[start:stop] = bytes(rng.choice([0, 255]) for _ in range(stop - start))
        elif change == 2:
            del found[start:stop]
        elif change == 3:
            found[start:start] = found[start:stop] * rng.choice([1, 2, 50])
        elif change == 4:
            found[start:stop] = rng.randbytes(stop - start)
        elif change == 5 and rng.random() < 0.5:
            del found[start:]
        else:
            found[start:start] = rng.randbytes(rng.choice([1, 4]))
    return bytes(found)


def mend_png(data: bytes) -> bytes:
    """The same with right check sums, so that more than the check sums is tried."""
    found, at = bytearray(data), 8
    while at + 12 <= len(found):
        end = at + 8 + int.from_bytes(found[at : at + 4], "big")
        if end + 4 > len(found):
            break
        found[end : end + 4] = zlib.crc32(found[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(found)


def check_picture(data: bytes) -> bool:
    """Returns whether the picture could be read."""
    try:
        image = images.decode(data, name="it")
    except UserError as error:
        assert str(error).startswith("it ")
        return False
    assert image.mode == "RGB" and images.preprocess(image, 8).shape == (8, 8, 3)
    return True


def fuzz_pictures(bounded, count: int, seed: int) -> None:
    rng, samples, read = random.Random(seed), sample_pictures(), 0
    assert all(map(check_picture, samples))
    for number in range(count):
        data = mutate_bytes(samples[number % len(samples)], rng)
        if data[:4] == b"\x89PNG" and rng.random() < 0.7:
            data = mend_png(data)
        try:
            read += bounded(lambda data=data: check_picture(data))
        except BaseException as error:
            raise AssertionError(f"input {number} of seed {seed}: {error!r}") from error
    assert 0 < read < count


def test_mutated_pictures(bounded):
    fuzz_pictures(bounded, 260, seed=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # as outside the tests, where Pillow's warnings end nothing
@pytest.mark.parametrize("seed", range(1, 5))
def test_many_mutated_pictures(bounded, seed):
    fuzz_pictures(bounded, 1300, seed)


def test_a_small_file_of_many_passes_over_a_large_picture_is_refused(bounded):
    data = encode(Image.new("L", (9000, 9000)), "JPEG", progressive=True)
    start = data.index(b"\xff\xda")
    again = data[:-2] + data[start:-2] * 40 + data[-2:]
    with pytest.raises(UserError, match="it has more progressive passes than are read"):
        bounded(lambda: images.decode(again, name="it"))
    small = encode(Image.new("L", (90, 90)), "JPEG", progressive=True)
    assert check_picture(small)


@pytest.mark.slow
@pytest.mark.parametrize(("format", "mode"), [("PNG", "RGB"), ("PNG", "L"), ("JPEG", "L"), ("WEBP", "RGB")])
def test_the_largest_pictures_take_bounded_memory(format, mode):
    size = (9400, 9400) if format != "WEBP" else (9400, 9000)  # below the cap
    data = encode(Image.new(mode, size), format, **({"compress_level": 1} if format == "PNG" else {}))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert images.preprocess(images.decode(data), 8).shape == (8, 8, 3)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 1.5 * (1 << 30)


# -------------------------------------------------------------------------------- annotation files


def write_captions(folder: Path) -> None:
    picture(folder / "a" / "1.png")
    picture(folder / "2.jpg")
    rows = [{"image": "a/1.png", "caption": "a dög"}, {"image": "./2.jpg", "caption": ["a cat", "two cats"]}]
    (folder / "train.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")


def write_mmvp(folder: Path) -> None:
    lines = ["Question ID,Type,Statement", "1,Colour,a red dög", "2,Colour,a blue dog", '3,"Count",two', "4,Count,one"]
    (folder / "Questions.csv").write_text("\n".join(lines), encoding="utf-8")
    for kind, number in (("Colour", 1), ("Colour", 2), ("Count", 3), ("Count", 4)):
        picture(folder / "MLLM_VLM Images" / kind / f"{number}.jpg")


def write_imagecode(folder: Path) -> None:
    for number in (0, 3, 7):
        picture(folder / "image-sets" / "open-images-1" / f"img{number}.jpg")
    (folder / "train_data.json").write_text(json.dumps({"open-images-1": {"0": "the first dög", "2": "the last"}}))
    (folder / "test_data_unlabeled.json").write_text(json.dumps({"open-images-1": ["the first", "the last"]}))
    row = {"directory": "open-images-1", "pos_idx": 0, "neg_idx": 2, "caption": "the first"}
    (folder / "train_simple.json").write_text(json.dumps([row, {**row, "pos_idx": 1}]))
    (folder / "train_few.json").write_text(json.dumps([{**row, "neg_idx": [2, 1]}]))


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (len(path.name) * 9, 40, 90)).save(path)


def write_cirr_captions(folder: Path) -> None:
    LAYOUTS["cirr"](folder)
    for path in (folder / "image_splits").iterdir():
        split = path.name.split(".")[2]
        rows = [{"image": file, "caption": f"a dög {name}"} for name, file in json.loads(path.read_text()).items()]
        (folder / "image_captions").mkdir(exist_ok=True)
        (folder / "image_captions" / f"captions.{split}.json").write_text(json.dumps(rows))


def write_small_catalogue(folder: Path) -> None:
    rows = [row for row in product_rows(120) if row[2] == "Shirts"]
    write_catalogue(folder / "c", rows)
    for path in (folder / "c").iterdir():
        path.rename(folder / path.name)


def write_catalogue_sets(folder: Path) -> None:
    rows = [(f"{number}2", "Men", "Shirts", "Apparel", "Red", f"Shirt {number}") for number in range(20)]
    write_catalogue(folder / "c", rows)
    for path in (folder / "c").iterdir():
        path.rename(folder / path.name)


SAMPLES = LAYOUTS | {
    "catalogue": write_small_catalogue,
    "catalogue_captions": write_small_catalogue,
    "catalogue_sets": write_catalogue_sets,
    "cirr_captions": write_cirr_captions,
    "captions": write_captions,
    "fashion200k": write_fashion200k,
    "icir": write_icir,
    "imagecode": write_imagecode,
    "karpathy": lambda folder: write_karpathy(folder, COCO),
    "mmvp": write_mmvp,
}  # a new reader is fuzzed as soon as it has a small, sound folder here
HOSTILE = [
    None, True, -1, 0, 10**30, 1.5, "", " ", "..", "../../etc/passwd", "/etc/passwd", "a\0b", "x" * 5000, "C:\\x", [],
    {}, "\ud800", "%s{0}", "0", [[[[[[]]]]]], {"a": {"b": []}}, ["x", 1], "image-sets", ".", "~", "\u202e", "a/" * 400,
]  # fmt: skip


def nodes(value, path=()):
    """Paths of everything in a JSON value."""
    yield path
    for key, member in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield from nodes(member, (*path, key))


def mutate_json(value, rng: random.Random):
    """A few members replaced, removed, repeated or renamed."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice([1, 1, 1, 3])):
        path = rng.choice(list(nodes(value)))
        if not path:
            if rng.random() < 0.1:
                return rng.choice(HOSTILE)
            continue
        parent = value
        for key in path[:-1]:
            parent = parent[key]
        change, key = rng.randrange(5), path[-1]
        if change <= 1:
            parent[key] = copy.deepcopy(rng.choice(HOSTILE))
        elif change == 2:
            del parent[key]
        elif isinstance(parent, dict):
            parent[str(rng.choice(HOSTILE))] = copy.deepcopy(parent[key]) if change == 3 else parent.pop(key)
        else:
            parent.append(copy.deepcopy(parent[key]))
    return value


def mutate_text(data: bytes, rng: random.Random) -> bytes:
    """Damages a whole file: encodings, NaN, keys that come twice, nesting, cuts."""
    text = data.decode()
    return rng.choice([
        lambda: text.encode("utf-16"),
        lambda: text.encode("latin-1", errors="replace"),
        lambda: "\ufeff".encode() + data,
        lambda: "\ufeff\ufeff".encode() + data,
        lambda: text.replace('"', "'").encode(),
        lambda: text.replace(":", ": NaN, ", 1).encode(),
        lambda: text.replace("{", '{"a": 1, "a": 2, ').encode(),
        lambda: b"[" * 100_000,
        lambda: b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        lambda: b"[" * 300 + data + b"]" * 300,
        lambda: data[: rng.randrange(len(data))],
        lambda: data + data,
        lambda: b"",
        lambda: b"\0" * 1000,
        lambda: b"9" * 10_000,
        lambda: mutate_bytes(data, rng),
        lambda: mutate_bytes(data, rng),
        lambda: mutate_bytes(data, rng),
    ])()  # fmt: skip


def read_all(reader_name: str, folder: Path, *, whole: bool) -> bool:
    """Returns whether every split could be read, and, with `whole`, prepared."""
    try:
        reader = READERS[reader_name](folder)
        fingerprint(reader)
        for split in reader.splits:
            known = reader.pictures(split)
            captions, records = reader.captions(split), reader.records(split)
            assert all(isinstance(text, str) for text in (*known, *captions, *captions.values()))
            assert all(isinstance(record.text, str) for record in records)
            if whole:
                prepare(reader, folder, split, bad_pictures="skip")
    except UserError as error:
        assert str(error)
        return False
    return True


def fuzz_annotations(bounded, folder: Path, reader_name: str, *, count: int, whole: int, seed: int) -> None:
    """Every `whole`-th input is prepared, too."""
    rng, read = random.Random(seed), 0
    SAMPLES[reader_name](folder)
    assert read_all(reader_name, folder, whole=True)
    files = READERS[reader_name](folder).annotation_files()
    sound = {path: path.read_bytes() for path in files}
    for number in range(count):
        path = files[number % len(files)]
        data = sound[path]
        if path.suffix == ".json" and rng.random() < 0.7:
            data = json.dumps(mutate_json(json.loads(data), rng)).encode()
        else:
            data = mutate_text(data, rng)
        path.write_bytes(data)
        try:
            read += bounded(lambda n=number: read_all(reader_name, folder, whole=n % whole == 0))
        except BaseException as error:
            raise AssertionError(f"{path.name}, input {number} of seed {seed}: {error!r}; {data[:2000]!r}") from error
        path.write_bytes(sound[path])
    assert 0 < read < count


def test_every_reader_is_fuzzed():
    assert SAMPLES.keys() == READERS.keys()


@pytest.mark.parametrize("reader", sorted(SAMPLES))
def test_mutated_annotations(bounded, tmp_path, reader):
    fuzz_annotations(bounded, tmp_path, reader, count=60, whole=30, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("reader", sorted(SAMPLES))
def test_many_mutated_annotations(bounded, tmp_path, reader, seed):
    fuzz_annotations(bounded, tmp_path, reader, count=400, whole=10, seed=seed)


def test_what_is_no_file_is_reported_at_once(bounded, tmp_path):
    """A pipe would be waited for, a device read for ever."""
    write_captions(tmp_path)
    for make in (os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to(path)):
        for path in (tmp_path / "2.jpg", tmp_path / "train.json"):
            kept = path.read_bytes()
            path.unlink()
            make(path)
            began = time.monotonic()
            assert not bounded(lambda: strict(tmp_path))
            assert time.monotonic() - began < SECONDS
            path.rmdir() if path.is_dir() else path.unlink()
            path.write_bytes(kept)
    assert strict(tmp_path)


def strict(folder: Path) -> bool:
    try:
        prepare(READERS["captions"](folder), folder, "train")
    except UserError:
        return False
    return True
