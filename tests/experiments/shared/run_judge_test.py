"""evaluate --judge against a server of the tests' own: what it counts, keeps, forecasts, asks again and refuses."""

import json
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from data_pipelines.chat.endpoint import SIDE, sent_picture
from data_pipelines.datasets import READERS
from data_pipelines.prepare import located_pictures, read_bytes
from tests.commands import environment, in_process
from tests.data_pipelines.chat.server import Endpoint, completion, error, parts_of, serving
from tests.data_pipelines.layouts import LAYOUTS


class Knows:
    """Answers that know the targets of a split; `change(number of the record)` may give another answer."""

    def __init__(self, reader, folder, split):
        reader = READERS[reader](folder)
        self.records = {record.text.strip(): record for record in reader.read(split).records}
        files = located_pictures(reader, split)
        self.names = {}
        for name, file in files.items():
            self.names.setdefault(sent_picture(read_bytes(file, name), SIDE), []).append(name)
        self.change = lambda record: None

    def __call__(self, body):
        texts, pictures = parts_of(body)
        record = next(self.records[text] for text in self.records if texts[-1].split("\n\n")[1].strip() == text)
        if (changed := self.change(record)) is not None:
            return changed
        target = getattr(record, "images", None)
        target = target[record.target] if target else record.target
        candidates = pictures if target and hasattr(record, "images") else pictures[1:]
        place = next((n for n, url in enumerate(candidates) if target in self.names[url]), 0)
        if "yes or no" in texts[0]:
            return "Yes" if target in self.names[candidates[0]] else "no."
        if hasattr(record, "images"):
            return json.dumps({"picture": place + 1})
        others = [n + 1 for n in range(len(candidates)) if n != place]
        return json.dumps({"order": [place + 1, *others]})


@pytest.fixture(scope="module")
def sets(pictogram_sets):
    """An endpoint that knows the sets' targets, and the flags that judge them by it."""
    endpoint = Endpoint(Knows("imagecode", pictogram_sets, "val"), question_of=lambda body: (body,))
    with serving(endpoint) as address:
        flags = ["--judge=openai", "--model=m", f"--address={address}", f"--data={pictogram_sets}"]
        yield endpoint, [*flags, "--protocol=imagecode", "--split=val", "--concurrency=2", "--tries=1"]


@pytest.fixture(autouse=True)
def unchanged(sets):
    """The endpoint answers what it knows again."""
    yield
    sets[0].answer.change, sets[0].faults = lambda record: None, []


def judged(*flags, check=True):
    done = in_process("evaluate", *flags)
    assert not check or done.returncode == 0, done.stderr
    return done


def result_of(workdir, pattern="*"):
    (path,) = Path(workdir).glob(f"evaluation.judge.{pattern}.json")
    return json.loads(path.read_text())


def test_the_target_is_found_wherever_it_is_shown_and_nothing_is_asked_twice(sets, tmp_path):
    endpoint, flags = sets
    begin = len(endpoint.requests)
    flags = [*flags, f"--workdir={tmp_path}", "--orders=3", "--price_in=1000", "--price_out=0"]
    printed = judged(*flags).stdout
    found = result_of(tmp_path)
    count = found["n_queries"]
    assert len(endpoint.requests) - begin == 3 * count == found["judge"]["questions"] == found["judge"]["answers"]
    assert found["metrics"] == {"accuracy": 100, "low95": 100, "high95": 100}
    places = found["by_position"]
    assert sum(row["n"] for row in places.values()) == 3 * count and len(places) > 2
    assert {row["accuracy"] for row in places.values()} == {100}
    judge = found["judge"]
    assert judge["served_as"] == ["m"] and judge["prompts"][0].startswith("choose.v1:")
    assert judge["tokens_in"] == 11 * 3 * count and judge["cost"] == pytest.approx(11 * 3 * count / 1000)
    assert (judge["refused"], judge["unreadable"], judge["with_log_probabilities"]) == (0, 0, 0)
    assert found["baselines"]["random"]["accuracy"] == 10
    assert f"{3 * count} asked" in printed and "Cost: " in printed
    before = dict(found)
    printed = judged(*flags).stdout
    assert len(endpoint.requests) - begin == 3 * count and f"All runs so far: {3 * count} asked" not in printed
    again = result_of(tmp_path)
    for each in (before, again):
        each["judge"].pop("date")
    assert again == before


def test_wrong_unreadable_and_refused_answers_are_all_wrong_and_counted(sets, tmp_path):
    endpoint, flags = sets
    records = list(endpoint.answer.records.values())
    unreadable, refused, other = records[0], records[1], records[2]
    answers = {
        unreadable.id: "A fine picture.",
        refused.id: completion(None, refusal="no"),
        other.id: '{"picture": 11}',
    }
    endpoint.answer.change = lambda record: answers.get(record.id)
    printed = judged(*flags, f"--workdir={tmp_path}").stdout
    found = result_of(tmp_path)
    assert found["metrics"]["accuracy"] == pytest.approx(100 * (len(records) - 3) / len(records))
    judge = found["judge"]
    assert (judge["refused"], judge["unreadable"], judge["questions"]) == (1, 2, len(records))
    assert judge["answers"] == len(records) + 2  # what can't be read is asked once more
    assert "1 refused and 2 unreadable, each counted as wrong" in printed
    assert any("names the picture '11' of 10" in problem for problem in judge["problems"])


def test_log_probabilities_make_the_scores(sets, tmp_path):
    endpoint, flags = sets
    known = type(endpoint.answer).__call__

    def graded(record):
        endpoint.answer.change = lambda record: None
        number = json.loads(known(endpoint.answer, endpoint.requests[-1]))["picture"]
        endpoint.answer.change = graded
        others = [{"token": str(n), "logprob": -5.0} for n in range(1, 10)]
        others = [{"token": str(number), "logprob": -0.1}, *others[: number - 1], *others[number:]]
        place = {"token": str(number), "logprob": -0.1, "top_logprobs": others}
        body = completion(json.dumps(number))
        body["choices"][0]["logprobs"] = {"content": [place]}
        return body

    endpoint.answer.change = graded
    judged(*flags, f"--workdir={tmp_path}", "--concurrency=1")
    found = result_of(tmp_path)
    assert endpoint.requests[-1]["logprobs"] is True and endpoint.requests[-1]["top_logprobs"] == 20
    assert found["judge"]["with_log_probabilities"] == found["n_queries"] and found["metrics"]["accuracy"] == 100
    judged(*flags, f"--workdir={tmp_path / 'without'}", "--nologprobs", "--concurrency=1")
    assert "logprobs" not in endpoint.requests[-1]


def test_a_run_that_fails_goes_on_where_it_stopped(sets, tmp_path):
    endpoint, flags = sets
    flags = [*flags, f"--workdir={tmp_path}", "--concurrency=1", "--orders=2"]
    begin = len(endpoint.requests)
    with endpoint.failing(after=3):
        failed = judged(*flags, check=False)
    assert failed.returncode == 2 and "status 401" in failed.stderr and len(failed.stderr.splitlines()) == 1
    asked = len(endpoint.requests) - begin
    judged(*flags)
    questions = [json.dumps(body) for body in endpoint.requests[begin:]]
    assert len(questions) == len(set(questions)) + asked - 3 and result_of(tmp_path)["metrics"]["accuracy"] == 100
    first, second = map(json.loads, (tmp_path / "judge" / "spending.jsonl").read_text().splitlines())
    assert (first["finished"], second["finished"]) == (False, True)


@pytest.mark.long
def test_killed_it_asks_nothing_twice(sets, tmp_path):
    endpoint, flags = sets
    flags = [*flags, f"--workdir={tmp_path}", "--concurrency=2", "--orders=8"]
    endpoint.answer.change = lambda record: time.sleep(0.05)
    begin, lost = len(endpoint.requests), 0
    for point in (4, 12, None):
        command = [sys.executable, "-m", "experiments.evaluate", *flags]
        with subprocess.Popen(
            command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            while process.poll() is None and (point is None or len(endpoint.requests) - begin < point):
                time.sleep(0.005)
            if point is not None:
                process.send_signal(signal.SIGKILL)
                lost += 2
    assert process.returncode == 0 and result_of(tmp_path)["metrics"]["accuracy"] == 100
    questions = [json.dumps(body) for body in endpoint.requests[begin:]]
    assert len(questions) - len(set(questions)) <= lost  # those under way when it was killed
    with sqlite3.connect(tmp_path / "judge" / "answers.sqlite") as database:
        assert database.execute("SELECT COUNT(*) FROM answers").fetchone()[0] == len(set(questions))


def test_a_dry_run_forecasts_what_a_run_then_asks(sets, tmp_path):
    endpoint, flags = sets
    begin = len(endpoint.requests)
    flags = [*flags, f"--workdir={tmp_path}", "--price_in=2", "--picture_tokens=100"]
    printed = judged(*flags, "--dry_run").stdout
    count = len(endpoint.answer.records)
    assert f": {count} asked, 0 are kept from before" in printed and "Cost: about " in printed
    assert int(re.search(r"about ([\d,]+) tokens in", printed)[1].replace(",", "")) > count * 10 * 100
    assert len(endpoint.requests) == begin and not list(tmp_path.glob("evaluation*"))
    judged(*flags)
    assert f": 0 asked, {count} are kept from before" in judged(*flags, "--dry_run").stdout


def test_batch_files_lead_to_the_same_result(sets, tmp_path):
    endpoint, flags = sets
    batch, waits = tmp_path / "batch", [*flags, f"--workdir={tmp_path / 'run'}", f"--batch={tmp_path / 'batch'}"]
    begin = len(endpoint.requests)
    count = len(endpoint.answer.records)
    printed = judged(*waits).stdout
    assert f"{count} of {count} records wait for answers" in printed and len(endpoint.requests) == begin
    lines = [json.loads(line) for line in (batch / "requests-0001.jsonl").read_text().splitlines()]
    (batch / "answers").mkdir()
    rows = [
        {"id": str(n), "custom_id": line["custom_id"],
         "response": {"status_code": 200, "body": completion(endpoint.answer(line["body"]))}}
        for n, line in enumerate(lines)
    ]  # fmt: skip
    (batch / "answers" / "1.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert not list((tmp_path / "run").glob("evaluation*"))
    judged(*waits)
    assert result_of(tmp_path / "run")["metrics"]["accuracy"] == 100 and len(endpoint.requests) == begin


def test_records_are_drawn_by_each_seed_and_the_window_holds_the_target(sets, tmp_path):
    endpoint, flags = sets
    flags = [*flags, f"--workdir={tmp_path}", "--records=2", "--seeds=1,10,100", "--window=4"]
    begin = len(endpoint.requests)
    printed = judged(*flags).stdout
    found = result_of(tmp_path)
    assert found["protocol"] == "imagecode+window4" and set(found["by_seed"]) == {"1", "10", "100"}
    assert all(len(parts_of(body)[1]) == 4 for body in endpoint.requests[begin:])
    assert found["metrics"]["accuracy"] == 100 and found["baselines"]["random"]["accuracy"] == 25
    assert 2 <= found["n_queries"] <= 4 and "seed 10: accuracy 100.0" in printed


@pytest.fixture(scope="module")
def cirr(pictograms):
    """An endpoint that knows the targets of composed queries, and the flags that judge them by it."""
    endpoint = Endpoint(Knows("cirr", pictograms, "val"), question_of=lambda body: (body,))
    with serving(endpoint) as address:
        flags = ["--judge=openai", "--model=m", f"--address={address}", f"--data={pictograms}", "--protocol=cirr"]
        yield endpoint, [*flags, "--split=val", "--tries=1"]


def test_the_group_of_a_query_is_ordered(cirr, tmp_path):
    endpoint, flags = cirr
    begin = len(endpoint.requests)
    judged(*flags, f"--workdir={tmp_path}")
    found = result_of(tmp_path)
    names = ("Rs@1", "Rs@2", "Rs@3")
    assert {name: found["metrics"][name] for name in names} == dict.fromkeys(names, 100)
    assert found["baselines"] == {"random": {"Rs@1": 20, "Rs@2": 40, "Rs@3": pytest.approx(60)}}
    assert all(len(parts_of(body)[1]) == 6 for body in endpoint.requests[begin:])
    assert set(found["by_position"]) <= {"1", "2", "3", "4", "5"} and "bound" not in found


def test_candidates_may_be_verified_one_by_one(cirr, tmp_path):
    endpoint, flags = cirr
    begin = len(endpoint.requests)
    judged(*flags, f"--workdir={tmp_path}", "--verify", "--records=2")
    found = result_of(tmp_path)
    assert found["protocol"] == "cirr+verify" and found["metrics"]["Rs@1"] == 100
    assert found["judge"]["questions"] == 5 * found["n_queries"] == 10 == len(endpoint.requests) - begin


def test_pairs_are_judged_by_their_protocol(tmp_path):
    rows = ["1,Color,a red dog", "2,Color,a green dog", "3,Text,one", "4,Text,two"]
    (tmp_path / "Questions.csv").write_text("\n".join(["Question ID,Type,Statement", *rows]) + "\n")
    for row in rows:
        number, kind, _ = row.split(",")
        folder = tmp_path / "MLLM_VLM Images" / kind
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (60 * int(number), 9, 9)).save(folder / f"{number}.jpg")
    endpoint = Endpoint(Knows("mmvp", tmp_path, "test"), question_of=lambda body: (body,))
    endpoint.answer.change = lambda record: "neither" if "two" in record.text else None
    with serving(endpoint) as address:
        flags = ["--judge=openai", "--model=m", f"--address={address}", f"--data={tmp_path}", "--protocol=mmvp"]
        judged(*flags, "--split=test", f"--workdir={tmp_path / 'run'}")
    found = result_of(tmp_path / "run")["metrics"]
    assert (found["accuracy"], found["pair accuracy"]) == (75, 50)


def test_a_ranking_is_ordered_anew_and_what_fails_puts_the_target_last(cirr, clip, tmp_path):
    endpoint, flags = cirr
    failing = next(iter(endpoint.answer.records.values())).id
    endpoint.answer.change = lambda record: "no idea" if record.id == failing else None
    printed = judged(*flags, f"--workdir={tmp_path}", f"--source={clip}", "--rerank=12").stdout
    endpoint.answer.change = lambda record: None
    found = result_of(tmp_path)
    count = found["n_queries"]
    assert found["protocol"] == "cirr+rerank12" and "the run's own order" in found["baselines"]
    assert found["metrics"]["R@1"] == pytest.approx(100 * (count - 1) / count) == found["metrics"]["R@10"]
    assert found["config_hash"] and found["judge"]["unreadable"] == 1 and "Rs@1" not in found["metrics"]
    assert "the run's own order" in printed
    judged(*flags, f"--workdir={tmp_path}", f"--source={clip}", "--rerank=2")
    few = result_of(tmp_path, "cirr+rerank2.*")
    own = few["baselines"]["the run's own order"]
    assert few["metrics"]["R@5"] == own["R@5"] and few["metrics"]["R@1"] >= own["R@1"]
    assert sum(row["n"] for row in few["by_position"].values()) <= count


def test_several_right_pictures_are_ordered_anew(clip, tmp_path):
    LAYOUTS["circo"](tmp_path / "circo")
    endpoint = Endpoint(Knows("circo", tmp_path / "circo", "val"), question_of=lambda body: (body,))
    with serving(endpoint) as address:
        flags = ["--judge=openai", "--model=m", f"--address={address}", f"--data={tmp_path / 'circo'}", "--split=val"]
        flags += ["--protocol=circo", f"--source={clip}", f"--workdir={tmp_path / 'run'}"]
        judged(*flags, "--rerank=3")
        refused = judged(*flags, check=False)
    found = result_of(tmp_path / "run")
    assert found["interval_of"] == "mAP@5" and found["metrics"]["low95"] <= found["metrics"]["mAP@5"]
    assert found["metrics"]["mAP@5"] >= found["baselines"]["the run's own order"]["mAP@5"]
    assert refused.returncode == 2 and "has no groups to order; give --rerank=N" in refused.stderr


MISTAKES = {
    "no model": (["--model="], "--judge=openai needs the name of a model"),
    "no data": (["--data=", "--workdir={tmp}/none"], "--data is empty"),
    "a flag without a judge": (["nojudge"], "--model is for a judge; give --judge=openai"),
    "another's flag": (["--submission={tmp}/x"], "--submission is not for a judge"),
    "re-ranked sets": (["--rerank=5"], "--rerank is for composed queries, and 'imagecode' has candidate sets"),
    "verified sets": (["--verify"], "--verify is for composed queries"),
    "one candidate": (["--window=1"], "--window is 1"),
    "seeds": (["--records=2", "--seeds=1,x"], "--seeds is '1,x'; expected different whole numbers"),
    "seeds without records": (["--seeds=1,2"], "give --records=N, too"),
    "a local batch": (["--judge=transformers", "--batch={tmp}/b"], "--batch is for --judge=openai"),
    "an address": (["--address=foo"], "--address is 'foo'"),
    "prompts": (["--prompts=configs"], "configs has no choose.v1.txt"),
    "a split": (["--split=nowhere"], "has no split 'nowhere'"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence(name, sets, tmp_path):
    more, sentence = MISTAKES[name]
    flags = [*sets[1], f"--workdir={tmp_path}", *(flag.format(tmp=tmp_path) for flag in more if flag != "nojudge")]
    done = judged(*(flag for flag in flags if "nojudge" not in more or not flag.startswith("--judge")), check=False)
    assert done.returncode == 2 and sentence in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def test_an_endpoint_without_pictures_and_one_that_answers_another_number_are_one_sentence(sets, tmp_path):
    endpoint, flags = sets
    flags = [*flags, f"--workdir={tmp_path}", "--concurrency=1"]
    endpoint.faults = [error(400, "image_url is only supported by certain models")]
    done = judged(*flags, check=False)
    assert done.returncode == 2 and "give a vision-language model as --model" in done.stderr
    endpoint.answer.change = lambda record: '{"picture": 12}'
    done = judged(*flags, check=False)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "answers of 'm' counts (the first names the picture '12' of 10)" in done.stderr
