"""Prints the peak of a command's own memory: python -m tests.data_pipelines.cluster.maps_rows ROWS ADDRESS.

Each row becomes 10 KB. The memory is what the process does not share with others, as the object store is.
"""

import sys
import threading
import time
from pathlib import Path

from data_pipelines.cluster.engine import Work
from data_pipelines.cluster.nodes import connected

peak = 0


def watch() -> None:
    global peak
    while True:
        lines = Path("/proc/self/status").read_text().splitlines()
        peak = max(peak, *(int(line.split()[1]) for line in lines if line.startswith("RssAnon")))
        time.sleep(0.02)


if __name__ == "__main__":
    count, address = int(sys.argv[1]), sys.argv[2]
    threading.Thread(target=watch, daemon=True).start()
    with connected(address) as engine:
        rows = engine.map_rows(Work(lambda: lambda row: bytes(10_240), "row", chunk=256, size=len), range(count))
        assert sum(map(len, rows)) == count * 10_240
        print(engine.facts or "", count, "rows, peak in kB:", peak)
