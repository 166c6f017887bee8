"""Serves a system over HTTP, with a page to try it: python -m experiments.serve --source=RUN --gallery=FOLDER.

The pictures to search are a gallery (a folder, a list or a prepared table, which is embedded at the first start), or an
--index that experiments.embed has made (--gallery then says where its pictures are now). On SIGTERM the server answers
all requests that have come, then ends.
"""

import signal
import sys

from absl import flags

from experiments.shared import cli

SOURCE = flags.DEFINE_string("source", None, "A workdir, an export, or a CLIP or BLIP folder.")
GALLERY = flags.DEFINE_string("gallery", "", "The pictures to search.")
INDEX = flags.DEFINE_string("index", "", "An index of experiments.embed: a folder, or a Milvus FILE.db or address.")
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
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(cli.STOPPED))  # process 1 of a container hears no other
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
    print(f"http://{HOST.value}:{PORT.value}/ has {service.pictures} pictures.", flush=True)
    options = {"host": HOST.value, "port": PORT.value, "log_level": "warning", "limit_concurrency": CONNECTIONS}
    make_server(make_app(service), **options).run()


if __name__ == "__main__":
    cli.run(main)
