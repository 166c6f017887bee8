"""Searches pictures: python -m experiments.search --workdir=DIR --gallery=PICTURES --image=Q.png --text="the same but".

PICTURES are a folder, a list or a prepared table, as for experiments.embed; they are embedded once, then kept in the
workdir. --index=INDEX in their place is what experiments.embed made: its folder, or a Milvus FILE.db or address.
"""

import hashlib
from pathlib import Path
from typing import Any

from absl import flags

from contextjax.files import is_remote, local_path, path_of
from contextjax.types import UserError
from experiments import cli

WORKDIR = flags.DEFINE_string("workdir", None, "The workdir of a training run.")
GALLERY = flags.DEFINE_string("gallery", None, "The pictures to search. Embedded once, then kept.")
INDEX = flags.DEFINE_string("index", None, "An index to search instead of a gallery.")
IMAGE = flags.DEFINE_string("image", None, "The reference picture.")
TEXT = flags.DEFINE_string("text", None, "How the wanted picture differs from it.")
TOP = flags.DEFINE_integer("top", 10, "How many pictures to name.", lower_bound=1)


def main() -> None:
    """Prints the best pictures with their scores (cosines)."""
    import contextjax
    from contextjax.serving.gallery import file_of, search_others

    workdir, text = path_of(cli.required(WORKDIR)), cli.required(TEXT)
    if INDEX.value and GALLERY.value:
        raise UserError("--gallery and --index are both given; give the one to search.")
    gallery = None if INDEX.value else local_path(cli.required(GALLERY))
    image = local_path(cli.required(IMAGE))
    if not image.is_file():
        raise UserError(f"There is no picture at {image}; give the path of a PNG, JPEG or WebP file.")
    system = contextjax.load(workdir)
    query = system.encode_query([image], [text])[0]
    for cut in system.truncated([text]):
        print(f"The text is longer than {system.tokenizer.length} tokens; read as: {cut}")
    index, place = _embedded(system, gallery, workdir) if gallery else _opened(system, cli.required(INDEX))
    for rank, (name, score) in enumerate(search_others(index, query, TOP.value, place=place, without=image), start=1):
        file = file_of(place, name)
        print(f"{rank:3d}  {score:.4f}  {file if file.is_file() else name}")


def _embedded(system: Any, gallery: Path, workdir: Path) -> tuple[Any, str]:
    """The index of a gallery, kept in the workdir or in a folder that goes away, and the gallery's place."""
    import tempfile

    from contextjax.serving.embedding import embed, told
    from experiments.galleries import open_gallery

    pictures = open_gallery(gallery)
    key = hashlib.blake2b(f"{system.fingerprint}\0{pictures.place}".encode(errors="replace"), digest_size=8).hexdigest()
    with tempfile.TemporaryDirectory() as scratch:
        index = embed(system, pictures, (Path(scratch) if is_remote(workdir) else workdir / "galleries") / key)
        index.load()
    if index.skipped:
        print(told(index.skipped))
    return index, str(gallery)


def _opened(system: Any, place: str) -> tuple[Any, str]:
    """The index at a place, and the place of its gallery."""
    if "://" in place or place.endswith(".db"):
        from contextjax.serving.milvus import MilvusIndex

        found = MilvusIndex(place)
        found.check(system.fingerprint)
        return found, found.about["gallery"]
    from contextjax.serving.index import Index

    index = Index(local_path(place))
    index.check(system.fingerprint)
    return index, index.manifest.gallery


if __name__ == "__main__":
    cli.run(main, doc=__doc__)
