"""Cached features: what the system says of every description, encoded once."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import contextjax
from contextjax.tokenizers import train_tokenizer
from contextjax.types import FeatureBatch, UserError
from data_pipelines import features
from data_pipelines.candidate_ops import CandidateSamples
from data_pipelines.datasets.cirr import CirrReader
from data_pipelines.datasets.imagecode import ImageCodeReader
from data_pipelines.features import FeatureSamples, cached_features, cached_pairs
from data_pipelines.loader import batches
from data_pipelines.ops import ComposedSamples
from data_pipelines.tables import all_texts, load_split
from tests.models.context_blip_test import random_params, run, small_model

SIZE = 16


class Counting:
    """A system that remembers how many sets it was asked for at a time."""

    def __init__(self, system, fingerprint="abc-3"):
        self._system, self.fingerprint = system, fingerprint
        self.asked = []

    def set_features(self, sets, texts):
        self.asked.append(len(sets))
        return self._system.set_features(sets, texts)


@pytest.fixture(scope="module")
def data(pictogram_sets):
    """Two sets of ten, two descriptions each."""
    return load_split(ImageCodeReader(pictogram_sets), pictogram_sets, "val", size=SIZE)


@pytest.fixture(scope="module")
def system(data):
    tokenizer = train_tokenizer(all_texts(data), vocabulary=300, length=24)
    config = small_model(masking="none", selection="both").config
    text = dataclasses.replace(config.blip.text, vocabulary=tokenizer.vocabulary, positions=24)
    model = small_model(masking="none", selection="both")
    blip = dataclasses.replace(config.blip, text=text)
    model = model.clone(config=dataclasses.replace(config, blip=blip))
    return contextjax.System(model, random_params(model), tokenizer, fingerprint="abc-3")


def samples_of(system, data, **options):
    return CandidateSamples(data, system.tokenizer, **options)


@pytest.fixture(scope="module")
def cached(system, data, tmp_path_factory):
    """(the table, the file it is in, how often the system was asked)."""
    path, counting = tmp_path_factory.mktemp("features") / "features.safetensors", Counting(system)
    return cached_features(counting, samples_of(system, data), data, path), path, counting.asked


def assert_same(found, expected):
    for name, a, b in zip(FeatureBatch._fields, found, expected, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.mark.long
def test_rows_are_what_the_system_says_of_each_description(system, data, cached):
    table, *_ = cached
    assert table.features.shape == (4, 10, 24) and table.base.shape == (4, 10)
    for row, record in enumerate(data.records):
        pictures = [data.pictures[data.pictures.row[name]] for name in record.images]
        found, base, _ = system.set_features([pictures], [record.text])
        np.testing.assert_allclose(table.features[row], found[0], atol=1e-5)
        np.testing.assert_allclose(table.base[row], base[0], atol=1e-4)
        assert table.target[row] == record.target and table.ordered[row] == (record.kind == "video")
    assert table.valid.all() and table.records.tolist() == [0, 1, 2, 3]
    assert np.abs(np.diff(table.features[0], axis=0)).max() > 1e-3  # of different pictures


def test_it_scores_as_from_the_pictures(system, data, cached):
    table, *_ = cached
    sets = [[data.pictures[data.pictures.row[name]] for name in record.images] for record in data.records]
    expected = system.score_sets(sets, [record.text for record in data.records], table.ordered)
    arrays = (table.features, table.base, table.valid, table.ordered, table.text)
    found = run(system.model, system.params, "select", *map(jnp.asarray, arrays))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_same_system_is_asked_once(system, data, cached):
    table, path, asked = cached
    assert asked == [4] and sorted(p.name for p in path.parent.iterdir()) == [path.name]
    again = Counting(system)
    assert_same(cached_features(again, samples_of(system, data), data, path), table)
    assert again.asked == []


def test_another_system_or_another_table_is_encoded_again(system, data, cached, tmp_path):
    """Changes the fingerprint, the number of candidates or the records; afterwards the new file is read."""
    table, path, _ = cached
    own = tmp_path / path.name
    own.write_bytes(path.read_bytes())
    fewer = dataclasses.replace(data, records=data.records[1:])
    for counting, samples, split in (
        (Counting(system, "abc-4"), samples_of(system, data), data),
        (Counting(system, "abc-4"), samples_of(system, data, candidates=12), data),
        (Counting(system, "abc-4"), samples_of(system, fewer), fewer),
        (Counting(system), samples_of(system, data), data),
    ):
        found = cached_features(counting, samples, split, own)
        assert counting.asked == [len(split.records)]
        assert_same(cached_features(counting, samples, split, own), found)
        assert len(counting.asked) == 1
    assert_same(found, table)


def test_it_is_encoded_in_chunks(system, data, cached, tmp_path, monkeypatch):
    table, *_ = cached
    monkeypatch.setattr(features, "CHUNK", 3)
    counting = Counting(system)
    found = cached_features(counting, samples_of(system, data), data, tmp_path / "x.safetensors")
    assert counting.asked == [3, 1]
    for a, b in zip(found, table, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_a_small_set_is_filled_up_and_marked(system, data, tmp_path):
    """Sets of fewer than K: real rows as ever, the others are not valid."""
    small = [dataclasses.replace(r, images=r.images[: 6 + n], target=n) for n, r in enumerate(data.records)]
    data = dataclasses.replace(data, records=tuple(small))
    table = cached_features(Counting(system), samples_of(system, data, candidates=10), data, tmp_path / "x.safetensors")
    assert table.valid.sum(-1).tolist() == [6, 7, 8, 9] and table.target.tolist() == [0, 1, 2, 3]
    pictures = [data.pictures[data.pictures.row[name]] for name in small[2].images]
    found, *_ = system.set_features([pictures], [small[2].text])
    np.testing.assert_allclose(table.features[2, :8], found[0], atol=1e-5)
    with pytest.raises(UserError, match=r"has 7 pictures, more than the batch's 6"):
        samples_of(system, data, candidates=6)


def test_a_file_cut_short_is_made_again(system, data, cached, tmp_path):
    table, path, _ = cached
    own = tmp_path / path.name
    for left in (path.read_bytes()[:100], b""):
        own.write_bytes(left)
        counting = Counting(system)
        assert_same(cached_features(counting, samples_of(system, data), data, own), table)
        assert counting.asked == [4]
    save_file(load_file(path), own)  # complete, but without the key of its system
    counting = Counting(system)
    cached_features(counting, samples_of(system, data), data, own)
    assert counting.asked == [4]


def test_a_stream_of_rows_is_that_of_the_table(cached):
    table, *_ = cached
    samples = FeatureSamples(table)
    assert len(samples) == 4 and samples.truncations() == []
    stream = list(batches(samples, batch_size=3, steps=4, seed=0))
    assert sorted(row for batch in stream for row in batch.records.tolist()) == sorted([0, 1, 2, 3] * 3)
    for batch in stream:
        assert isinstance(batch, FeatureBatch)
        assert_same(batch, FeatureBatch(*(column[batch.records] for column in table)))


class Doubling:
    """A system whose features say what they are of; it remembers how many pictures it was asked for."""

    fingerprint, template = "abc-3", "{}"

    def __init__(self):
        self.asked = 0

    def image_features(self, images):
        self.asked += len(images)
        return np.stack([[image.mean(), image.std()] for image in images]).astype(np.float32)

    def text_features(self, texts):
        return np.asarray([[len(text), 1.0] for text in texts], np.float32)


def test_composed_queries_are_pairs_of_features_and_pictures_are_encoded_once(pictograms, tmp_path):
    data = load_split(CirrReader(pictograms), pictograms, "train", size=SIZE)
    tokenizer = train_tokenizer(all_texts(data), vocabulary=300, length=24)
    samples, system = ComposedSamples(data, tokenizer, modifications=1), Doubling()
    path = tmp_path / "features.safetensors"
    pairs = cached_pairs(system, samples, data, path)
    named = {id for record in data.records for id in (record.reference, record.target)}
    assert system.asked == len(named) and len(pairs.records) == len(data.records)
    for row in (0, len(data.records) - 1):
        record = data.records[row]
        of = lambda id: Doubling().image_features([data.pictures[data.pictures.row[id]]])[0]
        np.testing.assert_array_equal(pairs.reference[row], of(record.reference))
        np.testing.assert_array_equal(pairs.target[row], of(record.target))
        assert pairs.text[row, 0] == len(record.text)
    again = cached_pairs(system, samples, data, path)
    assert system.asked == len(named)
    jax.tree.map(np.testing.assert_array_equal, again, pairs)
    batch = FeatureSamples(pairs).collate([2, 0])
    np.testing.assert_array_equal(batch.target, pairs.target[[2, 0]])
