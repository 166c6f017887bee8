"""Entry points: flags -> config -> data -> library."""

import os
import sys
from pathlib import Path
from types import TracebackType


def _end_quietly(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Ends a command that is interrupted while it is imported; experiments.shared.interruption has all the rest."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    os.write(2, b"Interrupted before anything was done.\n")
    os._exit(130)


if sys.argv and Path(sys.argv[0]).name in ("-m", "contextjax"):  # a command, and no library or notebook
    sys.excepthook = _end_quietly
