"""The emulator of an object store: python -m tests.storage_emulator PORT.

Two things are added that it leaves out and tensorstore relies on: the generation of what is read, and writes that are
refused where another one came first.
"""

import http
import sys
import time

from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import objects
from gcp_storage_emulator.server import create_server

insert, download = objects.insert, objects.download


def generation(storage, bucket, name):
    try:
        return storage.get_file_obj(bucket, name)["generation"]
    except NotFound:
        return "0"


def guarded_insert(request, response, storage, *rest, **more):
    wanted, name = (request.query.get(key, [None])[0] for key in ("ifGenerationMatch", "name"))
    if wanted is not None and name and wanted != generation(storage, request.params["bucket_name"], name):
        response.status = http.HTTPStatus.PRECONDITION_FAILED
    else:
        insert(request, response, storage, *rest, **more)


def download_with_generation(request, response, storage, *rest, **more):
    download(request, response, storage, *rest, **more)
    response["x-goog-generation"] = generation(storage, request.params["bucket_name"], request.params["object_id"])


if __name__ == "__main__":
    objects.insert, objects.download = guarded_insert, download_with_generation
    create_server("localhost", int(sys.argv[1]), in_memory=True, default_bucket="bucket").start()
    time.sleep(3600)
