"""Counts the noun phrases of modification texts, and compares two ways to find their tokens.

python -m experiments.concepts --data=FOLDER_IN_CIRR'S_LAYOUT|captions.json --tokenizer=FOLDER [--split=val]

Two ways from a phrase to its tokens in the text: character offsets (what training does), and the first run of the
phrase's own ids among the text's (the published way). No pictures are needed.
"""

import datetime
import time
from pathlib import Path

from absl import flags

from experiments.shared import cli
from experiments.shared.paths import Place, define_path

DATA = define_path("data", Place.PICTURES, "A folder in CIRR's layout, or a JSON list of objects with a caption.")
SPLIT = flags.DEFINE_string("split", "val", "The split of the folder.")
TOKENIZER = define_path("tokenizer", Place.PICTURES, "A tokenizer.json, or the folder of a CLIP or BERT checkpoint.")
LENGTH = flags.DEFINE_integer("length", 77, "Tokens of a text.", lower_bound=3)
EXAMPLES = flags.DEFINE_integer("examples", 3, "Phrases to print where the two ways differ.", lower_bound=0)


def main() -> None:
    """Reads the texts, finds their phrases and tokens in two ways, and prints figures."""
    from contextjax.tokenizers import TextTokenizer
    from data_pipelines.concepts import find_phrases
    from experiments.shared.machine import cpu_model
    from experiments.shared.phrase_figures import describe, read_texts

    texts = read_texts(Path(cli.required(DATA)), SPLIT.value)
    tokenizer = TextTokenizer.read(Path(cli.required(TOKENIZER)), length=LENGTH.value)
    find_phrases(texts[:1])  # loads the pipeline
    begin = time.perf_counter()
    phrases = find_phrases(texts)
    seconds = time.perf_counter() - begin
    print(f"{len(texts) / seconds:,.0f} texts/s in one process, {cpu_model()}, {datetime.date.today()}")
    print("\n".join(describe(texts, phrases, tokenizer, examples=EXAMPLES.value)))


if __name__ == "__main__":
    cli.run(main)
