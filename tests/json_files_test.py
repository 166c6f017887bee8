"""JSON of strangers is read within limits, or refused in one sentence."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from contextjax.json_files import LONG_LIST, MAX_DEPTH, ORDINARY, Limits, parse_json, read_json, read_text
from contextjax.types import UserError


@pytest.mark.parametrize("seed", range(5))
def test_what_json_writes_is_read_back(tmp_path, seed):
    rng = np.random.default_rng(seed)

    def draw(depth: int):
        kind = rng.integers(6 if depth else 4)
        if kind < 4:
            return [None, float(rng.normal()), int(rng.integers(-(10**9), 10**9)), 'ä \U0001f600\n"'][kind]
        members = [draw(depth - 1) for _ in range(rng.integers(4))]
        return members if kind == 4 else {f"k{n}": member for n, member in enumerate(members)}

    value = {"a": [draw(4) for _ in range(5)]}
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        assert parse_json(text) == parse_json(text.encode()) == value
        (tmp_path / "a.json").write_text("\ufeff" + text, encoding="utf-8")
        assert read_json(tmp_path / "a.json", layout="X") == value


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not JSON"),
        (b'{"a": ', "is not JSON"),
        (b"[]", "holds a list; expected X's dict"),
        (b"\xff\xfe{\x00}", "is not UTF-8"),
        (b'{"a": NaN}', "it holds NaN"),
        (b'{"a": -Infinity}', "it holds -Infinity"),
        (b'{"a": {"b": 1, "b": 2, "b": 2}, "a": 1}', "keys more than once: 'b' 3 times, 'a' 2 times"),
        (b'{"a": "\\ud800"}', "surrogates not allowed"),
        (b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1), "nested more than 100 deep"),
        (b"[" * 100_000, "nested more than 100 deep"),
        (b'{"a": ' + b"1" * 5000 + b"}", "is not JSON"),
    ],
)
def test_what_is_no_sound_json_is_refused_in_a_sentence(tmp_path, content, said):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_json(tmp_path / "a.json", layout="X", remedy="write it again")
    message = str(caught.value)
    assert said in message and "a.json" in message and "\n" not in message and message.endswith(".")
    assert "write it again" in message or "save it as UTF-8" in message


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"none\.json is missing; expected X's layout: check the folder, or download"):
        read_json(tmp_path / "none.json", layout="X")
    for path in (tmp_path, Path("/dev/zero")):
        with pytest.raises(UserError, match="is no regular file"):
            read_json(path, layout="X")
    with pytest.raises(UserError, match="is missing"):
        read_json(tmp_path / "a\0b", layout="X")


def test_a_log_may_hold_nan():
    value = parse_json('{"loss": NaN, "step": 3}', allow_nan=True)
    assert np.isnan(value["loss"]) and value["step"] == 3


def test_repeated_keys_are_counted_where_that_is_asked_for():
    repeated: Counter[str] = Counter()
    assert parse_json('{"a": 1, "b": 2, "a": 3}', repeated=repeated) == {"a": 3, "b": 2}
    assert repeated == {"a": 2}


def test_more_than_is_read_is_told(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([{"a": [1, 2]}] * 3))
    size = (tmp_path / "a.json").stat().st_size
    values = 3 * 3 + 1 + 2  # brackets, braces and commas
    assert len(read_json(tmp_path / "a.json", list, layout="X", limits=Limits(size, values))) == 3
    with pytest.raises(UserError, match=f"has {size} bytes; at most {size - 1} are read: split or remove it"):
        read_json(tmp_path / "a.json", list, layout="X", limits=Limits(size - 1, values))
    for read in (read_text, lambda path, **options: read_json(path, list, **options)):
        with pytest.raises(UserError, match=f"holds some {values} values; at most {values - 1} are read"):
            read(tmp_path / "a.json", layout="X", limits=Limits(size, values - 1))


def test_five_million_captions_are_read():
    """Captions of COCO and Visual Genome have 62 and 30 characters on average, and some have a comma."""
    row = {"image": "train2014/COCO_train2014_000000123456.jpg", "caption": "A man, with a red helmet, " * 3}
    count, text = 5_000_000, json.dumps(row) + ", "
    assert count * len(text) < LONG_LIST.bytes and count * sum(map(text.count, ",[{")) < LONG_LIST.values
    assert count * len(text) > ORDINARY.bytes
