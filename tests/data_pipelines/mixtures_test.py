"""Mixtures: several sets' tables as one, whose samples come as often as their weights say."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from contextjax.tokenizers import train_tokenizer
from contextjax.types import CaptionRecord, ComposedRecord, UserError
from data_pipelines.datasets.cirr import CirrReader
from data_pipelines.loader import batches
from data_pipelines.mixtures import Source, mix, shares_of, source_data
from data_pipelines.ops import ComposedSamples
from data_pipelines.tables import ComposedData, PictureTable, load_split


class Grey:
    """Pictures of one grey each."""

    def __init__(self, first):
        self.first = first

    def __getitem__(self, row):
        import io

        from PIL import Image

        file = io.BytesIO()
        Image.new("RGB", (4, 4), (self.first + row,) * 3).save(file, "PNG")
        return {"image": file.getvalue()}


def table(folder: str, count: int, *, first=0, word="a") -> ComposedData:
    """Pictures p0, p1, ... of the greys `first`, first + 1, ...; `count` records, two of each reference."""
    pictures = count // 2 + 2
    records = tuple(
        ComposedRecord(str(i), f"p{i // 2}", f"{word} {i}", f"p{i // 2 + 1}", subset=(f"p{i // 2 + 1}",))
        for i in range(count)
    )
    ids = [f"p{i}" for i in range(pictures)]
    captions = tuple("" if i % 2 else f"{word} picture {i}" for i in range(pictures))
    return ComposedData("train", PictureTable(Grey(first), ids, size=4), captions, records, Path(folder))


def two(*, weights=(1.0, 1.0), shared=False):
    """6 records of one set and 10 of another, of pictures of its own or of the first one's folder."""
    other = table("y", 10, first=0 if shared else 100, word="b")
    return mix(
        [
            Source("x", Path("x"), table("x", 6), weights[0]),
            Source("y", Path("x" if shared else "y"), other, weights[1]),
        ]
    )


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([f"{w} {i}" for w in "ab" for i in range(10)], vocabulary=300, length=12)


# -------------------------------------------------------------------------------------------------- tables


def test_ids_do_not_collide_and_pictures_stay_with_their_records():
    """Both sets call their pictures p0, p1, ...; every record finds the greys of its own set."""
    mixed = two()
    assert len(mixed.pictures) == len(set(mixed.pictures.ids)) == 5 + 7
    assert len({record.id for record in mixed.records}) == len(mixed.records) == 16
    for begin, grey, source in ((0, 0, mixed.sources[0]), (6, 100, mixed.sources[1])):
        for record, own in zip(mixed.records[begin:], source.data.records, strict=False):
            assert record.id == f"{source.name}/{own.id}" and record.text == own.text
            for name, bare in (
                (record.reference, own.reference),
                (record.target, own.target),
                *zip(record.subset, own.subset, strict=True),
            ):
                picture = mixed.pictures[mixed.pictures.row[name]]
                assert picture.shape == (4, 4, 3) and (picture == grey + int(bare[1:])).all()
    assert mixed.captions[mixed.pictures.row["y/p2"]] == "b picture 2"


def test_sources_of_one_folder_share_their_pictures():
    """By id: each is there once, so that it is one picture to a mask of false negatives."""
    mixed = two(shared=True)
    assert mixed.pictures.ids == [f"x/p{i}" for i in range(7)]
    assert mixed.records[0].reference == mixed.records[6].reference == "x/p0"
    assert mixed.records[0].id != mixed.records[6].id
    assert mixed.captions[0] == "a picture 0"  # the first source that has one
    assert mixed.captions[6] == "b picture 6"


def test_the_same_folder_written_otherwise_is_the_same(tmp_path):
    paths = [tmp_path / "x", tmp_path / "x" / ".." / "x"]
    mixed = mix([Source(name, path, table("x", 6)) for name, path in zip("ab", paths, strict=True)])
    assert len(mixed.pictures) == 5


def test_a_set_that_is_no_mixture_is_its_own_part():
    alone = table("x", 6)
    assert source_data(alone) == (alone,)
    (share,) = shares_of(alone, range(6))
    assert (share.count, share.weight) == (6, 1.0)


def test_what_does_not_mix_is_reported():
    captions = dataclasses.replace(table("y", 2), records=(CaptionRecord("c", "p0", "a picture"),))
    with pytest.raises(UserError, match="CaptionRecords of 'y' with ComposedRecords of 'x'"):
        mix([Source("x", Path("x"), table("x", 6)), Source("y", Path("y"), captions)])
    for weight in (-1.0, 0.0, float("inf"), float("nan")):
        with pytest.raises(UserError, match=r"data.sources.y.weight is"):
            mix([Source("x", Path("x"), table("x", 6)), Source("y", Path("y"), table("y", 2), weight)])


# ------------------------------------------------------------------------------------------------- samples


def samples(tokenizer, mixed, *, modifications=1, **options):
    return ComposedSamples(mixed, tokenizer, modifications=modifications, **options)


@pytest.mark.parametrize("modifications", [1, 2, 3])
def test_every_record_is_in_one_sample_of_its_own_source(tokenizer, modifications):
    """Even where both sources have the same references."""
    for shared in (False, True):
        mixed = two(weights=(1.0, 3.0), shared=shared)
        found = samples(tokenizer, mixed, modifications=modifications)
        rows = [found[i].records for i in range(len(found))]
        assert sorted(np.concatenate(rows).tolist()) == list(range(16))
        assert all(len({int(row) < 6 for row in part}) == 1 for part in rows)
        assert all(len({mixed.records[row].reference for row in part}) == 1 for part in rows)
        assert [share.count for share in found.shares] == ([6, 10] if modifications == 1 else [3, 5])
        assert [share.weight for share in found.shares] == [1.0, 3.0]


def test_batches_mix_sources_and_a_shared_picture_has_one_id(tokenizer):
    mixed = two(shared=True)
    found = samples(tokenizer, mixed)
    (batch,) = batches(found, batch_size=16, steps=1, seed=0)
    assert sorted(batch.records.ravel().tolist()) == list(range(16))
    np.testing.assert_array_equal(batch.references[..., 0, 0, 0], batch.reference_ids)  # the grey is the row here
    np.testing.assert_array_equal(batch.targets[..., 0, 0, 0], batch.target_ids)
    by_record = dict(zip(batch.records[:, 0].tolist(), batch.reference_ids.tolist(), strict=True))
    assert by_record[0] == by_record[1] == by_record[6] == by_record[7] == 0


def test_a_real_folder_twice_is_as_often_as_its_weights_say(tokenizer, pictograms):
    data = load_split(CirrReader(pictograms), pictograms, "train", size=16)
    mixed = mix([Source("first", pictograms, data, 2.0), Source("second", pictograms, data, 0.5)])
    assert len(mixed.pictures) == len(data.pictures) and len(mixed.records) == 2 * len(data.records)
    found = samples(tokenizer, mixed)
    count = len(data.records)
    length = sum(share.per_epoch for share in found.shares)
    assert length == 2 * count + round(count / 2)
    stream = np.concatenate([b.records.ravel() for b in batches(found, batch_size=length, steps=2, seed=3)])
    seen = np.bincount(stream, minlength=2 * count)
    assert (seen[:count] == 4).all() and np.ptp(seen[count:]) <= 1 and seen[count:].sum() == 2 * round(count / 2)


def test_candidate_sets_and_captions_mix_too(pictogram_sets, pictograms):
    """Descriptions of one set that two sources have stay with their source."""
    from data_pipelines.candidate_ops import CandidateSamples, CaptionSamples
    from data_pipelines.datasets.cirr import CirrCaptionsReader
    from data_pipelines.datasets.imagecode import ImageCodeReader
    from data_pipelines.tables import all_texts

    for folder, reader, make, options in (
        (pictogram_sets, ImageCodeReader, CandidateSamples, {"descriptions": 2}),
        (pictograms, CirrCaptionsReader, CaptionSamples, {}),
    ):
        data = load_split(reader(folder), folder, "val", size=16)
        mixed = mix([Source("a", folder, data), Source("b", folder, data, 3.0)])
        words = train_tokenizer(all_texts(data), vocabulary=300, length=40)
        alone, found = make(data, words, **options), make(mixed, words, **options)
        assert [share.count for share in found.shares] == [len(alone)] * 2 and len(found) == 2 * len(alone)
        for i in range(len(alone)):
            rows = found[i + len(alone)].records - len(data.records)
            np.testing.assert_array_equal(found[i].records, alone[i].records)
            np.testing.assert_array_equal(rows, alone[i].records)
            np.testing.assert_array_equal(found[i + len(alone)].pictures[0], alone[i].pictures[0])
