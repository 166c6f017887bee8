"""Searches pictures: python -m experiments.search --workdir=DIR --gallery=PICTURES --image=Q.png --text="the same but".

PICTURES is a folder, a list or a prepared table, as for experiments.embed. It is embedded once, and the index is kept
in the workdir, where that is a folder of this machine. --index=INDEX instead names an index of experiments.embed: its
folder, or a Milvus FILE.db or address.
"""

from absl import flags

from contextjax.files import local_path, path_of
from contextjax.types import UserError, listed
from experiments.shared import cli
from experiments.shared.paths import Place, define_path

WORKDIR = define_path("workdir", Place.SOURCE, "The workdir of a training run.")
GALLERY = define_path("gallery", Place.PICTURES, "The pictures to search. Embedded once, then kept.")
INDEX = define_path("index", Place.PICTURES, "An index to search instead of a gallery.")
IMAGE = define_path("image", Place.FILE, "The reference picture.")
TEXT = flags.DEFINE_string("text", None, "How the wanted picture differs from it.")
COLLECTION = cli.define_collection()
TOP = flags.DEFINE_integer("top", 10, "How many pictures to name.", lower_bound=1)


def main() -> None:
    """Prints the best pictures with their scores (cosines)."""
    import contextjax
    from contextjax.serving.gallery import file_of, search_others
    from contextjax.tokenizers import check_question
    from experiments.shared.galleries import embedded_index, open_index

    workdir, text = path_of(cli.required(WORKDIR)), cli.required(TEXT)
    check_question(text)
    if INDEX.value and GALLERY.value:
        raise UserError("--gallery and --index are both given; give the one to search.")
    gallery = None if INDEX.value else local_path(cli.required(GALLERY))
    image = local_path(cli.required(IMAGE))
    if not image.is_file():
        raise UserError(f"There is no picture at {image}; give the path of a picture file.")
    system = contextjax.load(workdir)
    query = system.encode_query([image], [text])[0]
    for cut in system.truncated([text]):
        print(f"The text is longer than {system.tokenizer.length} tokens; read as: {cut}")
    if gallery:
        index, place = embedded_index(system, gallery, workdir), str(gallery)
    else:
        index = open_index(system, cli.required(INDEX), collection=COLLECTION.value)
        place = index.gallery
    for rank, (name, score) in enumerate(search_others(index, query, TOP.value, place=place, without=image), start=1):
        file = file_of(place, name)
        print(f"{rank:3d}  {score:.4f}  {listed([file if file.is_file() else name])}")


if __name__ == "__main__":
    cli.run(main)
