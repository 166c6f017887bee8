"""One of the processes that embed a gallery: python -m tests.serving.embeds GALLERY INDEX SECONDS_PER_BATCH."""

import sys
from pathlib import Path

from contextjax.serving import embedding
from contextjax.serving.gallery import folder_gallery
from contextjax.sharding import start_processes
from tests.serving.embedding_test import Colours

if __name__ == "__main__":
    start_processes(timeout=60)
    embedding.SEGMENT, embedding.BATCH = 6, 4
    system = Colours(seconds=float(sys.argv[3]))
    print("ready", flush=True)
    index = embedding.embed(system, folder_gallery(Path(sys.argv[1])), Path(sys.argv[2]))
    print(sum(system.encoded), len(index))
