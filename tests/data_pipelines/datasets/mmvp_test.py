"""MMVP-VLM's layout: every two rows a pair, every statement of its own picture."""

import numpy as np
import pytest
from PIL import Image

from contextjax.metrics import pair_accuracy, rank_of_truth
from contextjax.types import CandidateRecord, UserError
from data_pipelines.datasets.mmvp import MmvpReader, pair_ids
from data_pipelines.tables import load_split

HEADER = "Question ID,Type,Statement\n"
ROWS = [
    "1,Orientation,a dog that looks left",
    '2,Orientation,"a dog, to the right"',
    "3,Camera Perspective,a house from above",
    "4,Camera Perspective, a house from below ",
]


def write(folder, rows, header=HEADER):
    (folder / "Questions.csv").write_text(header + "\n".join(rows) + "\n", encoding="utf-8")


@pytest.fixture
def folder(tmp_path):
    for row in ROWS:
        number, kind, _ = row.split(",", 2)
        (tmp_path / "MLLM_VLM Images" / kind).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (int(number), 0, 0)).save(tmp_path / "MLLM_VLM Images" / kind / f"{number}.jpg")
    write(tmp_path, ROWS)
    return tmp_path


def test_records_say_what_the_file_says(folder):
    first, second = ("Orientation/1", "Orientation/2"), ("Camera Perspective/3", "Camera Perspective/4")
    reader = MmvpReader(folder)
    assert reader.records("test") == [
        CandidateRecord("1-2/0", first, "a photo of a dog that looks left", 0, "Orientation"),
        CandidateRecord("1-2/1", first, "a photo of a dog, to the right", 1, "Orientation"),
        CandidateRecord("3-4/0", second, "a photo of a house from above", 0, "Camera Perspective"),
        CandidateRecord("3-4/1", second, "a photo of a house from below", 1, "Camera Perspective"),
    ]
    assert list(reader.pictures("test")) == [*first, *second] and reader.captions("test") == {}
    assert pair_ids(reader.records("test")) == ["1-2", "1-2", "3-4", "3-4"]


def test_it_is_prepared_and_scored(folder):
    data = load_split(MmvpReader(folder), folder, "test", size=8)
    assert list(data.records) == MmvpReader(folder).records("test")
    truth = np.asarray([record.target for record in data.records])
    right = np.eye(2)[truth]
    score = lambda scores: pair_accuracy(rank_of_truth(scores, truth), pair_ids(data.records))
    assert score(right) == 100 and score(-right) == score(np.zeros((4, 2))) == 0
    right[0] = right[1]
    assert score(right) == 50


def test_columns_may_stand_in_any_order_and_a_mark_before_them(folder):
    expected = MmvpReader(folder).records("test")
    (folder / "Questions.csv").write_text(
        "Statement,Question ID,Note, Type\n" + "\n".join(
            f'"{row.split(",", 2)[2].strip(chr(34))}",{row.split(",")[0]},x,{row.split(",")[1]}' for row in ROWS
        ) + "\n\n",
        encoding="utf-8-sig",
    )  # fmt: skip
    assert MmvpReader(folder).records("test") == expected


def test_all_problems_come_at_once(folder):
    write(
        folder,
        [*ROWS, "1,Color,red", "x,Color,green", "7,Text,one", "8,State,two", "9,../..,three", "10,Text,?", "11,Color"],
    )
    with pytest.raises(UserError) as error:
        MmvpReader(folder).records("test")
    for said in (
        "Questions.csv has 5 problem(s)", "the id 'x', which is no number",
        "questions 7 and 8 are a pair, but of the patterns 'Text' and 'State'", "question 9 has the pattern '../..'",
        "question 11 has no partner",
        "questions 9 and 10 are a pair",
    ):  # fmt: skip
        assert said in str(error.value)


def test_a_missing_picture_is_reported(folder):
    (folder / "MLLM_VLM Images" / "Orientation" / "2.jpg").unlink()
    with pytest.raises(UserError, match=r"Orientation/2 has no file"):
        load_split(MmvpReader(folder), folder, "test", size=8)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "has the columns of an empty file"),
        (b"id,text\n1,a\n", "has the columns id, text; expected Question ID, Type, Statement"),
        (HEADER.encode(), "holds no questions"),
        (b"\xff\xfe\x00", "is not UTF-8"),
    ],
)
def test_files_of_another_shape_are_reported(folder, content, said):
    (folder / "Questions.csv").write_bytes(content)
    with pytest.raises(UserError, match=said):
        MmvpReader(folder).records("test")


@pytest.mark.parametrize("name", ["Questions.csv", "MLLM_VLM Images"])
def test_another_folder_is_reported(folder, name):
    (folder / name).rename(folder / "elsewhere")
    with pytest.raises(UserError, match=f"holds no {name}; expected a folder in MMVP-VLM's layout"):
        MmvpReader(folder)
