"""Serves a system over HTTP, with a page to try it: python -m experiments.serve --source=RUN --gallery=FOLDER.

The pictures to search are a gallery (a folder, a list, a prepared table; embedded at the first start) or --index, what
experiments.embed made (then --gallery says where its pictures are now). SIGTERM ends it when every request that has
come is answered.
"""

import signal
import sys
from pathlib import Path

from absl import flags

from contextjax.files import local_path, path_of
from experiments.shared import cli

SOURCE = flags.DEFINE_string("source", None, "A workdir, an export, or a CLIP or BLIP folder.")
GALLERY = flags.DEFINE_string("gallery", "", "The pictures to search.")
INDEX = flags.DEFINE_string(
    "index", "", "What experiments.embed made of them: a folder, or a Milvus FILE.db or address."
)
COLLECTION = cli.define_collection()
HOST = flags.DEFINE_string("host", "127.0.0.1", "The address to listen on; 0.0.0.0: every one of this machine.")
PORT = flags.DEFINE_integer("port", 8000, "The port.", lower_bound=0, upper_bound=65535)
BATCH = flags.DEFINE_integer(
    "batch", 32, "Requests that are computed together at most.", lower_bound=1, upper_bound=256
)
WAITING = flags.DEFINE_integer("waiting", 128, "Requests that may wait; more are refused.", lower_bound=1)
WARM = flags.DEFINE_bool("warm", True, "Compile what all sizes of a batch need before the first request.")

CONNECTIONS = 1000  # at a time; one more is answered with 503


def main() -> None:
    """Source and pictures -> a server."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(cli.STOPPED))  # process 1 of a container hears no other
    import uvicorn

    from contextjax.serving.app import make_app
    from contextjax.serving.connections import HeadLimit
    from contextjax.serving.service import Limits

    service = make_service(
        cli.required(SOURCE), gallery=GALLERY.value, index=INDEX.value, collection=COLLECTION.value,
        limits=Limits(batch=BATCH.value, waiting=WAITING.value),
    )  # fmt: skip
    if WARM.value:
        print("Compiling for all sizes of a batch.", flush=True)
        service.warm()
    print(f"http://{HOST.value}:{PORT.value}/ has {service.pictures} pictures.", flush=True)
    uvicorn.run(
        make_app(service), host=HOST.value, port=PORT.value, log_level="warning", server_header=False,
        limit_concurrency=CONNECTIONS, http=HeadLimit,
    )  # fmt: skip


def make_service(source: str, *, gallery: str, index: str, collection: str, limits):
    """A system and, where there is one, an index of the pictures."""
    import contextjax
    from contextjax.serving.service import Service
    from data_pipelines.concepts import find_phrases
    from experiments.shared.galleries import embedded_index, open_gallery, open_index

    system, found, place = contextjax.load(source), None, gallery
    if index:
        found, made_of = open_index(system, index, collection=collection)
        place = gallery or made_of
    elif gallery:
        found, _ = embedded_index(system, local_path(gallery), path_of(source))
    pictures = open_gallery(local_path(place)) if place and Path(place).exists() else None
    if found is not None and pictures is None:
        print(f"The pictures of the index are not at '{place}': none is shown; --gallery says where they are.")
    has_maps = getattr(system, "query", "") == "fusion" and hasattr(type(system), "attention_maps")
    phrases_of = (lambda text: find_phrases([text])[0]) if has_maps else None
    return Service(system, found, gallery=pictures, phrases_of=phrases_of, limits=limits)


if __name__ == "__main__":
    cli.run(main)
