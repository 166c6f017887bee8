"""Batch files: three rounds lead to the triplets that asking at once does, whatever the answers' files hold."""

import json

import pytest

from data_pipelines.chat import batches
from data_pipelines.chat.answers import AnswerCache
from data_pipelines.chat.batches import BatchModel
from data_pipelines.chat.endpoint import ChatModel
from data_pipelines.synthesis.pipeline import run_pipeline
from tests.data_pipelines.chat.server import Endpoint, completion, question_of, sensible, serving


def answered(files, change=lambda number, line: line):
    """Yields the lines that a provider sends back, in another order."""
    lines = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    for number, asked in enumerate(reversed(lines)):
        assert asked["method"] == "POST" and asked["url"] == "/v1/chat/completions"
        body = completion(sensible(*question_of(asked["body"])))
        response = {"status_code": 200, "request_id": "r", "body": body}
        yield change(number, {"id": "b", "custom_id": asked["custom_id"], "response": response, "error": None})


@pytest.fixture
def play(make_pipeline, pairs, tmp_path):
    """play(change): rounds until no pair waits; the drafts, and how many questions each round asked."""

    def go(change=lambda number, line: line, rounds=6):
        folder, counts = tmp_path / "batch", []
        for number in range(rounds):
            model = BatchModel("m", folder)
            drafts = list(run_pipeline(pairs, make_pipeline(model), concurrency=2))
            files = model.write()
            counts.append(sum(len(path.read_text().splitlines()) for path in files))
            if not any(draft.waiting for draft in drafts):
                return drafts, counts
            # Whoever runs it again too early asks nothing twice.
            again = BatchModel("m", folder)
            list(run_pipeline(pairs, make_pipeline(again)))
            assert again.write() == [] and again.waiting == counts[-1]
            lines = [line if isinstance(line, str) else json.dumps(line) for line in answered(files, change)]
            (folder / "answers").mkdir(exist_ok=True)
            (folder / "answers" / f"{number}.jsonl").write_text("\n".join(lines) + "\n")
        raise AssertionError(f"pairs still wait after {rounds} rounds of {counts}")

    return go


def test_three_rounds_give_what_asking_at_once_gives(play, make_pipeline, pairs, tmp_path):
    drafts, counts = play()
    assert counts == [2, 3, 3, 0]
    with serving(Endpoint(sensible)) as address:
        pipeline = make_pipeline(ChatModel("m", address=address), answers=tmp_path / "others.sqlite")
        assert list(run_pipeline(pairs, pipeline)) == drafts
    assert all(draft.kept for draft in drafts)


def test_answers_of_files_are_kept_for_asking_at_once(play, make_pipeline, pairs):
    drafts, _ = play()
    endpoint = Endpoint(sensible)
    with serving(endpoint) as address:
        assert list(run_pipeline(pairs, make_pipeline(ChatModel("m", address=address)))) == drafts
    assert not endpoint.requests


def test_what_failed_is_asked_again(play):
    failed = []

    def change(number, line):
        if number == 0 and len(failed) < 2:
            failed.append(line["custom_id"])
            return {**line, "id": str(len(failed)), "response": None, "error": {"code": "batch_expired"}}
        return line

    drafts, counts = play(change)
    assert all(draft.kept for draft in drafts) and sum(counts) == 2 + 3 + 3 + 2


def test_what_the_endpoint_refuses_is_not_asked_again(play, make_pipeline, pairs):
    refused = []

    def change(number, line):
        if not refused or line["custom_id"] in refused:
            refused.append(line["custom_id"])
            body = {"error": {"message": "rejected by our content policy", "code": None}}
            return {**line, "response": {"status_code": 400, "body": body}}
        return line

    drafts, counts = play(change)
    assert len(refused) == 1 and sum(counts) < 2 + 3 + 3
    assert {"content policy" in draft.problem for draft in drafts} == {True, False}


def test_a_file_that_was_moved_away_does_not_cost_another_one(make_pipeline, pairs, tmp_path):
    folder = tmp_path / "batch"
    folder.mkdir()
    (folder / "requests-0002.jsonl").write_text("kept\n")
    model = BatchModel("m", folder)
    list(run_pipeline(pairs, make_pipeline(model)))
    assert [path.name for path in model.write()] == ["requests-0003.jsonl"]
    assert (folder / "requests-0002.jsonl").read_text() == "kept\n"


def test_lines_that_are_cut_or_foreign_are_left_out_and_counted(play, tmp_path):
    drafts, _ = play(lambda number, line: line)
    folder = tmp_path / "batch" / "answers"
    (folder / "odd.jsonl").write_text(
        '{"custom_id": "\n[1]\n{"custom_id": "../x", "response": 3}\n\n' + "[" * 9999 + "\n"
    )
    model = BatchModel("m", tmp_path / "batch")
    assert model.malformed == 4 and model.waiting == 0
    assert drafts


def test_files_are_cut_where_they_would_be_too_long(make_pipeline, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "MAX_REQUESTS", 1)
    model = BatchModel("m", tmp_path / "batch")
    list(run_pipeline(pairs, make_pipeline(model)))
    files = model.write()
    assert [path.name for path in files] == ["requests-0001.jsonl", "requests-0002.jsonl"]
    assert all(len(path.read_text().splitlines()) == 1 for path in files)
    assert len(AnswerCache(tmp_path / "answers.sqlite")) == 0
