"""Compiled programs kept between runs, in a folder that only the user can write: they are executed as they are."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from pathlib import Path

SWITCH = "CONTEXTJAX_COMPILE_CACHE"


def use_compile_cache() -> None:
    """Makes jax, which is not loaded yet, keep what it compiles.

    CONTEXTJAX_COMPILE_CACHE is a folder for it, or "off"; JAX_COMPILATION_CACHE_DIR, if set, stays. Without a folder
    that only the user can enter there is no cache, and a sentence says so.
    """
    wanted = os.environ.get(SWITCH, "")
    if wanted == "off" or "JAX_COMPILATION_CACHE_DIR" in os.environ or "jax" in sys.modules:
        return
    base = Path(wanted) if wanted else default_folder()
    try:
        complaint = _make_private(base) or _make_private(base / _machine())
    except OSError as error:
        complaint = str(error)
    if complaint:
        print(f"Compiled programs are not kept: {complaint} ({SWITCH}=off says that none are wanted).", file=sys.stderr)
        return
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(base / _machine())
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")


def default_folder() -> Path:
    """Returns contextjax/xla in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "contextjax" / "xla"


def _make_private(folder: Path) -> str:
    """Makes a folder that only the user can enter; "" or what is wrong with one that is there, or the one it is in."""
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # whatever the umask: the mode is the last one's alone
    folder.mkdir(mode=0o700, exist_ok=True)
    own, above = folder.lstat(), folder.parent.stat()
    if not stat.S_ISDIR(own.st_mode):
        return f"{folder} is no folder of its own"
    if own.st_uid != os.geteuid() or above.st_uid not in (os.geteuid(), 0):
        return f"{folder} belongs to another user"
    if own.st_mode & 0o022 or (above.st_mode & 0o022 and not above.st_mode & stat.S_ISVTX):
        return f"others can write to {folder}, or to the folder it is in; chmod go-w helps"
    return ""


def _machine() -> str:
    """Returns a hash of the processor's features: a program that is compiled for more of them crashes elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), sys.platform)
    return hashlib.blake2b(features.encode(), digest_size=4).hexdigest()
