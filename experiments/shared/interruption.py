"""Ctrl-C and SIGTERM: a command ends with one sentence and exit code 130 or 143, wherever the signal comes.

Python handles a signal only between two of its own instructions, so a command inside a compiler reacts minutes later,
and an interpreter that shuts down while threads compile crashes. So a thread of its own waits for the signal and ends
the process where the main thread does not react, and no interrupted process is taken down the regular way.
When a command has ended and Python shuts down, signals are ignored.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any, NoReturn

PATIENCE = 3.0  # seconds that the main thread has to hear a signal
LOST, TRIES = 255, 20  # what stands in the pipe for an interruption that was lost, and how many may be
SENTENCES = {
    signal.SIGINT: "Interrupted; nothing that was saved is lost, and the same command continues.",
    signal.SIGTERM: "Asked to stop; nothing that was saved is lost, and the same command continues.",
}
_state: dict[str, Any] = {"heard": None, "since": 0.0, "is_over": False}


class Interrupted(KeyboardInterrupt):
    """A signal asks this command to end; raised in the main thread, so that everything is closed on its way out."""


def listen() -> None:
    """Listens for SIGINT and SIGTERM until the process ends. Elsewhere than in the main thread it does nothing.

    A signal that is ignored, as SIGINT is in the background of a shell, stays ignored.
    """
    _state.update(heard=None, is_over=False)
    if threading.current_thread() is not threading.main_thread():
        return
    for number in SENTENCES:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _hear)


def watch() -> None:
    """Starts the thread that ends this process if the main thread does not handle a signal; once in a process."""
    if "reader" in _state or threading.current_thread() is not threading.main_thread():
        return
    _state["reader"], _state["writer"] = os.pipe()
    os.set_blocking(_state["writer"], False)
    signal.set_wakeup_fd(_state["writer"], warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=_forget)
    atexit.register(_ignore)  # before the libraries' own, so that it is called after them
    _state["hook"], sys.unraisablehook = sys.unraisablehook, _again
    threading.Thread(target=_watch, name="interruption", daemon=True).start()


def heard() -> int | None:
    """Returns the signal that this command was asked to end by, or None."""
    return _state["heard"]


def over() -> None:
    """Notes that the command has ended: a signal that comes now ends the process at once."""
    _state["is_over"] = True


def leave(number: int) -> NoReturn:
    """Ends this process and its workers now, with the sentence of the signal and its exit code."""
    for worker in multiprocessing.active_children():
        worker.terminate()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        os.write(2, f"{SENTENCES[signal.Signals(number)]}\n".encode())
    os._exit(128 + number)


def _hear(number: int, frame: FrameType | None) -> None:
    now = time.monotonic()
    if _state["is_over"] or (_state["heard"] and now - _state["since"] > 1) or _is_importing(frame):
        leave(number)  # at the very end, asked twice, or where some libraries crash if they can't be imported
    _state.update(heard=number, since=now)
    raise Interrupted


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _watch() -> None:
    """Ends the process if the main thread does not handle a signal, for example because it is in a compiler."""
    lost = 0
    while number := os.read(_state["reader"], 1)[0]:
        if number == LOST:
            lost += 1
            if lost > TRIES:
                leave(_state["heard"] or signal.SIGINT)
            time.sleep(0.1)
            _state["since"] = time.monotonic()
            _thread.interrupt_main(_state["heard"] or signal.SIGINT)
            continue
        if number not in SENTENCES or signal.getsignal(number) is not _hear:
            continue
        came = time.monotonic()
        is_heard = lambda came=came: _state["since"] > came - 1  # it may have been before this thread was woken
        while not is_heard() and time.monotonic() < came + PATIENCE:
            time.sleep(0.05)
        if not is_heard():
            leave(number)


def _again(unraisable: Any) -> None:
    """Raises an interruption once more that came where nothing can be raised, such as in a destructor."""
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
        _state["hook"](unraisable)
    elif _state["is_over"]:
        leave(_state["heard"] or signal.SIGINT)
    else:  # by the thread, when the main one has left the destructor
        os.write(_state["writer"], bytes([LOST]))


def _ignore() -> None:
    """Ignores both signals from now on: as Python shuts down, their default would kill a command that has ended."""
    for number in SENTENCES:
        if signal.getsignal(number) is _hear:
            signal.signal(number, signal.SIG_IGN)


def _forget() -> None:
    """Makes a forked process, which is not this command, end by these signals without a word."""
    signal.set_wakeup_fd(-1)
    for number in SENTENCES:
        if signal.getsignal(number) is _hear:
            signal.signal(number, signal.SIG_DFL)
