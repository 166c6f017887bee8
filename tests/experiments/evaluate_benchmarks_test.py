"""From published folders to every benchmark's numbers: a mixture is trained, and evaluated by each protocol.

What a protocol asks and ranks is read here once more, by plain loops over the files as they are published.
"""

import contextlib
import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import contextjax
from configs.base import evaluation
from configs.context_cir import get_config
from contextjax.images import is_picture
from contextjax.training.metrics_log import read_metrics
from experiments.shared.leaderboard_files import check_file
from experiments.shared.run_evaluation import evaluate_run
from tests.data_pipelines.layouts import CATEGORIES, LAYOUTS

pytestmark = pytest.mark.long

TASKS = ("change_attribute", "change_object", "focus_attribute", "focus_object")
SUBMITTED = (("circo", "test"), ("cirr", "val"))


@dataclasses.dataclass(frozen=True)
class Question:
    """A query as its benchmark asks it: the gallery to rank, and the right pictures, the target first."""

    reference: Path
    text: str
    truths: list[Path]
    gallery: list[Path]


def read(*parts) -> list:
    return json.loads(Path(*parts).read_text())


def cirr(folder: Path) -> list[list[Question]]:
    files = {name: folder / "img_raw" / path for name, path in read(folder, "image_splits/split.rc2.val.json").items()}
    rows = read(folder, "captions/cap.rc2.val.json")
    return [
        [Question(files[row["reference"]], row["caption"], [files[row["target_hard"]]],
                  [file for name, file in files.items() if name != row["reference"]]) for row in rows]
    ]  # fmt: skip


def fashion_iq(folder: Path, *, only_named: bool) -> list[list[Question]]:
    parts = []
    for category in CATEGORIES:
        rows = read(folder, f"captions/cap.{category}.val.json")
        names = read(folder, f"image_splits/split.{category}.val.json")
        if only_named:
            names = {row[key] for row in rows for key in ("candidate", "target")}
        file = lambda name: next((folder / "images").glob(f"{name}.*"))
        texts = [" and ".join(caption.strip(" .?") for caption in row["captions"]).capitalize() for row in rows]
        parts.append(
            [Question(file(row["candidate"]), text, [file(row["target"])], [file(name) for name in names])
             for row, text in zip(rows, texts, strict=True)]
        )  # fmt: skip
    return parts


def circo(folder: Path) -> list[list[Question]]:
    coco = folder / "COCO2017_unlabeled"
    file = lambda number: coco / "unlabeled2017" / f"{number:012d}.jpg"
    listed = json.loads((coco / "annotations/image_info_unlabeled2017.json").read_text())["images"]
    every = [file(image["id"]) for image in listed]
    return [
        [Question(file(row["reference_img_id"]),
                  f"Find a picture that also {row['shared_concept']}, but {row['relative_caption']}.",
                  [file(n) for n in dict.fromkeys([row["target_img_id"], *row["gt_img_ids"]])], every)
         for row in read(folder, "annotations/val.json")]
    ]  # fmt: skip


def genecis(folder: Path) -> list[list[Question]]:
    file = lambda picture: folder / "val2017" / f"{picture['val_image_id']:012d}.jpg"
    return [
        [Question(file(row["reference"]), row["condition"], [file(row["target"])],
                  [file(picture) for picture in (row["target"], *row["gallery"])])
         for row in read(folder, "genecis/focus_object.json")]
    ]  # fmt: skip


def lasco(folder: Path) -> list[list[Question]]:
    corpus = [folder / row["path"].removeprefix("val/") for row in read(folder, "lasco_val_corpus.json")]
    return [
        [Question(folder / row["query-image"][1], row["query-text"], [folder / row["target-image"][1]], corpus)
         for row in read(folder, "lasco_val.json")]
    ]  # fmt: skip


def hotel_cir(folder: Path) -> list[list[Question]]:
    rows = read(folder, "captions/hotel_val_data.json")
    file = lambda path: folder / "images/val_test" / path.removeprefix("/data/hotels/")
    named = {path for row in rows for path in (row["query_image"], row["result_image"], *row.get("distractors", ()))}
    gallery = [file(path) for path in sorted(named)]
    return [
        [Question(file(row["query_image"]), row["difference"], [file(row["result_image"])], gallery) for row in rows]
    ]


# protocol -> (its folder, the split, the questions of each part, whether a query has a gallery of its own)
COMPOSED = {
    "cirr": ("cirr_r", "val", cirr),
    "fashion_iq_original": ("fashion_iq", "val", lambda folder: fashion_iq(folder, only_named=False)),
    "fashion_iq_val": ("fashion_iq", "val", lambda folder: fashion_iq(folder, only_named=True)),
    "circo": ("circo", "val", circo),
    "genecis": ("genecis", "focus_object", genecis),
    "lasco": ("lasco", "val", lasco),
    "hotel_cir": ("hotel_cir", "val", hotel_cir),
}


def mmvp(folder: Path) -> None:
    (folder / "MLLM_VLM Images/Color").mkdir(parents=True)
    rows = ["Question ID,Type,Statement", "1,Color,a red dog", "2,Color,a green dog"]
    (folder / "Questions.csv").write_text("\n".join(rows) + "\n")
    for number in (1, 2):
        Image.new("RGB", (16, 16)).save(folder / f"MLLM_VLM Images/Color/{number}.jpg")


@pytest.fixture(scope="module")
def folders(tmp_path_factory, pictogram_sets) -> dict[str, Path]:
    """Data set -> its folder; the pictures are noise, so that no two are scored alike."""
    root, rng = tmp_path_factory.mktemp("folders"), np.random.default_rng(0)
    layouts = {name: LAYOUTS[name] for name, *_ in COMPOSED.values()} | {"manifest": LAYOUTS["manifest"], "mmvp": mmvp}
    for name, write in layouts.items():
        write(root / name)
    for path in sorted(root.rglob("*")):
        if is_picture(path):
            Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(path)
    return {name: root / name for name in layouts} | {"imagecode": pictogram_sets}


@pytest.fixture(scope="module")
def run(folders, tmp_path_factory) -> Path:
    """A workdir: three steps of the recipe on four sets in three folders, with three evaluations at the end."""
    config = get_config("tiny,cirr+cirr_r+lasco+manifest,modern")
    config.data.evaluations.fashion_iq_original = evaluation(folder=str(folders["fashion_iq"]))
    with config.unlocked():
        config.update_from_flattened_dict(
            {
                "training.steps": 3,
                "training.evaluate_every": 3,
                "training.checkpoint_every": 3,
                "training.best": {"fashion_iq_original/val/Avg": 1.0, "circo/val/mAP@10": 1.0},
                "data.folder": str(folders["cirr_r"]),
                "data.sources.lasco.folder": str(folders["lasco"]),
                "data.sources.manifest.folder": str(folders["manifest"]),
                "data.evaluations.circo.folder": str(folders["circo"]),
            }
        )
    from experiments.shared.training import train

    workdir = tmp_path_factory.mktemp("run") / "mixture"
    train(config, workdir)
    return workdir


@pytest.fixture(scope="module")
def printed(folders, run) -> str:
    """The output of evaluating every benchmark and of checking the submissions."""
    tasks = [(protocol, name, split) for protocol, (name, split, _) in COMPOSED.items()]
    tasks += [("genecis", "genecis", task) for task in TASKS if task != COMPOSED["genecis"][1]]
    tasks += [("imagecode", "imagecode", "val"), ("mmvp", "mmvp", "test"), ("circo", "circo", "test")]
    with contextlib.redirect_stdout(io.StringIO()) as output:
        for protocol, name, split in tasks:
            task = {"protocol": protocol, "folder": str(folders[name]), "split": split}
            is_submitted = (protocol, split) in SUBMITTED
            submission = {"submission": str(run / "submissions")} if is_submitted else {}
            evaluate_run(run, **task, **submission, baselines=False)
            for file in sorted((run / "submissions").glob(f"{protocol}*.json") if is_submitted else ()):
                count = check_file(file, protocol, task["folder"], split)
                print(f"{file} keeps all rules of {protocol}, {split}: {count} queries")
    return output.getvalue()


@pytest.fixture
def result_of(printed, run):
    """result_of(protocol, split): the result file of an evaluation."""
    return lambda protocol, split: json.loads(result_file(run, protocol, split).read_text())


def result_file(run: Path, protocol: str, split: str) -> Path:
    """Returns a result file; that of the run's own data set has the plain name, and the others name their data."""
    if protocol == "cirr":
        return run / "evaluation.json"
    (file,) = run.glob(f"evaluation.{protocol}.{split}.*")
    assert file.name.removesuffix(".json").endswith(f"-{json.loads(file.read_text())['data']['identity']}") or (
        file.name == f"evaluation.{protocol}.{split}.json" and protocol == "cirr_r"
    )
    return file


def rank_by_hand(system, questions: list[Question]) -> np.ndarray:
    """Returns [Q, T]: the pictures scored above each right one; 10**6 where a query has fewer right pictures."""
    ranks = np.full((len(questions), max(len(question.truths) for question in questions)), 10**6)
    for row, question in enumerate(questions):
        query = system.encode_query([question.reference], [question.text])[0]
        scores = dict(zip(question.gallery, system.encode_gallery(question.gallery) @ query, strict=True))
        for column, truth in enumerate(question.truths):
            ranks[row, column] = sum(score > scores[truth] for score in scores.values())
    return ranks


def average_precision(ranks: np.ndarray, k: int) -> float:
    places = sorted(rank for rank in ranks if rank < k)
    return sum((i + 1) / (rank + 1) for i, rank in enumerate(places)) / min(k, sum(ranks < 10**6))


@pytest.mark.parametrize("protocol", COMPOSED)
def test_a_benchmark_of_retrieval_asks_and_ranks_what_its_files_say(folders, run, result_of, protocol):
    name, split, questions_of = COMPOSED[protocol]
    result = result_of(protocol, split)
    parts, system = questions_of(folders[name]), contextjax.load(run)
    assert (result["protocol"], result["split"], result["step"]) == (protocol, split, 3)
    assert result["n_queries"] == sum(map(len, parts)) > 0
    own_reference = protocol == "cirr"  # which is in the gallery, and not in a query's ranking
    assert result["n_gallery"] == sum(len(part[0].gallery) + own_reference for part in parts)
    ranks, metrics = [rank_by_hand(system, part) for part in parts], result["metrics"]
    cuts = {metric: int(metric.partition("@")[2]) for metric in metrics if metric.startswith("R@")}
    assert cuts
    for metric, k in cuts.items():
        expected = np.mean([100 * np.mean(part[:, 0] < k) for part in ranks])
        assert metrics[metric] == pytest.approx(expected), metric
    for k in (5, 10, 25, 50) if protocol == "circo" else ():
        expected = 100 * np.mean([average_precision(row, k) for part in ranks for row in part])
        assert metrics[f"mAP@{k}"] == pytest.approx(expected)


def test_every_task_and_every_crop_of_genecis_is_asked(folders, result_of):
    for task in TASKS:
        rows = read(folders["genecis"], f"genecis/{task}.json")
        result = result_of("genecis", task)
        assert (result["n_queries"], result["n_gallery"]) == (len(rows), 1 + max(len(row["gallery"]) for row in rows))
        assert set(result["metrics"]) == {"R@1", "R@2", "R@3"} and result["metrics"]["R@3"] == 100


def sets_of_imagecode(folder: Path) -> list[tuple[list[Path], str, int]]:
    sets = json.loads((folder / "valid_data.json").read_text())
    pictures = lambda name: [next((folder / "image-sets" / name).glob(f"img{i}.*")) for i in range(10)]
    return [(pictures(name), text, int(index)) for name, texts in sets.items() for index, text in texts.items()]


def sets_of_mmvp(folder: Path) -> list[tuple[list[Path], str, int]]:
    pair = [folder / f"MLLM_VLM Images/Color/{number}.jpg" for number in (1, 2)]
    return [(pair, "a red dog", 0), (pair, "a green dog", 1)]


@pytest.mark.parametrize(
    ("protocol", "split", "sets_of"), [("imagecode", "val", sets_of_imagecode), ("mmvp", "test", sets_of_mmvp)]
)
def test_a_benchmark_of_candidate_sets_scores_what_its_files_say(folders, run, result_of, protocol, split, sets_of):
    result, sets, system = result_of(protocol, split), sets_of(folders[protocol]), contextjax.load(run)
    assert result["n_queries"] == len(sets)
    assert result["n_gallery"] == len({picture for pictures, *_ in sets for picture in pictures})
    right = [int(np.argmax(system.score_candidates(pictures, text))) == index for pictures, text, index in sets]
    assert result["metrics"]["accuracy"] == pytest.approx(100 * np.mean(right))


def test_the_training_evaluated_what_is_evaluated_after_it(run, result_of):
    (line,) = [line for line in read_metrics(run) if "score" in line]
    assert line["step"] == 3
    for protocol, metric in (("cirr", "R@5"), ("circo", "mAP@10"), ("fashion_iq_original", "Avg")):
        assert line[f"{protocol}/val/{metric}"] == pytest.approx(result_of(protocol, "val")["metrics"][metric])
    assert line["score"] == pytest.approx(line["fashion_iq_original/val/Avg"] + line["circo/val/mAP@10"])


@pytest.mark.parametrize(("protocol", "split"), SUBMITTED)
def test_submissions_are_written_and_keep_the_rules(folders, run, printed, protocol, split):
    name, _, questions_of = COMPOSED[protocol]
    rows, key = {
        "circo": ("annotations/test.json", "id"),
        "cirr": ("captions/cap.rc2.val.json", "pairid"),
    }[protocol]
    ids = [str(row[key]) for row in read(folders[name], rows)]
    files = sorted((run / "submissions").glob(f"{protocol}*.json"))
    assert len(files) == {"circo": 1, "cirr": 2}[protocol]
    for file in files:
        assert f"{file} is written and keeps all rules of {protocol}, {split}." in printed
        assert f"{file} keeps all rules of {protocol}, {split}: {len(ids)} queries" in printed
        assert set(json.loads(file.read_text())) - {"version", "metric"} == set(ids)
    is_scored = protocol == "cirr" or any(run.glob(f"evaluation.{protocol}.{split}.*"))
    assert is_scored == (split == "val")  # circo's test is secret
    if protocol == "cirr":  # the first name is what is ranked first by hand
        answers, system = json.loads(files[0].read_text()), contextjax.load(run)
        for id, question in zip(ids, questions_of(folders[name])[0], strict=True):
            query = system.encode_query([question.reference], [question.text])[0]
            best = question.gallery[int(np.argmax(system.encode_gallery(question.gallery) @ query))]
            assert answers[id][0] == best.stem
