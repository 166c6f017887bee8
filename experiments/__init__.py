"""Entry points: flags -> config -> data -> library."""

import os
import sys
from types import TracebackType


def _end_quietly(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Ends a command that is interrupted during its imports; experiments.shared.interruption handles later signals."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    os.write(2, b"Interrupted before anything was done.\n")
    os._exit(130)


# For a command, and no library or notebook. Nothing is imported before: an interruption would be a traceback.
if sys.argv and os.path.basename(sys.argv[0]) in ("-m", "contextjax"):  # noqa: PTH119
    sys.excepthook = _end_quietly
