"""Shows phrases: python -m experiments.maps --workdir=DIR --image=Q.png --text="make the dog small" --target=DIR.

Writes a PNG for each noun phrase of the text: the query picture, where the model sees the phrase in the text, and where
it sees the phrase alone.
"""

import re
from collections.abc import Sequence

from absl import flags

from contextjax.files import local_path, path_of
from experiments.shared import cli
from experiments.shared.paths import Place, define_path

WORKDIR = define_path("workdir", Place.SOURCE, "The workdir of a training run.")
IMAGE = define_path("image", Place.FILE, "The reference picture.")
TEXT = flags.DEFINE_string("text", None, "How the wanted picture differs from it.")
TARGET = define_path("target", Place.NEW_FOLDER, "The folder to write to.")
PHRASE = flags.DEFINE_multi_string("phrase", [], "A part of the text, instead of its noun phrases; may be repeated.")

SIDE = 384  # pixels, the longer side of a picture on a sheet


def main() -> None:
    """Writes TARGET/1-the-dog.png and so on, a sheet for each phrase."""
    import numpy as np
    from PIL import Image

    import contextjax
    from contextjax import images
    from contextjax.reports import phrase_maps, phrase_sheet, scaled
    from contextjax.tokenizers import check_question
    from contextjax.types import UserError

    workdir = path_of(cli.required(WORKDIR))
    path, target = (local_path(cli.required(flag)) for flag in (IMAGE, TARGET))
    text = cli.required(TEXT)
    check_question(text)
    if not path.is_file():
        raise UserError(f"There is no picture at {path}; give the path of a picture file.")
    if target.exists() and not target.is_dir():
        raise UserError(f"{target} is a file; give a folder to write to as --target.")
    system = contextjax.load(workdir)
    image = images.decode(path.read_bytes(), name=str(path))
    (phrases,) = phrase_maps(system, [image], [text], phrases_of=lambda text: find_spans(text, PHRASE.value))
    for cut in system.truncated([text]):
        print(f"The text is longer than {system.tokenizer.length} tokens; read as: {cut}")
        text = cut
    if not phrases:
        raise UserError(f'"{text}" holds no noun phrase; name a part of it, as --phrase="{text.split()[0]}".')
    picture = scaled(np.asarray(image), SIDE)
    seen = images.seen(picture.shape[1], picture.shape[0], fit=system.fit)
    target.mkdir(parents=True, exist_ok=True)
    for number, maps in enumerate(phrases, start=1):
        name = re.sub(r"\W+", "-", maps.phrase.lower()).strip("-")[:40] or "phrase"
        file = target / f"{number}-{name}.png"
        Image.fromarray(phrase_sheet(picture, text, maps, seen=seen)).save(file)
        print(f"{file}  {maps.phrase}")


def find_spans(text: str, phrases: Sequence[str]) -> Sequence[tuple[int, int]]:
    """Returns the characters [start, end) of the given phrases, or of the noun phrases where none are given."""
    from contextjax.types import UserError
    from data_pipelines.concepts import find_phrases

    for phrase in phrases:
        if not phrase.strip() or phrase not in text:
            raise UserError(f'--phrase="{phrase}" is no part of the text "{text}"; copy it from there.')
    given = [(text.index(phrase), text.index(phrase) + len(phrase)) for phrase in phrases]
    return given or find_phrases([text])[0]


if __name__ == "__main__":
    cli.run(main)
