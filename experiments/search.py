"""Searches a folder: python -m experiments.search --workdir=DIR --gallery=DIR --image=Q.png --text="the same, but"."""

from absl import flags

from contextjax.files import is_remote, local_path, path_of
from experiments import cli

WORKDIR = flags.DEFINE_string("workdir", None, "The workdir of a training run.")
GALLERY = flags.DEFINE_string("gallery", None, "The folder to search, with its subfolders. Embedded once, then kept.")
IMAGE = flags.DEFINE_string("image", None, "The reference picture.")
TEXT = flags.DEFINE_string("text", None, "How the wanted picture differs from it.")
TOP = flags.DEFINE_integer("top", 10, "How many pictures to name.", lower_bound=1)


def main() -> None:
    """Prints the best pictures with their scores (cosines)."""
    import contextjax
    from contextjax.serving.gallery import embed_folder
    from contextjax.types import UserError

    workdir = path_of(cli.required(WORKDIR))
    gallery, image = (local_path(cli.required(flag)) for flag in (GALLERY, IMAGE))
    text = cli.required(TEXT)
    if not image.is_file():
        raise UserError(f"There is no picture at {image}; give the path of a PNG, JPEG or WebP file.")
    system = contextjax.load(workdir)
    query = system.encode_query([image], [text])[0]
    for cut in system.truncated([text]):
        print(f"The text is longer than {system.tokenizer.length} tokens; read as: {cut}")
    index = embed_folder(system, gallery, cache=None if is_remote(workdir) else workdir / "galleries")
    for rank, (name, score) in enumerate(index.search(query, TOP.value, without=image), start=1):
        print(f"{rank:3d}  {score:.4f}  {name}")


if __name__ == "__main__":
    cli.run(main, doc=__doc__)
