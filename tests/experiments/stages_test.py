"""A recipe in stages, from the command: each begins with the one before, goes on where it stopped, and is a system."""

import json
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest

import contextjax
from contextjax.system import System
from contextjax.tokenizers import TextTokenizer, split_propositions
from contextjax.training.metrics_log import read_metrics
from contextjax.types import UserError
from data_pipelines.datasets.imagecode import ImageCodeReader
from data_pipelines.tables import load_split
from tests.commands import in_own_process, in_process

pytestmark = pytest.mark.long

RECIPE = ["--config=configs/pictogram_sets.py", "--argument=tiny"]


@pytest.fixture(scope="module")
def train(pictograms, pictogram_sets):
    """train(workdir, stages): the recipe's stages on the fixtures' folders."""

    def train(workdir: Path, stages: str, *more: str) -> subprocess.CompletedProcess:
        settings = [
            "data.batch_size=2", "optimizer.name=adamw", "optimizer.warmup_steps=0", "training.steps=2",
            f"1:data.folder={pictograms}", f"2a:data.folder={pictogram_sets}", f"2b:data.folder={pictogram_sets}",
            # Nothing is evaluated on captions: the last stage alone is, while it trains.
            "1:data.val_reader=cirr_captions", f"1:data.val_folder={pictograms}",
            "2a:data.val_reader=cirr_captions", f"2a:data.val_folder={pictograms}",
            f"2b:data.val_folder={pictogram_sets}",
            "2a:optimizer.learning_rate=0.03", "2b:training.steps=3",
        ]  # fmt: skip
        return in_own_process(
            "stages", *RECIPE, f"--workdir={workdir}", f"--stages={stages}",
            *(f"--set={setting}" for setting in (*settings, *more)),
        )  # fmt: skip

    return train


def left_by(workdir: Path) -> dict[str, bytes]:
    """Returns the bytes of the files of training that a finished run must not change."""
    files = [file for name in ("metrics.jsonl", "config.json", "tokenizer.json") for file in workdir.rglob(name)]
    files += [file for file in workdir.rglob("*") if "checkpoints" in file.parts and file.is_file()]
    return {str(file.relative_to(workdir)): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def trained(train, tmp_path_factory):
    """(workdir of all stages, what was there after the first alone, what that said, what the whole command said)."""
    workdir = tmp_path_factory.mktemp("stages") / "run"
    first = train(workdir, "1")
    assert first.returncode == 0, first.stderr
    before = left_by(workdir)
    done = train(workdir, "1,2a,2b")
    assert done.returncode == 0, done.stderr
    return workdir, before, first.stdout, done.stdout


def test_a_finished_stage_is_not_trained_again(trained):
    """The command goes on with what is missing, and nothing of stage 1 changes."""
    workdir, before, first, then = trained
    after = left_by(workdir)
    assert {name: after[name] for name in before} == before and len(before) > 6
    assert all(name.startswith("1/") for name in before)
    for stage, steps in (("1", 2), ("2a", 2), ("2b", 3)):
        losses = [line["loss"] for line in read_metrics(workdir / stage) if "loss" in line]
        assert len(losses) == steps and np.isfinite(losses).all()
    assert [line for line in then.splitlines() if line.startswith("Stage")] == [
        f"Stage {stage}: {workdir / stage}" for stage in ("1", "2a", "2b")
    ]
    assert "step 2/2" in first and then.count("step 2/2") == then.count("step 3/3") == 1


def test_each_stage_begins_with_the_one_before(trained):
    workdir, _, _, then = trained
    starts = {stage: json.loads((workdir / stage / "config.json").read_text())["model"]["start"] for stage in
              ("1", "2a", "2b")}  # fmt: skip
    assert starts == {"1": "", "2a": str(workdir / "1"), "2b": str(workdir / "2a")}
    assert all(f"parameters start from {workdir / stage}" in then for stage in ("1", "2a"))
    tokenizers = {(workdir / stage / "tokenizer.json").read_text() for stage in starts}
    assert len(tokenizers) == 1
    runs = {stage: contextjax.load(workdir / stage).params for stage in starts}
    same = lambda a, b: all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))
    assert set(runs["2b"]) - set(runs["2a"]) == {"context"} and "decoder" not in runs["2a"]
    for name in runs["2a"]:  # all of it is frozen in 2b, and nothing of it in 2a
        assert same(runs["2b"][name], runs["2a"][name]), name
    assert not same(runs["2a"]["blip"], runs["1"]["blip"]) and not same(runs["2a"]["adapter"], runs["1"]["adapter"])


def test_a_stage_is_evaluated(trained):
    workdir, *_ = trained
    done = in_process("evaluate", f"--workdir={workdir / '2b'}")
    assert done.returncode == 0, done.stderr
    result = json.loads((workdir / "2b" / "evaluation.json").read_text())
    assert (result["protocol"], result["query"], result["step"]) == ("imagecode", "selection", 3)
    assert result["n_queries"] == 4 and result["n_gallery"] == 20
    last = read_metrics(workdir / "2b")[-1]
    assert result["metrics"]["accuracy"] == last["val/accuracy"]
    assert set(result["baselines"]) == {"itc", "itm", "sum", "random", "best constant index", "texts of other sets"}
    assert "selection" in done.stdout and "itm (same towers)" in done.stdout


# ------------------------------------------------------------------------------------------- as a system


@pytest.fixture(scope="module")
def systems(trained):
    return {stage: contextjax.load(trained[0] / stage) for stage in ("2a", "2b")}


@pytest.fixture(scope="module")
def sets(pictogram_sets):
    """Two sets of ten pictures and a description of each."""
    data = load_split(ImageCodeReader(pictogram_sets), pictogram_sets, "val", size=64)
    records = data.records[::2]
    pictures = [[data.pictures[data.pictures.row[name]] for name in record.images] for record in records]
    return pictures, [record.text for record in records]


@pytest.mark.parametrize("count", [2, 3, 10])
def test_a_set_of_any_size_is_scored(systems, sets, count):
    """A set is a set: without an order in time, the order of its candidates does not matter."""
    system, (pictures, texts) = systems["2b"], sets
    scores = system.score_candidates(pictures[0][:count], texts[0])
    assert scores.shape == (count,) and scores.dtype == np.float32
    assert np.isfinite(scores).all() and np.ptp(scores) > 1e-3
    order = np.random.default_rng(0).permutation(count)
    shuffled = system.score_candidates([pictures[0][k] for k in order], texts[0])
    np.testing.assert_allclose(shuffled, scores[order], atol=1e-4)


def test_sets_are_scored_beside_others_as_one_by_one(systems, sets):
    """Also with a text that is much shorter, so that by itself it is padded less."""
    system, (pictures, texts) = systems["2b"], sets
    pictures, texts, ordered = [images[:3] for images in pictures], [texts[0], "a dog"], [True, False]
    together = system.score_sets(pictures, texts, ordered)
    for row in range(2):
        alone = system.score_candidates(pictures[row], texts[row], ordered=ordered[row])
        np.testing.assert_allclose(alone, together[row], atol=1e-4)


def test_more_candidates_than_it_was_trained_for_are_refused(systems, sets):
    pictures, texts = sets
    with pytest.raises(UserError, match=r"has 11 candidates and the inter-context encoder 10 positions"):
        systems["2b"].score_candidates([*pictures[0], pictures[0][0]], texts[0])
    assert systems["2a"].score_candidates([*pictures[0], pictures[0][0]], texts[0]).shape == (11,)


def test_an_order_in_time_is_heard_by_the_inter_context_encoder_alone(systems, sets):
    pictures, texts = sets
    for stage, heard in (("2a", False), ("2b", True)):
        score = lambda ordered, stage=stage: systems[stage].score_candidates(pictures[0], texts[0], ordered=ordered)
        with_order, without = score(True), score(False)
        assert (np.abs(with_order - without).max() > 1e-5) == heard


def test_it_is_scored_in_each_of_its_ways(systems, sets):
    system, (pictures, texts) = systems["2b"], sets
    assert system.scores == ("itc", "sum", "itm", "selection") and system.score == "selection"
    scored = {name: system.with_score(name).score_candidates(pictures[0][:3], texts[0]) for name in system.scores}
    gallery, params = system.encode_gallery(pictures[0][:3]), system.params
    cosines = gallery @ system.encode_text(texts[:1])[0]
    pixels = jax.numpy.asarray(system._pixels(pictures[0][:3]))
    ids, mask = map(jax.numpy.asarray, system._tokens(texts[:1] * 3))
    pieces = split_propositions(texts[0], system.propositions[0])
    short = TextTokenizer(system.tokenizer._tokenizer, length=system.propositions[1])
    short_ids, short_mask = map(jax.numpy.asarray, System(system.model, params, short)._tokens(pieces))

    def say(model):
        image = model.pooling.read_image(model.blip.normalize_tokens(model.encode_image(pixels).tokens))
        text = model.pooling.read_text(model.encode_text(short_ids, short_mask).pooled)
        return model.pooling.cosine(image[None], text[None])[0].T

    said = np.asarray(jax.jit(lambda params: system.model.apply({"params": params}, method=say))(params))
    truth = said * np.exp(min(params["logit_scale"], np.log(100))) + params["truth_bias"]
    np.testing.assert_allclose(scored["itc"], -np.logaddexp(0, -truth).sum(1), rtol=1e-3, atol=1e-5)

    def match(model):
        return model.match_states(model.read(model.adapt(model.encode_image(pixels)), ids, mask))

    logits = np.asarray(jax.jit(lambda params: system.model.apply({"params": params}, method=match))(system.params))
    np.testing.assert_allclose(scored["itm"], logits[:, 1] - logits[:, 0], atol=1e-4)
    np.testing.assert_allclose(scored["sum"], cosines + logits[:, 1], atol=1e-4)


def test_its_score_is_made_of_its_features(systems, sets):
    system, (pictures, texts) = systems["2a"], sets
    pictures, texts = pictures[:1], texts[:1]
    features, base, _ = system.set_features(pictures, texts)
    assert features.shape == (1, 10, 32) and base.shape == (1, 10)
    np.testing.assert_allclose(np.linalg.norm(features, axis=-1), 1, rtol=1e-4)
    head = system.params["head"]
    expected = base + (features @ head["kernel"] + head["bias"])[..., 0]  # without an inter-context encoder
    np.testing.assert_allclose(system.score_sets(pictures, texts), expected, atol=1e-4)
    for ours, again in zip((features, base), systems["2b"].set_features(pictures, texts)[:2], strict=True):
        np.testing.assert_allclose(again, ours, atol=1e-4)  # its towers are the same


def test_attention_maps_are_of_patches_and_tokens(systems, sets):
    system, (pictures, texts) = systems["2b"], sets
    maps = system.attention_maps([images[0] for images in pictures], texts)
    for drawn, text in zip(maps, texts, strict=True):
        words = int(system.tokenizer([text]).tokens.mask.sum())
        assert drawn.grid == 4 and drawn.attention.shape == (16, words) and len(drawn.offsets) == words
        read = drawn.attention.sum(axis=0)  # of each token over the patches: what CLS does not get
        assert (drawn.attention >= 0).all() and (read > 0).all() and (read < 1).all()
        assert drawn.phrase(0, 3).shape == (4, 4)


def test_pairs_teach_the_base_score(pictogram_sets, tmp_path):
    """The stage of short statements, whose pictures are those of whole sets."""
    data = [f"--config.data.folder={pictogram_sets}", f"--config.data.val_folder={pictogram_sets}"]
    data += ["--config.data.batch_size=2", "--config.training.steps=2"]
    run = in_own_process("train", "--config=configs/pictogram_sets.py:pairs,tiny", f"--workdir={tmp_path}", *data)
    assert run.returncode == 0, run.stderr
    *steps, evaluated = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < line["truth"] < 20 and "selection" in line for line in steps) and "val/accuracy" in evaluated
