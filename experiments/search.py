"""Searches pictures: python -m experiments.search --workdir=DIR --gallery=PICTURES --image=Q.png --text="the same but".

A text alone finds what it describes, a picture alone what is like it. Several --image or --text are several questions:
as many of both make pairs, and one goes with each of the others. PICTURES is a folder, a list or a prepared table, as
for experiments.embed. It is embedded once, and the index is kept in the workdir, where that is a folder of this
machine. --index=INDEX instead names an index of experiments.embed: its folder, or a Milvus FILE.db or address.
"""

from absl import flags

from contextjax.files import local_path, path_of
from contextjax.types import UserError
from experiments.shared import cli
from experiments.shared.paths import Place, define_path, define_paths

WORKDIR = define_path("workdir", Place.SOURCE, "The workdir of a training run.")
GALLERY = define_path("gallery", Place.PICTURES, "The pictures to search. Embedded once, then kept.")
INDEX = define_path("index", Place.PICTURES, "An index to search instead of a gallery.")
IMAGE = define_paths("image", Place.FILE, "A reference picture.")
TEXT = flags.DEFINE_multi_string("text", None, "How the wanted picture differs from it; alone: what it shows.")
COLLECTION = cli.define_collection()
TOP = flags.DEFINE_integer("top", 10, "How many pictures to name.", lower_bound=1)
THRESHOLD = flags.DEFINE_float("threshold", None, "The least score of a picture to name.", -1.0, 1.0)


def main() -> None:
    """Prints the best pictures of each question with their scores (cosines)."""
    import contextjax
    from contextjax.serving.questions import pair
    from contextjax.tokenizers import check_question
    from experiments.shared.galleries import embedded_index, open_index, print_answers

    workdir, texts = path_of(cli.required(WORKDIR)), TEXT.value or []
    for text in texts:
        check_question(text)
    questions = pair([local_path(image) for image in IMAGE.value or []], texts)
    if INDEX.value and GALLERY.value:
        raise UserError("--gallery and --index are both given; give the one to search.")
    gallery = None if INDEX.value else local_path(cli.required(GALLERY))
    system = contextjax.load(workdir)
    for cut in system.truncated(texts):
        print(f"The text is longer than {system.tokenizer.length} tokens; read as: {cut}")
    queries = system.encode(*zip(*questions, strict=True))
    if gallery:
        index, place = embedded_index(system, gallery, workdir), str(gallery)
    else:
        index = open_index(system, cli.required(INDEX), collection=COLLECTION.value)
        place = index.gallery
    print_answers(index, place, questions, queries, k=TOP.value, threshold=THRESHOLD.value)


if __name__ == "__main__":
    cli.run(main)
