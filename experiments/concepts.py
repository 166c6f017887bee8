"""Noun phrases of the modification texts: how many, and what finds their tokens.

python -m experiments.concepts --data=FOLDER_IN_CIRR'S_LAYOUT|captions.json --tokenizer=FOLDER [--split=val]

Two ways from a phrase to its tokens in the text: character offsets (what training does), and the first run of the
phrase's own ids among the text's (the published way). No pictures are needed.
"""

import datetime
import time
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from contextjax.types import UserError
from experiments.shared import cli

DATA = flags.DEFINE_string("data", None, "A folder in CIRR's layout, or a JSON list of objects with a caption.")
SPLIT = flags.DEFINE_string("split", "val", "The split of the folder.")
TOKENIZER = flags.DEFINE_string("tokenizer", None, "A tokenizer.json, or the folder of a CLIP or BERT checkpoint.")
LENGTH = flags.DEFINE_integer("length", 77, "Tokens of a text.", lower_bound=3)
EXAMPLES = flags.DEFINE_integer("examples", 3, "Phrases to print where the two ways differ.", lower_bound=0)


def main() -> None:
    """Texts -> phrases -> their tokens in two ways -> figures."""
    from contextjax.tokenizers import TextTokenizer
    from data_pipelines.concepts import find_phrases
    from experiments.shared.machine import cpu_model

    texts = read_texts(Path(cli.required(DATA)), SPLIT.value)
    tokenizer = TextTokenizer.read(Path(cli.required(TOKENIZER)), length=LENGTH.value)
    find_phrases(texts[:1])  # loads the pipeline
    begin = time.perf_counter()
    phrases = find_phrases(texts)
    seconds = time.perf_counter() - begin
    print(f"{len(texts) / seconds:,.0f} texts/s in one process, {cpu_model()}, {datetime.date.today()}")
    print("\n".join(describe(texts, phrases, tokenizer, examples=EXAMPLES.value)))


def read_texts(path: Path, split: str) -> list[str]:
    """The modification texts of a split, or of one annotation file."""
    from contextjax.json_files import read_json
    from data_pipelines.datasets.cirr import CirrReader

    if path.is_dir():
        return [record.text for record in CirrReader(path).records(split)]
    items = read_json(path, list, layout="CIRR")
    if not items or not all(isinstance(item, dict) and isinstance(item.get("caption"), str) for item in items):
        raise UserError(f"{path} is no list of objects with a caption; expected one of CIRR's captions/*.json.")
    return [item["caption"] for item in items]


def describe(texts: Sequence[str], phrases: Sequence, tokenizer, *, examples: int) -> list[str]:
    """Lines of figures."""
    from data_pipelines.concepts import token_spans

    encoded = tokenizer(texts)
    flat = [(row, span) for row, found in enumerate(phrases) for span in found]
    alone = tokenizer([texts[row][start:end] for row, (start, end) in flat])
    lengths = alone.tokens.mask.sum(-1) - 2  # without the first and the last token
    by_offsets = [next(map(tuple, token_spans((span,), encoded.offsets[row]).tolist()), None) for row, span in flat]
    by_ids = [
        first_run(encoded.tokens.ids[row], ids[1 : length + 1])
        for (row, _), ids, length in zip(flat, alone.tokens.ids, lengths, strict=True)
    ]
    share = lambda count: f"{count} of {len(flat)} ({100 * count / max(len(flat), 1):.2f} %)"
    both = [i for i, (a, b) in enumerate(zip(by_offsets, by_ids, strict=True)) if a and b and a != b]
    lines = [
        f"{len(texts)} texts, {encoded.truncated.sum()} of them longer than {encoded.tokens.ids.shape[-1]} tokens",
        f"phrases per text: mean {len(flat) / len(texts):.2f}, max {max(map(len, phrases))}; "
        f"{sum(not found for found in phrases)} texts have none",
        f"tokens per phrase: mean {lengths.mean() if flat else 0:.2f}, max {lengths.max() if flat else 0}",
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
    """The first place [start, end) where `wanted` stands in `ids`: the published way to a phrase's tokens."""
    ids, wanted = ids.tolist(), wanted.tolist()
    places = (start for start in range(len(ids) - len(wanted) + 1) if ids[start : start + len(wanted)] == wanted)
    start = next(places, None) if wanted else None
    return None if start is None else (start, start + len(wanted))


if __name__ == "__main__":
    cli.run(main)
