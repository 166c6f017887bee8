"""Figures of the noun phrases in modification texts, and of two ways to find their tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from contextjax.json_files import read_json
from contextjax.types import UserError
from data_pipelines.concepts import is_pronoun, token_spans
from data_pipelines.datasets.cirr import CirrReader

PRONOUNS_SHOWN = 12


def read_texts(path: Path, split: str) -> list[str]:
    """Returns the modification texts of a split of a folder in CIRR's layout, or of one annotation file.

    Raises:
      UserError: the file is no list of objects with a caption.
    """
    if path.is_dir():
        return [record.text for record in CirrReader(path).records(split)]
    items = read_json(path, list, layout="CIRR")
    if not items or not all(isinstance(item, dict) and isinstance(item.get("caption"), str) for item in items):
        raise UserError(f"{path} is no list of objects with a caption; expected one of CIRR's captions/*.json.")
    return [item["caption"] for item in items]


def describe(texts: Sequence[str], phrases: Sequence, tokenizer, *, examples: int) -> list[str]:
    """Returns lines of figures: phrases per text, and how many have tokens by character offsets and by ids."""
    encoded = tokenizer(texts)
    flat = [(row, span) for row, spans in enumerate(phrases) for span in spans]
    alone = tokenizer([texts[row][start:end] for row, (start, end) in flat])
    said = Counter(texts[row][start:end].lower() for row, (start, end) in flat)
    pronouns = [(phrase, count) for phrase, count in said.most_common() if is_pronoun(phrase)]
    begin = tokenizer.begin
    lengths = alone.tokens.mask.sum(-1) - 1 - begin  # without the first and the last token
    by_offsets = [next(map(tuple, token_spans((span,), encoded.offsets[row]).tolist()), None) for row, span in flat]
    by_ids = [
        first_run(encoded.tokens.ids[row], ids[begin : begin + length])
        for (row, _), ids, length in zip(flat, alone.tokens.ids, lengths, strict=True)
    ]
    share = lambda count: f"{count} of {len(flat)} ({100 * count / max(len(flat), 1):.2f} %)"
    both = [i for i, (a, b) in enumerate(zip(by_offsets, by_ids, strict=True)) if a and b and a != b]
    lines = [
        f"{len(texts)} texts, {encoded.truncated.sum()} of them longer than {encoded.tokens.ids.shape[-1]} tokens",
        f"phrases per text: mean {len(flat) / len(texts):.2f}, max {max(map(len, phrases))}; "
        f"{sum(not spans for spans in phrases)} texts have none",
        f"tokens per phrase: mean {lengths.mean() if flat else 0:.2f}, max {lengths.max() if flat else 0}",
        f"pronouns (data.pronouns=False leaves them out): {share(sum(count for _, count in pronouns))}"
        + "".join(f", '{phrase}' {count}" for phrase, count in pronouns[:PRONOUNS_SHOWN]),
        f"matched by offsets: {share(sum(span is not None for span in by_offsets))}",
        f"matched by ids: {share(sum(span is not None for span in by_ids))}",
        f"matched by both, but to different tokens: {share(len(both))}",
    ]
    unmatched = [i for i, (a, b) in enumerate(zip(by_offsets, by_ids, strict=True)) if (a is None) != (b is None)]
    for name, which in (("different", both), ("one only", unmatched)):
        for i in which[:examples]:
            row, (start, end) = flat[i]
            where = f"offsets {by_offsets[i]}, ids {by_ids[i]}"
            lines.append(f"  {name}: '{texts[row][start:end]}' in '{texts[row]}': {where}")
    return lines


def first_run(ids, wanted) -> tuple[int, int] | None:
    """Returns the first place [start, end) of `wanted` in `ids`: the published way to a phrase's tokens."""
    ids, wanted = ids.tolist(), wanted.tolist()
    places = (start for start in range(len(ids) - len(wanted) + 1) if ids[start : start + len(wanted)] == wanted)
    start = next(places, None) if wanted else None
    return None if start is None else (start, start + len(wanted))
