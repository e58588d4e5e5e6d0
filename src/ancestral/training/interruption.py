"""Keeping a training alone in its folder, and ending it when it is asked to."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from ancestral.errors import UserError
from ancestral.runs import LOCK

if sys.platform != "win32":  # which has no such lock
    import fcntl


SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""What ends a training, saved."""


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keep a second process of the same command out of the run directory."""
    if sys.platform == "win32":
        yield
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / LOCK).open("w")
    except OSError as error:
        blocking = next((p for p in (path, *path.parents) if p.exists() and not p.is_dir()), None)
        got = f" {blocking} which is no folder" if blocking else f": {error.strerror}"
        raise UserError(f"expected to write into {path}, got{got}", "choose another --out") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            problem = f"expected to be alone in {path}, got another process that trains there"
            raise UserError(problem, "wait for it or stop it") from None
        yield


class Signals:
    """Ctrl-C, SIGTERM and SIGHUP set ``received`` inside the block; a second one raises KeyboardInterrupt.

    One that is ignored already (SIGHUP under nohup) stays so.
    """

    def __init__(self) -> None:
        self.received: int | None = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = number

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Listen inside the block, then leave signals as they were."""
        try:
            heeded = [n for n in SIGNALS if signal.getsignal(n) != signal.SIG_IGN]
            before = {n: signal.signal(n, self._handle) for n in heeded}
        except ValueError:  # not the main thread: the caller handles signals
            before = {}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
