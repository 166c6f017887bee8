"""i-CIR's shards are read as they are published: queries, right pictures, the gallery of each instance, and faults."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from contextjax.evaluation import evaluate_retrieval
from contextjax.types import UserError
from data_pipelines import protocols
from data_pipelines.datasets import READERS
from data_pipelines.prepare import prepare
from data_pipelines.tables import load_split
from tests.data_pipelines.layouts import icir, write_shard

DUCK, LAMP = "duck/icir/database/duck", "lamp/icir/database/lamp"


@pytest.fixture
def folder(tmp_path):
    icir(tmp_path)
    return tmp_path


def read(folder):
    return READERS["icir"](folder)


def test_a_query_has_the_pictures_of_its_instance_with_its_text(folder):
    reader = read(folder)
    assert reader.splits == ("test",)
    records = {(record.reference, record.text): record.truths for record in reader.records("test")}
    assert records == {
        (".query/icir/query/duck/q1.jpg", "on a shelf"): (f"{DUCK}/on_a_shelf/p1.jpg", f"{DUCK}/on_a_shelf/p2.webp"),
        (".query/icir/query/duck/q1.jpg", "in water"): (f"{DUCK}/in_water/p1.jpg",),
        (".query/icir/query/lamp/q1.jpg", "on a shelf"): (f"{LAMP}/on_a_shelf/p1.jpg",),
    }
    pictures = reader.pictures("test")
    assert len(pictures) == 8 and f"{LAMP}/hn/n1.jpg" in pictures
    for name, member in pictures.items():
        assert Image.open(io.BytesIO(member.read_bytes())).size == (12, 9) and member.path.suffix == ".tar", name


def test_the_shards_are_prepared_and_nothing_is_unpacked(folder):
    before = {path for path in folder.rglob("*") if path.is_file()}
    reader = read(folder)
    data = load_split(reader, folder, "test", size=8)
    assert list(data.records) == reader.records("test") and list(data.pictures.ids) == list(reader.pictures("test"))
    after = {path for path in folder.rglob("*") if path.is_file() and "prepared" not in path.parts}
    assert after == before and not list(folder.rglob("*.jpg"))
    first = prepare(read(folder), folder, "test")
    assert not first.notes  # nothing is prepared twice


def test_a_picture_that_changes_in_a_shard_is_prepared_again(folder):
    prepare(read(folder), folder, "test")
    shard = folder / "webdataset/database/database-000001.tar"
    about = [json.loads(m.read_bytes()) for m in _jsons(shard)]
    write_shard(shard, [(f"x{n}", "png", x) for n, x in enumerate(about)])
    notes = prepare(read(folder), folder, "test").notes
    assert "3 pictures of split 'test'" in notes[0] and "prepared again" in notes[0]


def _jsons(shard):
    from data_pipelines.shards import samples

    return [own["json"] for _, own in samples(shard)]


class Fixed:
    """A system whose embeddings are given by the colours of pictures and the texts: what it ranks is known."""

    query = "sum"

    def __init__(self, gallery):
        self.gallery = gallery  # the score of each picture by its brightness

    def encode_gallery(self, images):
        scores = np.asarray([self.gallery[round(float(np.mean(image)), 3)] for image in images])
        return np.stack([scores, np.sqrt(1 - scores**2)], axis=1).astype(np.float32)

    def encode_query(self, images, texts):
        return np.tile(np.asarray([[1.0, 0.0]], np.float32), (len(texts), 1))


def test_the_metrics_are_those_of_the_published_protocol(folder):
    """By hand: a query ranks its own instance alone; precision by the trapezoidal rule; means over both."""
    data = load_split(read(folder), folder, "test", size=8)
    order = [f"{DUCK}/hn/n1.png", f"{LAMP}/hn/n1.jpg", f"{DUCK}/on_a_shelf/p1.jpg", f"{DUCK}/in_water/p1.jpg",
             f"{LAMP}/on_a_shelf/p1.jpg", f"{DUCK}/on_a_shelf/p2.webp"]  # fmt: skip
    gallery = {
        round(float(np.mean(data.pictures[data.pictures.row[name]])), 3): 0.9 - 0.1 * place
        for place, name in enumerate(order)
    }
    result = evaluate_retrieval(Fixed(gallery), protocols.named("icir"), data.records, data.pictures)
    # duck: n1, p1, water, p2: right at ranks 1 and 3: ((0/1 + 1/2) / 2 + (1/3 + 2/4) / 2) / 2; water at 2.
    shelf, water = (1 / 4 + 5 / 12) / 2, (0 + 1 / 3) / 2
    lamp = (0 + 1 / 2) / 2  # n1, p1
    metrics = result.metrics()
    assert metrics["mAP"] == pytest.approx(100 * (shelf + water + lamp) / 3)
    assert metrics["mmAP"] == pytest.approx(100 * ((shelf + water) / 2 + lamp) / 2)
    assert metrics["R@1"] == 0 and metrics["R@5"] == 100 and result.n_gallery == 4
    names = [[data.pictures.ids[row] for row in top if row >= 0] for top in result.top]
    assert [len(top) for top in names] == [4 if r.truths[0].startswith("duck") else 2 for r in data.records]
    assert all(name.startswith("lamp") for top, r in zip(names, data.records, strict=True)
               for name in top if r.truths[0].startswith("lamp"))  # fmt: skip


ABOUT = {"img_path": "icir/database/duck/x.jpg", "text": "on a shelf", "instance": "duck"}


@pytest.mark.parametrize(
    ("samples", "sentence"),
    [
        ([("1", "jpg", {})], "row 0 of database-000000.tar has no instance"),
        ([("1", "jpg", ABOUT | {"instance": "../up"})], "is no path inside the folder"),
        ([("1", "jpg", ABOUT | {"instance": "a/b"})], "for its instance, expected a name"),
        ([("1", "jpg", ABOUT | {"instance": ".query"})], "for its instance, expected a name"),
        ([("1", "jpg", ABOUT | {"img_path": "/etc/passwd"})], "is no path inside the folder"),
        ([("1", "jpg", ABOUT | {"text": 3})], "has '3' for its text, expected a text"),
        ([("1", "jpg", ABOUT | {"text": "x" * (1 << 20)})], "has a json of 1,0"),
        ([("1", "jpg", ABOUT)], "query 0 ('on a shelf') has no right picture of lamp"),
        ([("1", "jpg", ABOUT)], "webdataset/database hold 4 samples, but database_files.csv lists 6"),
    ],
)
def test_faulty_samples_are_listed(folder, samples, sentence):
    write_shard(folder / "webdataset/database/database-000000.tar", samples)
    if "lamp" in sentence:
        write_shard(folder / "webdataset/database/database-000001.tar", samples)
        write_shard(folder / "webdataset/query/query-000000.tar", [("1", "png", ABOUT | {"instance": "lamp"})])
    with pytest.raises(UserError) as error:
        read(folder).read("test")
    assert sentence in str(error.value)


def test_a_sample_without_a_picture_and_a_folder_without_shards_are_refused(folder, tmp_path_factory):
    import tarfile

    with tarfile.open(folder / "webdataset/query/query-000001.tar", "w") as tar:
        member = tarfile.TarInfo("7.json")
        member.size = 2
        tar.addfile(member, io.BytesIO(b"{}"))
    with pytest.raises(UserError, match=r"row 0 of query-000001\.tar \(7\) has json, expected a picture and json"):
        read(folder).read("test")
    with pytest.raises(UserError, match=r"holds no webdataset/query/query-\*\.tar; expected i-CIR's shards"):
        read(tmp_path_factory.mktemp("empty"))
    (folder / "annotations/query_files.csv").unlink()
    with pytest.raises(UserError, match=r"query_files\.csv"):
        read(folder).read("test")


def test_a_damaged_picture_is_named(folder):
    shard = folder / "webdataset/database/database-000000.tar"
    data = shard.read_bytes()
    place = data.index(b"JFIF")
    shard.write_bytes(data[: place - 6] + b"\0" * 60 + data[place + 54 :])
    with pytest.raises(UserError, match=r"duck/icir/database/duck/on_a_shelf/p1\.jpg"):
        prepare(read(folder), folder, "test")
