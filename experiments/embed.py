"""Embeds a gallery into an index: python -m experiments.embed --workdir=DIR --gallery=PICTURES --target=INDEX.

PICTURES is a folder, a text file that lists pictures (a path a line), or a prepared table in array_record files
(PREPARED/pictures.SPLIT.json). The same command continues where it stopped, and later brings the index up to date. With
--milvus the index is then copied to Milvus: into a file, or to a server's address, whose login the environment gives as
CONTEXTJAX_MILVUS_TOKEN=user:password. With --attributes its pictures have the columns of a table, with --vectors the
embeddings are also written as npy and parquet, or as a FAISS index. With --cluster the nodes of a Ray cluster embed.
"""

from pathlib import Path

from absl import flags

from contextjax.files import check_absent, local_path
from experiments.shared import cli
from experiments.shared.paths import Place, define_path

WORKDIR = define_path("workdir", Place.SOURCE, "The workdir of a training run, or anything else contextjax.load takes.")
GALLERY = define_path("gallery", Place.PICTURES, "The pictures to embed: a folder, a list, or a prepared table.")
TARGET = define_path("target", Place.NEW_FOLDER, "The folder of the index.")
STORAGE = flags.DEFINE_enum(
    "storage", None, ["float32", "bfloat16", "int8"], "How a new index keeps embeddings; default: float32."
)
MILVUS = define_path("milvus", Place.NEW_FILE, "Copy the index to this Milvus: FILE.db, or http://HOST:PORT.")
ATTRIBUTES = define_path(
    "attributes",
    Place.FILE,
    "A table (CSV or parquet) of the pictures' attributes, which searches filter on by --where.",
)
VECTORS = define_path("vectors", Place.NEW_FOLDER, "Write the embeddings and their rows' names into this new folder.")
FORMS = flags.DEFINE_multi_enum("vectors_as", ["npy"], ["npy", "faiss"], "The files of --vectors; each may be given.")
COLLECTION = cli.define_collection()
CLUSTER = cli.define_cluster()
PROCESS_TIMEOUT = cli.define_process_timeout()
KEEPS_MEMORY = True


def main() -> None:
    """Embeds a gallery, by itself or as one of several processes."""
    cli.distributed(embed_gallery, timeout=PROCESS_TIMEOUT.value)


def embed_gallery() -> None:
    """Embeds the gallery that the flags name, and prints what was done, and how fast."""
    import contextjax
    from contextjax.serving.attributes import read_table
    from contextjax.serving.embedding import describe_skipped, embed
    from contextjax.sharding import is_first_process
    from experiments.shared.clusters import engine_of, spread_over
    from experiments.shared.galleries import Speed, copy_to_milvus, give_attributes, open_gallery
    from experiments.shared.vectors import check_packages, write_vectors

    table = read_table(local_path(ATTRIBUTES.value)) if ATTRIBUTES.value else None
    if VECTORS.value:
        check_packages(FORMS.value)
        check_absent(local_path(VECTORS.value))
    target = local_path(cli.required(TARGET))
    gallery = open_gallery(local_path(cli.required(GALLERY)))
    source = cli.required(WORKDIR)
    with engine_of(CLUSTER.value, reads=[Path(gallery.place), Path(source)], writes=target) as engine:
        system = contextjax.load(source)
        speed, spread = Speed(system), spread_over(engine, source, gallery)
        index = embed(system, gallery, target, storage=STORAGE.value, progress=speed.progress, spread=spread)
    print(speed.summary(workers=engine is not None))
    if index.skipped:
        print(describe_skipped(index.skipped))
    print(f"{target} holds {len(index)} pictures, {index.dimension} values each as {index.manifest.storage}.")
    if not is_first_process():
        return
    if table is not None:
        give_attributes(index, table)
    if VECTORS.value:
        write_vectors(index, local_path(VECTORS.value), FORMS.value)
    if MILVUS.value:
        copy_to_milvus(index, MILVUS.value, COLLECTION.value)


if __name__ == "__main__":
    cli.run(main)
