"""Keeping a training alone in its folder, and ending it when it is asked to."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from ancestral.errors import UserError

if sys.platform != "win32":  # which has no such lock
    import fcntl


class Interrupted(Exception):
    """The training was asked to stop (Ctrl-C, SIGTERM), saved, and can go on."""

    def __init__(self, stage: str, step: int, number: int) -> None:
        self.stage, self.step, self.signal = stage, step, number
        super().__init__(f"stopped in stage {stage} after step {step}; saved")


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keep a second process of the same command out of the run directory."""
    if sys.platform == "win32":
        yield
        return
    path.mkdir(parents=True, exist_ok=True)
    with (path / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            problem = f"expected to be alone in {path}, got another process that trains there"
            raise UserError(problem, "wait for it or stop it") from None
        yield


class Signals:
    """Ctrl-C and SIGTERM set ``received`` inside the block; a second one raises KeyboardInterrupt."""

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
            before = {n: signal.signal(n, self._handle) for n in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not the main thread: the caller handles signals
            before = {}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
