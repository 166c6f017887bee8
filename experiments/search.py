"""Searches pictures: python -m experiments.search --workdir=DIR --gallery=PICTURES --image=Q.png --text="the same but".

A text alone finds what it describes, a picture alone what is like it. Several --image or --text are several questions:
as many of both make pairs, and one goes with each of the others. PICTURES is a folder, a list or a prepared table, as
for experiments.embed. It is embedded once, and the index is kept in the workdir, where that is a folder of this
machine. --index=INDEX instead names an index of experiments.embed: its folder, or a Milvus FILE.db or address;
--gallery then says where its pictures are now, if they have been moved.
"""

from absl import flags

from contextjax.files import local_path, path_of
from experiments.shared import cli
from experiments.shared.paths import Place, define_path, define_paths

WORKDIR = define_path("workdir", Place.SOURCE, "The workdir of a training run.")
GALLERY = define_path("gallery", Place.PICTURES, "The pictures to search. Embedded once, then kept.")
INDEX = define_path("index", Place.PICTURES, "An index to search instead of a gallery.")
IMAGE = define_paths("image", Place.FILE, "A reference picture.")
TEXT = flags.DEFINE_multi_string("text", None, "How the wanted picture differs from it; alone: what it shows.")
COLLECTION = cli.define_collection()
TOP = flags.DEFINE_integer("top", 10, "How many pictures to name.", lower_bound=1)
WHERE = flags.DEFINE_string("where", None, "A filter by attributes of the index: \"price < 20 and colour = 'red'\".")
THRESHOLD = flags.DEFINE_float("threshold", None, "The least score of a picture to name.", -1.0, 1.0)


def main() -> None:
    """Prints the best pictures of each question with their scores (cosines)."""
    import contextjax
    from contextjax.serving.filters import parse
    from contextjax.serving.questions import pair
    from contextjax.tokenizers import check_question
    from experiments.shared.galleries import embedded_index, open_index, print_answers

    workdir, texts = path_of(cli.required(WORKDIR)), TEXT.value or []
    for text in texts:
        check_question(text)
    questions = pair([local_path(image) for image in IMAGE.value or []], texts)
    if not INDEX.value:
        cli.required(GALLERY)
    system = contextjax.load(workdir)
    for cut in system.truncated(texts):
        print(f"The text is longer than {system.tokenizer.length} tokens; read as: {cut}")
    if INDEX.value:
        index = open_index(system, INDEX.value, collection=COLLECTION.value)
    else:
        index = embedded_index(system, local_path(cli.required(GALLERY)), workdir)
    if WHERE.value is not None:
        parse(WHERE.value, index.kinds)
    place = str(local_path(GALLERY.value)) if GALLERY.value else index.gallery
    queries = system.encode(*zip(*questions, strict=True))
    print_answers(index, place, questions, queries, k=TOP.value, threshold=THRESHOLD.value, where=WHERE.value)


if __name__ == "__main__":
    cli.run(main)
