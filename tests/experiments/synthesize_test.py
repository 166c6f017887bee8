"""The command: killed at random points it comes to the same triplets and asks nothing twice; costs, reviews."""

import hashlib
import json
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from contextjax.files import locked
from data_pipelines.datasets import READERS
from tests.commands import environment, in_process
from tests.data_pipelines.chat.server import KEY, Endpoint, completion, question_of, serving

CONCURRENCY = 4


def command(*flags):
    return [sys.executable, "-m", "experiments.synthesize", *flags]


def synthesize(*flags, check=True):
    """Runs the command in this process; what it printed."""
    done = in_process("synthesize", *flags)
    assert not check or done.returncode == 0, done.stderr
    return done if not check else done.stdout


def answer(text, digest):
    """Named after the question: what is kept tells which question it answers."""
    name = hashlib.blake2b(f"{text} {digest}".encode(), digest_size=8).hexdigest()
    time.sleep(0.02)
    return json.dumps([f"Add ball {name}."] if "Two lists" in text else [{"object": name, "details": "red"}])


@pytest.fixture(scope="module")
def asked(pictograms):
    """An endpoint, and the flags with which a set of 24 pairs is made by it."""
    endpoint = Endpoint(answer)
    with pytest.MonkeyPatch.context() as patch, serving(endpoint) as address:
        patch.setenv("TEST_KEY", KEY)
        flags = [f"--data={pictograms}", "--backend=openai", "--model=m", f"--address={address}", "--pairs=24"]
        yield endpoint, [*flags, f"--concurrency={CONCURRENCY}", "--key_variable=TEST_KEY", "--timeout=20"]


@pytest.fixture(scope="module")
def whole(asked, tmp_path_factory):
    """The set as an undisturbed run writes it."""
    target = tmp_path_factory.mktemp("synthesis") / "whole"
    print(synthesize(*asked[1], f"--target={target}"))
    return target


def kept(target):
    """The answers that are kept."""
    if not (path := target / "synthesis" / "answers.sqlite").exists():
        return set()
    with sqlite3.connect(path) as database:
        return {text for (text,) in database.execute("SELECT text FROM answers")}


def triplets(target):
    return (target / "train.jsonl").read_text(), (target / "rewritten_captions/rewritten_train.json").read_text()


@pytest.mark.parametrize("kills", [pytest.param(2, marks=pytest.mark.long), pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_points_it_asks_nothing_twice(kills, asked, whole, tmp_path):
    endpoint, flags = asked
    target, total = tmp_path / "set", len(kept(whole))
    points = sorted(random.Random(kills).sample(range(1, total), kills))
    lost = 0
    for point in [*points, None]:
        before, begin = kept(target), len(endpoint.requests)
        with subprocess.Popen(
            command(*flags, f"--target={target}"),
            env=environment(TEST_KEY=KEY),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            while process.poll() is None and (point is None or len(before) + len(endpoint.requests) - begin < point):
                time.sleep(0.003)
            if point is not None and process.poll() is None:
                process.send_signal(signal.SIGKILL)
        time.sleep(0.05)  # the server takes note of what was on its way
        questions = [answer(*question) for question in endpoint.texts[begin:]]
        assert len(set(questions)) == len(questions)
        assert not set(questions) & before, "a question was asked whose answer was kept"
        lost += len(set(questions) - kept(target))
        assert len(set(questions) - kept(target)) <= CONCURRENCY  # those under way when it was killed
    assert process.returncode == 0 and lost <= kills * CONCURRENCY
    assert triplets(target) == triplets(whole)
    assert kept(target) == kept(whole)


def test_the_set_trains_and_is_traceable(whole):
    rows = [json.loads(line) for line in (whole / "train.jsonl").read_text().splitlines()]
    assert len(rows) == 24
    with sqlite3.connect(whole / "synthesis" / "answers.sqlite") as database:
        answers = dict(database.execute("SELECT key, text FROM answers"))
    for row in rows:
        assert [step["model"] for step in row["made_by"]] == ["m"] * 3
        assert row["caption"] in answers[row["made_by"][-1]["answer"]]
        assert "duplicates" in row["passed"] and "grammar" not in row["passed"]
    assert len(READERS["manifest"](whole).records("train")) == 24
    for page in ("filters", "review"):
        assert "not checked (--grammar is off)" in (whole / f"synthesis/{page}.train.html").read_text()


def test_the_spending_of_a_run_that_fails_is_logged(asked, tmp_path):
    endpoint, flags = asked
    flags = [*flags, f"--target={tmp_path / 'set'}", "--concurrency=1", "--price_in=1000", "--pairs=2"]
    with endpoint.failing(after=2):
        failed = synthesize(*flags, check=False)
    assert failed.returncode == 2 and "status 401" in failed.stderr and "All runs so far: 2 asked" in failed.stdout
    printed = synthesize(*flags)
    first, second = map(json.loads, (tmp_path / "set" / "synthesis" / "spending.jsonl").read_text().splitlines())
    assert (first["finished"], second["finished"]) == (False, True)
    assert first["cost"] == pytest.approx(2 * 11 / 1000) and "pairs" not in first and second["pairs"] == 2
    assert second["total"]["cost"] == pytest.approx(first["cost"] + second["cost"])
    assert f"cost {second['total']['cost']:.2f}." in printed


def test_two_runs_do_not_write_one_set(asked, whole):
    with locked(whole / "synthesis"):
        done = synthesize(*asked[1], f"--target={whole}", check=False)
    assert done.returncode == 2 and "Another process is at work" in done.stderr


def test_a_dry_run_forecasts_what_a_run_then_asks(asked, whole, tmp_path, monkeypatch):
    monkeypatch.delenv("TEST_KEY")
    endpoint, flags = asked
    before = len(endpoint.requests)
    prices = ["--price_in=2", "--price_out=10", "--picture_tokens=100", "--answer_tokens=200"]
    printed = synthesize(*flags, *prices, f"--target={tmp_path / 'set'}", "--dry_run")  # needs no key
    assert len(endpoint.requests) == before and not (tmp_path / "set" / "train.jsonl").exists()
    counts = {name: int(count) for name, count in re.findall(r"^(\w+)\.v1:\w+: (\d+) asked", printed, re.MULTILINE)}
    spent = json.loads((whole / "synthesis" / "spending.jsonl").read_text().splitlines()[0])
    assert counts == {name.partition(".")[0]: own["asked"] for name, own in spent["prompts"].items()}
    outs = 100 * sum(counts.values())
    cost = float(re.search(r"Cost: about ([\d.]+)", printed)[1])
    assert cost > 10 * outs / 1e6
    again = synthesize(*flags, *prices[:2], f"--target={whole}", "--dry_run")  # another length asks other questions
    assert all(line.split(": ")[1].startswith("0 asked") for line in again.splitlines() if ".v1:" in line)
    assert "Cost: about 0.00" in again


def test_decisions_are_honoured_and_counted(asked, whole, tmp_path):
    target = Path(shutil.copytree(whole, tmp_path / "set"))
    ids = [json.loads(line)["id"] for line in (target / "train.jsonl").read_text().splitlines()]
    page = (target / "synthesis" / "review.train.html").read_text()
    assert all(f'data-id="{id}"' in page for id in ids)
    decisions = {**dict.fromkeys(ids[:3], "reject"), **dict.fromkeys(ids[3:12], "accept")}
    (tmp_path / "decisions.json").write_text(json.dumps({"decisions": decisions}))
    before = len(asked[0].requests)
    printed = synthesize(*asked[1], f"--target={target}", f"--decisions={tmp_path / 'decisions.json'}")
    assert "Accepted: 9 of 12, 75.0 % (95 % interval 46.8 to 91.1, Wilson)." in printed
    assert "12 of 12 decisions were about texts of this run." in printed
    rows = [json.loads(line) for line in (target / "train.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ids[3:]
    assert ["review" in row["passed"] for row in rows] == [True] * 9 + [False] * 12
    assert len(asked[0].requests) == before
    assert "a person rejected it" in (target / "synthesis" / "filters.train.html").read_text()
    # A second page knows nothing of what the first rejected; the later file wins where both decide.
    (tmp_path / "second.json").write_text(json.dumps({"decisions": {ids[2]: "accept", ids[20]: "reject"}}))
    files = f"{tmp_path / 'decisions.json'},{tmp_path / 'second.json'}"
    printed = synthesize(*asked[1], f"--target={target}", f"--decisions={files}")
    assert "Accepted: 9 of 12" in printed and "Accepted: 1 of 2" in printed
    rows = [json.loads(line) for line in (target / "train.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [id for id in ids[2:] if id != ids[20]]


MISTAKES = {
    "no target": ([], "--target is missing"),
    "two sources": (["--pictures=docs"], "Expected --data=SET"),
    "target in the pictures": (["nodata", "--pictures=/"], "lies in --pictures"),
    "batch of rules": (["--backend=rules", "--batch=x"], "--batch is for --backend=openai"),
    "a foreign folder": (["--target=."], "holds something else"),
    "credentials": (["--address=http://me:secret@localhost/v1"], "not in --address"),
    "no address": (["--address=foo"], "--address is 'foo'; expected the address of an endpoint"),
    "a stream": (['--request={"stream": true}'], "stream, extra_headers"),
    "a secret header": (['--request={"extra_headers": {"X": "secret"}}'], "are not given there"),
    "a grammar server": (["--grammar=http://host:port"], "expected the address of a LanguageTool server"),
    "a prompt": (["--prompts=configs"], "configs has no describe_reference"),
    "before embedding": (["nodata", "--pictures=docs", "--workdir=nowhere", "--prompts=configs"], "configs has no"),
    "a CLIP": (["nodata", "--pictures=docs"], "give it as --workdir"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence(name, asked, tmp_path):
    more, sentence = MISTAKES[name]
    flags = [flag for flag in asked[1] if "nodata" not in more or not flag.startswith("--data=")]
    more = [flag for flag in more if flag != "nodata"]
    target = [f"--target={tmp_path / 'set'}"] if name != "no target" else []
    done = synthesize(*flags, *target, *more, check=False)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
    assert sentence in done.stderr and "secret" not in done.stderr


def test_by_batch_files_nothing_is_asked_at_once(asked, tmp_path, monkeypatch):
    monkeypatch.delenv("TEST_KEY")
    endpoint, flags = asked
    before = len(endpoint.requests)
    printed = synthesize(*flags, f"--target={tmp_path / 'set'}", f"--batch={tmp_path / 'batch'}")
    count = len((tmp_path / "batch" / "requests-0001.jsonl").read_text().splitlines())
    assert "24 pairs wait for answers" in printed and f"{tmp_path / 'batch' / 'requests-0001.jsonl'}" in printed
    assert 0 < count <= 24 and len(endpoint.requests) == before and not (tmp_path / "set" / "train.jsonl").exists()


def test_the_answers_of_a_writer_have_a_folder_of_their_own_that_is_printed(asked, tmp_path):
    folder, flags = tmp_path / "batch", [*asked[1], "--pairs=1", "--writer=w", f"--target={tmp_path / 'set'}"]
    for place, model in ((folder, "m"), (folder, "m"), (folder / "writer", "w")):
        printed = synthesize(*flags, f"--batch={folder}")
        (path,) = re.findall(rf"New questions: (\S+\.jsonl); .* in {place}/answers and", printed)
        (row,) = map(json.loads, Path(path).read_text().splitlines())
        assert row["body"]["model"] == model
        body = completion(answer(*question_of(row["body"])))
        (place / "answers").mkdir(exist_ok=True)
        line = {"id": path, "custom_id": row["custom_id"], "response": {"status_code": 200, "body": body}}
        (place / "answers" / Path(path).name).write_text(json.dumps(line))
    assert "1 triplets of 1 pairs" in synthesize(*flags, f"--batch={folder}")
