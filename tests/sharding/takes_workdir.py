"""One of two processes that want to train in a workdir: python -m tests.sharding.takes_workdir WORKDIR."""

import sys
from pathlib import Path

from contextjax.sharding import end_together, start_processes
from contextjax.training.loop import alone_in
from contextjax.types import UserError

if __name__ == "__main__":
    start_processes(timeout=30)
    try:
        with alone_in(Path(sys.argv[1])):
            print("has it")
    except UserError as error:
        print(error)
    end_together(30)
