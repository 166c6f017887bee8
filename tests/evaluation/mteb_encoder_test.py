"""Tests of MtebEncoder: what it makes of mteb's batches, and mteb's own tasks on data that are made here."""

import importlib.util
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import contextjax
from contextjax.evaluation.mteb_encoder import MtebEncoder
from contextjax.types import UserError

HAS_MTEB = importlib.util.find_spec("mteb") is not None  # extra [mteb]
TEXTS = ["a red thing", "blue", "", "the same in green"]


def pictures(count: int, seed: int = 0) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    return [Image.fromarray(rng.integers(0, 256, (24, 20, 3), dtype=np.uint8)) for _ in range(count)]


@pytest.fixture(scope="module")
def system(tiny_run):
    return contextjax.load(tiny_run)


@pytest.fixture
def encoder(system):
    return MtebEncoder(system)


def test_batches_are_embedded_as_the_system_does(encoder, system):
    images = pictures(4)
    batches = [{"text": TEXTS[:3], "image": images[:3]}, {"text": TEXTS[3:], "image": images[3:]}]
    near = lambda x: pytest.approx(x, abs=1e-6)
    assert encoder.encode(batches, prompt_type="query") == near(system.encode_query(images, TEXTS))
    assert encoder.encode([{"image": images}]) == near(system.encode_gallery(images))
    assert encoder.encode([{"text": TEXTS}]) == near(system.encode_text(TEXTS))
    assert encoder.encode([]).shape == (0, system.projection)


def test_a_corpus_of_texts_and_pictures(encoder, system):
    """A document without a text, or without a picture, is what it has."""
    images = pictures(3)
    batch = {"text": ["", " ", "words"], "image": [*images[:2], None]}
    embeddings = encoder.encode([batch], prompt_type=SimpleNamespace(value="document"))
    assert embeddings[:2] == pytest.approx(system.encode_gallery(images[:2]), abs=1e-6)
    assert embeddings[2:] == pytest.approx(system.encode_text(["words"]), abs=1e-6)


def test_tensors_are_pictures(encoder, system):
    image = pictures(1)
    planes = np.asarray(image[0]).transpose(2, 0, 1)
    expected = pytest.approx(system.encode_gallery(image), abs=1e-6)
    assert encoder.encode([{"image": [planes]}]) == expected
    assert encoder.encode([{"image": [planes.astype(np.float32) / 255]}]) == expected
    assert encoder.encode([{"image": [np.asarray(image[0])]}]) == expected


def test_similarities_are_cosines_and_best_pairs_of_vectors(encoder):
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(3, 5)), rng.normal(size=(4, 5))
    assert encoder.similarity(one, other) == pytest.approx(one @ other.T, abs=1e-5)
    assert encoder.similarity(one[0], other).shape == (1, 4)
    assert encoder.similarity_pairwise(one, other[:3]) == pytest.approx((one * other[:3]).sum(1), abs=1e-5)
    several, more = rng.normal(size=(3, 2, 5)), rng.normal(size=(4, 2, 5))
    best = np.einsum("qid,njd->qnij", several, more).max((2, 3))
    assert encoder.similarity(several, more) == pytest.approx(best, abs=1e-5)


@pytest.mark.parametrize(
    ("batch", "task", "sentence"),
    [
        ({"audio": [0]}, ["audio"], "asks for audio, and this library embeds texts and pictures"),
        ({"text": ["a"], "video": [0]}, ["text", "video"], "asks for video"),
        ({"text": ["a"], "audio": [0]}, [], "asks for audio"),
        ({"id": ["a"]}, ["text"], "has rows of id; expected text, image or both"),
        ({"image": [None]}, ["image"], "neither a picture nor a text"),
    ],
)
def test_other_modalities_end_with_one_sentence(encoder, batch, task, sentence):
    with pytest.raises(UserError, match=sentence):
        encoder.encode([batch], task_metadata=SimpleNamespace(name="Clotho", modalities=task))


def test_a_name_has_two_parts(system):
    with pytest.raises(UserError, match="expects organisation/model"):
        MtebEncoder(system, name="mine")


def composed_task(records, files, name="Made"):
    """Returns a composed-retrieval task of mteb's on records and their pictures: each picture is a document."""
    import mteb
    from datasets import Dataset
    from mteb.abstasks.retrieval import AbsTaskRetrieval

    class MadeTask(AbsTaskRetrieval):
        metadata = mteb.TaskMetadata(
            name=name, description="made here", dataset={"path": "none/none", "revision": "1"}, category="it2i",
            type="Any2AnyRetrieval", eval_splits=["test"], eval_langs=["eng-Latn"], main_score="recall_at_1",
            modalities=["text", "image"], date=None, reference=None, domains=None, task_subtypes=None, license=None,
            annotations_creators=None, dialect=None, sample_creation=None, bibtex_citation=None,
        )  # fmt: skip

        def load_data(self, **_):
            read = {id: Image.open(file).convert("RGB") for id, file in files.items()}
            queries = {
                "id": [record.id for record in records],
                "text": [record.text for record in records],
                "image": [read[record.reference] for record in records],
            }
            corpus = {"id": list(read), "image": list(read.values())}
            split = {
                "queries": Dataset.from_dict(queries),
                "corpus": Dataset.from_dict(corpus),
                "relevant_docs": {record.id: {record.target: 1} for record in records},
                "top_ranked": None,
            }
            self.dataset, self.data_loaded = {"default": {"test": split}}, True

    return MadeTask()


@pytest.mark.skipif(not HAS_MTEB, reason="needs the extra [mteb]")
@pytest.mark.long
def test_a_task_of_composed_retrieval_has_the_recall_of_our_own_evaluation(system, pictograms, tmp_path):
    import mteb

    from contextjax.metrics import rank_gallery
    from data_pipelines.datasets import READERS

    reader = READERS["cirr"](pictograms)
    records, files = reader.records("val"), reader.pictures("val")
    task = composed_task(records, files)
    (result,) = mteb.evaluate(
        MtebEncoder(system), task, cache=mteb.ResultCache(tmp_path), co2_tracker=False
    ).task_results
    ids = list(files)
    truths = np.asarray([[ids.index(record.target)] for record in records])
    queries = system.encode_query([files[record.reference] for record in records], [r.text for r in records])
    ranks = rank_gallery(queries, system.encode_gallery(list(files.values())), truths).ranks[:, 0]
    for k in (1, 3, 5, 10):
        assert result.scores["test"][0][f"recall_at_{k}"] == pytest.approx(np.mean(ranks < k), abs=1e-4)
    (file,) = (tmp_path / "results").rglob("Made.json")
    assert file.parent.name == f"{system.identity}-{system.query}"


@pytest.mark.skipif(not HAS_MTEB, reason="needs the extra [mteb]")
@pytest.mark.long
@pytest.mark.parametrize("kind", ["MockAny2AnyRetrievalT2ITask", "MockAny2AnyRetrievalI2TTask",
                                  "MockImageTextPairClassificationTask", "MockMultiChoiceTask"])  # fmt: skip
def test_mtebs_own_small_tasks_run(encoder, kind):
    import mteb
    from mteb.mocks import mock_tasks

    (result,) = mteb.evaluate(encoder, getattr(mock_tasks, kind)(), cache=None, co2_tracker=False).task_results
    assert 0 <= result.scores["test"][0]["main_score"] <= 1


@pytest.mark.skipif(not HAS_MTEB, reason="needs the extra [mteb]")
@pytest.mark.long
def test_metadata_claims_nothing_unknown(encoder, system):
    meta = encoder.mteb_model_meta
    assert (meta.name, meta.embed_dim, meta.license, meta.training_datasets) == (
        "contextjax/fusion",
        system.projection,
        None,
        None,
    )
    assert meta.modalities == ["text", "image"] and meta.revision == f"{system.identity}-fusion"
