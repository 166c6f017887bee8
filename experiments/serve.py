"""Serves a system over HTTP, with a page to try it: python -m experiments.serve --source=RUN --gallery=FOLDER.

The pictures to search are a gallery (a folder, a list or a prepared table, which is embedded at the first start), or an
--index that experiments.embed has made (--gallery then says where its pictures are now). On SIGTERM the server answers
all requests that have come, then ends.
"""

import socket

from absl import flags

from experiments.shared import cli
from experiments.shared.paths import Place, define_path

SOURCE = define_path("source", Place.SOURCE, "A workdir, an export, or a CLIP or BLIP folder.")
GALLERY = define_path("gallery", Place.PICTURES, "The pictures to search.", default="")
INDEX = define_path(
    "index", Place.PICTURES, "An index of experiments.embed: a folder, or a Milvus FILE.db or address.", default=""
)
COLLECTION = cli.define_collection()
HOST = flags.DEFINE_string("host", "127.0.0.1", "The address to listen on; 0.0.0.0: every one of this machine.")
PORT = flags.DEFINE_integer("port", 8000, "The port.", lower_bound=0, upper_bound=65535)
BATCH = flags.DEFINE_integer(
    "batch", 32, "Requests that are computed together at most.", lower_bound=1, upper_bound=256
)
WAITING = flags.DEFINE_integer("waiting", 128, "Requests that may wait; more are refused.", lower_bound=1)
WARM = flags.DEFINE_bool("warm", True, "Compile the programs of all batch sizes before the first request.")

CONNECTIONS = 1000  # at a time; one more is answered with 503


def main() -> None:
    """Serves the source and its pictures until SIGTERM comes."""
    from experiments.shared.addresses import listen

    with listen(HOST.value, PORT.value) as listener:
        serve(listener)


def serve(listener: socket.socket) -> None:
    """Loads the source and its pictures, and answers at an address that is bound already."""
    from contextjax.serving.app import make_app
    from contextjax.serving.connections import make_server
    from contextjax.serving.service import Limits
    from experiments.shared.galleries import make_service

    service = make_service(
        cli.required(SOURCE), gallery=GALLERY.value, index=INDEX.value, collection=COLLECTION.value,
        limits=Limits(batch=BATCH.value, waiting=WAITING.value),
    )  # fmt: skip
    if WARM.value:
        print("Compiling for all sizes of a batch.", flush=True)
        service.warm()
    print(f"http://{HOST.value}:{listener.getsockname()[1]}/ has {service.pictures} pictures.", flush=True)
    make_server(make_app(service), log_level="warning", limit_concurrency=CONNECTIONS).run(sockets=[listener])


if __name__ == "__main__":
    cli.run(main)
