"""The chat backend against a real server: what fails is tried again, what is refused is kept, no key is ever shown."""

import base64
import io
import json
import logging
import time

import openai
import pytest
from PIL import Image

from contextjax.types import UserError
from data_pipelines.chat import endpoint as client
from data_pipelines.chat.answers import AnswerCache
from data_pipelines.chat.endpoint import ChatModel, RateLimit
from data_pipelines.chat.questions import Prompt, Question, ShownPicture
from data_pipelines.synthesis.pipeline import run_pipeline
from tests.commands import replace_clock
from tests.data_pipelines.chat.server import FAULTS, KEY, Endpoint, completion, error, sensible, serving

OPTIONS = {"key_variable": "TEST_KEY", "timeout": 1.0, "tries": 4}


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    """Lets openai's client wait for a hundredth of a second before the second try."""
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)


@pytest.fixture
def endpoint():
    return Endpoint(sensible)


@pytest.fixture
def run(endpoint, make_pipeline, pairs, monkeypatch):
    """run(...): the drafts of three pairs, asked of the endpoint."""
    monkeypatch.setenv("TEST_KEY", KEY)

    def go(pairs=pairs, concurrency=1, **options):
        with serving(endpoint) as address:
            model = ChatModel("m", address=address, **OPTIONS | options)
            return list(run_pipeline(pairs, make_pipeline(model), concurrency=concurrency))

    return go


def test_pairs_become_texts_and_nothing_is_asked_twice(run, endpoint, tmp_path):
    drafts = run(concurrency=3)
    assert all(len(draft.kept) == 2 and len(draft.replies) == 3 for draft in drafts)
    # a.png is described once, though it is the reference of two pairs that are under way together
    assert len(endpoint.requests) == len(set(endpoint.texts)) == 2 + 3 + 3
    assert run() == drafts
    assert len(endpoint.requests) == 8
    counts = AnswerCache(tmp_path / "answers.sqlite").asked_by("test")
    assert sum(own["asked"] for own in counts.values()) == 8
    assert all(own["tokens_in"] == 11 * own["asked"] for own in counts.values())


def test_a_request_holds_the_picture_small_and_the_key_in_its_header_only(run, endpoint):
    run(side=8)
    body = endpoint.requests[0]
    picture = body["messages"][0]["content"][0]["image_url"]["url"]
    with Image.open(io.BytesIO(base64.b64decode(picture.partition("base64,")[2]))) as image:
        assert image.format == "JPEG" and image.size == (8, 6)
    assert body["model"] == "m" and body["temperature"] == 0 and body["max_completion_tokens"] == 800
    assert endpoint.headers[0]["authorization"] == f"Bearer {KEY}"
    assert KEY not in json.dumps(endpoint.requests)


@pytest.mark.parametrize("name", FAULTS)
def test_what_fails_is_tried_again_with_the_same_result(name, run, endpoint, pairs, tmp_path):
    endpoint.faults = [FAULTS[name], FAULTS[name]]
    begin = time.monotonic()
    (found,) = run(pairs[:1])
    assert len(endpoint.requests) == 2 + 3
    assert time.monotonic() - begin > (0.8 if name == "429" else 0)  # as the server has asked for
    (tmp_path / "answers.sqlite").unlink()
    assert run(pairs[:1]) == [found] and found.kept


def test_a_server_that_stays_away_ends_the_run_and_what_was_answered_is_kept(run, endpoint, pairs):
    run(pairs[:1])
    before = len(endpoint.requests)
    endpoint.faults = [FAULTS["500"]] * 4
    with pytest.raises(UserError, match=r"'m' failed 4 times.*the same command continues"):
        run()
    assert len(endpoint.requests) == before + 4
    run()
    assert len(set(endpoint.texts)) == len(endpoint.texts) - 4  # only what had no answer was asked again


REFUSALS = {
    "refusal": lambda: completion(None, refusal="I can't help with that."),
    "filter": lambda: {**completion(None), "choices": [{"finish_reason": "content_filter", "message": {}}]},
    "empty": lambda: completion("  "),
    "nothing": lambda: {"choices": []},
    "wrong types": lambda: {"choices": [{"message": {"content": 7}}], "usage": {"prompt_tokens": "x"}},
    "a list": lambda: {"choices": {"message": []}},
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_is_kept_and_the_others_go_on(name, run, endpoint, pairs):
    endpoint.answer = lambda text, digest: REFUSALS[name]() if "Another picture" in text else sensible(text, digest)
    drafts = run()
    assert all(draft.problem.startswith("describe target: is a refusal") and not draft.kept for draft in drafts)
    count = len(endpoint.requests)
    assert count == 2 + 3
    assert run() == drafts and len(endpoint.requests) == count


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "the image violates the content policy"), (413, "too much"), (400, "code: content_policy_violation"),
        (400, "Your request was rejected as a result of our safety system."), (422, "cannot identify image file"),
        (400, "The response was filtered due to Azure OpenAI's content management policy"),
        (400, "The image data you provided does not represent a valid image."),
    ],
)  # fmt: skip
def test_a_picture_that_the_endpoint_refuses_is_a_refusal(status, message, run, endpoint, pairs):
    endpoint.faults = [error(status, message)]
    drafts = run(pairs[:2])
    assert "is a refusal" in drafts[0].problem and drafts[1].problem  # both have the reference
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "unknown parameter 'top_q'"),
        (401, "bad"),
        (403, "no"),
        (404, "no model m"),
        (429, "insufficient_quota"),
        (400, "Invalid content type. image_url is only supported by certain models."),
        (400, r"At most 0 image\(s\) may be provided"),
        (422, "unknown variant `image_url`, expected `text`"),
        (400, "Unrecognized request argument: 'moderation'"),
    ],
)
def test_a_wrong_setup_ends_at_once_and_is_not_kept(status, message, run, endpoint, pairs, tmp_path):
    endpoint.faults = [error(status, message.replace("\\", ""))]
    with pytest.raises(UserError, match=message):
        run(pairs[:1])
    assert len(endpoint.requests) == 1 and len(AnswerCache(tmp_path / "answers.sqlite")) == 0


PROSE = {
    "fenced": 'Sure! Here it is:\n```json\n[{"object": "cup", "details": "blue"}]\n```\nAnything else?',
    "in a sentence": 'The picture [as I see it] shows [{"object": "cup", "details": "blue"}], I think.',
    "in an object": '{"objects": [{"object": "cup", "details": "blue", "more": 1}, 7, {"object": ""}]}',
}


@pytest.mark.parametrize("name", PROSE)
def test_lists_are_found_in_prose(name, run, endpoint, pairs):
    endpoint.answer = lambda text, digest: sensible(text, digest) if "Two lists" in text else PROSE[name]
    (draft,) = run(pairs[:1])
    assert [(t.object, t.details) for t in draft.reference_things] == [("cup", "blue")] and draft.kept


def test_bare_prose_is_asked_about_once_more_and_then_given_up(run, endpoint, pairs):
    endpoint.answer = lambda text, digest: "A lovely picture of a cup."
    (draft,) = run(pairs[:1])
    assert "describe reference: is no JSON array" in draft.problem
    assert len(endpoint.requests) == 2
    assert run(pairs[:1]) == [draft] and len(endpoint.requests) == 2


def test_the_second_try_asks_for_the_list_alone(run, endpoint, pairs):
    """A model at temperature 0 would say the same again."""
    endpoint.answer = lambda text, digest: sensible(text, digest) if "JSON array alone" in text else "Lovely."
    (draft,) = run(pairs[:1])
    assert draft.kept and len(endpoint.requests) == 2 * 3


def test_texts_may_stand_behind_bullets(run, endpoint, pairs):
    bullets = "Here you are:\n1. Add a cup.\n- Remove the ball.\n* Make it red.\n"
    endpoint.answer = lambda text, digest: bullets if "Two lists" in text else sensible(text, digest)
    (draft,) = run(pairs[:1])
    assert [sentence.text for sentence in draft.kept] == ["Add a cup.", "Remove the ball.", "Make it red."]


def test_no_key_in_any_error_log_answer_or_file(run, endpoint, pairs, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    echo = f"Incorrect key provided: {KEY}, header Bearer {KEY}"
    endpoint.answer = lambda text, digest: completion(json.dumps([{"object": KEY, "details": echo}]), refusal=None)
    endpoint.faults = [error(500, echo), error(400, f"{echo}: content policy")]
    drafts = run()
    endpoint.faults = [error(401, echo)]
    (tmp_path / "answers.sqlite").unlink()
    with pytest.raises(UserError) as caught:
        run()
    texts = [repr(drafts), str(caught.value), repr(caught.value.__cause__), caplog.text]
    assert all(KEY not in text and KEY[:12] not in text for text in texts)
    assert "[key]" in texts[0] and "[key]" in texts[1]
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


def test_a_hosted_model_needs_a_key(monkeypatch, make_pipeline, pairs):
    monkeypatch.delenv("TEST_KEY", raising=False)
    with pytest.raises(UserError, match="environment has no TEST_KEY"):
        list(run_pipeline(pairs, make_pipeline(ChatModel("m", **OPTIONS))))


def test_another_server_gets_a_key_only_where_it_is_named(run, endpoint, pairs, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    run(pairs[:1], key_variable=None)
    assert len(endpoint.headers) == 3 and KEY not in json.dumps(endpoint.headers)
    monkeypatch.delenv("TEST_KEY")
    with pytest.raises(UserError, match="environment has no TEST_KEY"):
        run()


def test_fields_that_the_client_does_not_name_are_sent_as_they_are(run, endpoint, pairs):
    body = {"top_k": 20, "chat_template_kwargs": {"enable_thinking": False}, "max_tokens": 9, "timeout": 3}
    (draft,) = run(pairs[:1], body=body)
    assert draft.kept and body.items() <= endpoint.requests[0].items()


def test_the_rate_limit_spreads_requests(run, endpoint, pairs):
    begin = time.monotonic()
    run(concurrency=3, requests_per_minute=60 / 0.15)
    assert len(endpoint.requests) == 8
    assert time.monotonic() - begin >= 7 * 0.15


@pytest.fixture
def clock(monkeypatch):
    """Seconds slept so far; sleeping takes no time."""
    slept = []
    replace_clock(monkeypatch, client, sleep=slept.append, monotonic=lambda: sum(slept))
    return slept


@pytest.mark.parametrize(
    ("options", "tokens", "apart"),
    [
        ({"requests": 30}, 100, 2.0),
        ({"tokens": 600}, 100, 10.0),
        ({"requests": 30, "tokens": 600}, 5, 2.0),
        ({}, 100, 0.0),
    ],
)
def test_calls_are_as_far_apart_as_the_limits_ask(options, tokens, apart, clock):
    limit, begins = RateLimit(**options), []
    for _ in range(4):
        limit.wait(tokens)
        begins.append(sum(clock))
    assert begins == pytest.approx([0, apart, 2 * apart, 3 * apart])


def test_a_pause_holds_back_all_calls(clock):
    limit = RateLimit()
    limit.pause(5.0)
    limit.wait()
    assert sum(clock) == 5.0


@pytest.mark.parametrize(("asked", "paused"), [("7", 7.0), ("300", 300.0), ("9000", 600.0)])
def test_all_threads_pause_for_as_long_as_a_busy_server_asks(asked, paused, run, endpoint, pairs, monkeypatch):
    pauses = []
    monkeypatch.setattr(RateLimit, "pause", lambda limit, seconds: pauses.append(seconds))
    replace_clock(monkeypatch, openai._base_client, sleep=lambda seconds: None)
    endpoint.faults = [error(503, "busy", **{"Retry-After": asked})]
    (draft,) = run(pairs[:1])
    assert draft.kept and pauses == [paused] and len(endpoint.requests) == 1 + 3


def test_what_only_the_hooks_know_is_tried_again(run, endpoint, pairs):
    """openai's client alone would give up on a 425."""
    endpoint.faults = [error(425, "too early")]
    (draft,) = run(pairs[:1])
    assert draft.kept and len(endpoint.requests) == 1 + 3


def test_instructions_labels_and_pictures_are_sent_in_their_order(endpoint):
    endpoint.answer = lambda text, digest: {
        **completion('{"picture": 2}'),
        "model": "m-2026",
        "choices": [
            {
                "message": {"content": '{"picture": 2}'},
                "logprobs": {
                    "content": [{"token": "2", "top_logprobs": [{"token": "2", "logprob": -0.5}, {"odd": 1}]}]
                },
            }
        ],
    }
    picture = io.BytesIO()
    Image.new("RGB", (4, 4)).save(picture, "PNG")
    prompt = Prompt("choose", "v1", "Pick.\n$pictures\nThe text.")
    shown = tuple(ShownPicture(name, name, picture.getvalue()) for name in "ab")
    with serving(endpoint) as address:
        reply = ChatModel("m", address=address).answer(Question(prompt, (), shown, labels=("1:", "2:")))
    system, user = endpoint.requests[0]["messages"]
    assert system == {"role": "system", "content": "Pick."}
    assert [part.get("text", "picture") for part in user["content"]] == ["1:", "picture", "2:", "picture", "The text."]
    assert reply.served == "m-2026" and json.loads(reply.odds) == [["2", {"2": -0.5}]]


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        (
            "Invalid content type. image_url is only supported by certain models",
            "give a vision-language model as --model",
        ),
        ("This model is not a multimodal model", "give a vision-language model as --model"),
        ("You are not allowed to request logprobs from this model.", "give --nologprobs"),
        ("Unknown field", "check --model, --address, --request and key"),
    ],
)
def test_a_setup_that_an_endpoint_refuses_has_its_remedy(message, remedy, run, endpoint, pairs):
    endpoint.faults = [error(400, message)]
    with pytest.raises(UserError, match=remedy):
        run(pairs[:1])
